"""Calls of a gateway's admin port, for the `marway` command, the archiver and `marway up`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from marway.errors import InvalidSettings, MarwayError, Unauthenticated, Unavailable
from marway.process.identity import this_user
from marway.refs import new_ulid
from marway.tokens import first_token
from marway.wire.comparison import Comparison
from marway.wire.problems import CONTENT_TYPE, parse_problem

__all__ = [
    "ADMIN_ENV",
    "TOKEN_ENV",
    "TOKEN_FILE_ENV",
    "AdminClient",
    "admin_from_environment",
    "comparison_of",
    "token_of",
]

ADMIN_ENV: Final = "MARWAY_GATEWAY_ADMIN_URL"
TOKEN_ENV: Final = "MARWAY_TOKEN"  # noqa: S105  # the name of a variable
TOKEN_FILE_ENV: Final = "MARWAY_TOKEN_FILE"  # noqa: S105  # the name of a variable

Json = dict[str, Any]

_CONNECT_S: Final = 5.0
_READ_S: Final = 3600.0
"""The gateway bounds what it does, by the version's own load time-out where that is long."""
_NO_ROUTE: Final = frozenset({"not_found", "method_not_allowed"})


class AdminClient:
    """Calls one gateway's admin port.

    Each change has a name of its own, which a second attempt repeats: when the connection is lost before the answer,
    the change is asked for once more and is made once.

    Args:
        url: The admin port's, such as ``http://127.0.0.1:8001``.
        token: A bearer token, or None.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidSettings(f"gateway {url!r} is no URL: give its admin port's, such as http://127.0.0.1:8001")
        self.url = url.rstrip("/")
        self._token = token

    def release(
        self,
        model: str,
        version: str,
        *,
        label: str,
        if_currently: str | None = None,
        note: str | None = None,
        force: bool = False,
        by: str | None = None,
    ) -> Json:
        """Have a pod load, prove and compare a version, then move a label to it; return the change with all that.

        Raises:
            MarwayError: As `call`; the label stays where it was.
        """
        body = {"version": version, "if_currently": if_currently, "note": note, "force": force}
        answer: Json = self.call("PUT", f"/models/{model}/labels/{label}", body=body, by=by)
        return answer

    def compare(self, model: str, version: str, base: str) -> Comparison:
        """Have a pod compare a version, or a label's, with another one of the model; raises as `call`."""
        answer = self.call("POST", f"/models/{model}/versions/{version}/compare", params={"base": base})
        return Comparison.model_validate(answer)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str | None] | None = None,
        by: str | None = None,
    ) -> Any:
        """Make a call and return the JSON document that it answers.

        Args:
            method: HTTP method.
            path: Its parts need no quoting.
            body: Sent as JSON.
            params: The query; None leaves one out.
            by: Who asks, for the history; this process's user by default.

        Raises:
            MarwayError: What the gateway answered, as the error it stands for.
            InvalidSettings: There is a gateway, but this is not its admin port.
            Unavailable: There is no gateway.
        """
        headers = {"from": (by or this_user()).encode("ascii", "replace").decode(), "idempotency-key": new_ulid()}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        query = {name: value for name, value in (params or {}).items() if value is not None}
        with httpx.Client(timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S), trust_env=False) as client:
            request = client.build_request(method, f"{self.url}{path}", json=body, params=query, headers=headers)
            answer = self._answer(client, request)
        if answer.is_success:
            try:
                return answer.json()
            except ValueError as exc:
                raise self._no_admin_port("it answers with something else than JSON") from exc
        if not answer.headers.get("content-type", "").startswith(CONTENT_TYPE):
            raise self._no_admin_port(f"it answers {method} {path} with status {answer.status_code}")
        if answer.json().get("code") in _NO_ROUTE:
            raise self._no_admin_port(f"there is no {method} {path}")
        raise self._problem(answer)

    def _answer(self, client: httpx.Client, request: httpx.Request) -> httpx.Response:
        try:
            try:
                return client.send(request)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                return client.send(request)  # the answer was lost: the change may have been made, and is made once
        except (httpx.TransportError, httpx.InvalidURL) as exc:
            raise Unavailable(f"no gateway answers at {self.url}: {exc}") from exc

    def _problem(self, answer: httpx.Response) -> MarwayError:
        error = parse_problem(answer.content, status=answer.status_code)
        if isinstance(error, Unauthenticated):
            return Unauthenticated(
                f"the gateway at {self.url} wants a token: give --token-file, or set MARWAY_TOKEN"
                if self._token is None
                else f"the gateway at {self.url} does not know this token: it may have been replaced"
            )
        return error

    def _no_admin_port(self, why: str) -> InvalidSettings:
        return InvalidSettings(
            f"{self.url} is not the admin port of a gateway ({why}): give the admin port's URL, by default the port "
            "after the public one, such as http://127.0.0.1:8001"
        )


def comparison_of(release: Json) -> Comparison:
    """Return the comparison in what a gateway answered to a release."""
    found = release.get("comparison")
    if found is None:
        return Comparison(version=release["to"], not_compared="the gateway is of an older Marway")
    return Comparison.model_validate(found)


def admin_from_environment(url: str | None) -> AdminClient | None:
    """Return a client of the admin port at ``url``, else of the one in the environment, else None.

    Raises:
        InvalidSettings: The token file in the environment cannot be read or has no token in it.
    """
    url = url or os.environ.get(ADMIN_ENV)
    return AdminClient(url, token=token_of(None, None)) if url else None


def token_of(token: str | None, token_file: Path | None) -> str | None:
    """Return the token to send: this one, the file's, the environment's, or None.

    Raises:
        InvalidSettings: The file cannot be read or has no token in it.
    """
    given = token or (None if token_file is not None else os.environ.get(TOKEN_ENV))
    if given:
        return given
    named = os.environ.get(TOKEN_FILE_ENV)
    path = token_file or (Path(named) if named else None)
    if path is None:
        return None
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidSettings(f"cannot read the token file {path}: {getattr(exc, 'strerror', None) or exc}") from exc
    return first_token(text, source=f"the token file {path}")
