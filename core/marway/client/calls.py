"""One call of a gateway, before it is sent: what both clients say alike, as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, TypedDict
from uuid import uuid4

import httpx

from marway import __version__
from marway.admin_client import token_of
from marway.client.values import JSON, body_of, to_json
from marway.deadline import Deadline
from marway.errors import InvalidInput, InvalidSettings
from marway.refs import Reference, check_label, check_model_id, check_version, is_label, parse_reference
from marway.wire import headers as wire

__all__ = [
    "CONNECTIONS",
    "Call",
    "CallOptions",
    "Target",
    "feedback_call",
    "get_call",
    "model_path",
    "path_of",
    "predict_call",
    "request_of",
]

Priority = Literal["batch"]
CONNECTIONS: Final[dict[str, Any]] = {
    # As many connections as callers ask at the same time.
    "limits": httpx.Limits(max_connections=None, max_keepalive_connections=100),
    # A proxy that the environment names is for other machines: it would look for this one's gateway on its own.
    "mounts": dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]")),
}
"""Arguments of httpx's clients."""
_SEQUENCE: Final = frozenset({wire.SEQUENCE_ID, wire.SEQUENCE_ID.replace("_", "-")})


class CallOptions(TypedDict, total=False):
    """What may go with any prediction, beside the model and the input."""

    content_type: str | None
    """Of the input; else known by its type (`marway.client.values.body_of`)."""
    headers: Mapping[str, str] | None
    """More headers, which the handler sees."""
    timeout_s: float | None
    """Deadline of the whole call in seconds, further tries and pauses included; else the client's."""
    request_id: str | None
    """`X-Request-Id`, in logs and observations; else a new one."""
    group_id: str | None
    """`X-Request-Group-Id`, such as a session's: feedback may name it."""
    priority: Priority | None
    """`batch` gives way to all other requests."""


@dataclass(frozen=True)
class Call:
    """One call, whichever client makes it.

    Attributes:
        method: HTTP method.
        url: The whole address.
        headers: All but the time that is left.
        body: Its body, or None.
        deadline: Of the whole call.
        request_id: Its `X-Request-Id`, the same for each try.
        model: Which model it is about, for errors.
        repeatable: Whether it does no harm to send it again when its answer was lost.
    """

    method: str
    url: httpx.URL
    headers: dict[str, str]
    body: bytes | None
    deadline: Deadline
    request_id: str
    model: str | None = None
    repeatable: bool = True

    @property
    def shown_url(self) -> httpx.URL:
        """The address as errors may name it: without a user's name and password."""
        return self.url.copy_with(userinfo=b"")


@dataclass(frozen=True)
class Target:
    """Whom a client asks, and what all its calls have.

    Attributes:
        url: The gateway's public port, with any prefix that a proxy puts before the paths.
        timeout_s: Deadline of a call that says none, in seconds.
        retries: Further tries of a call at most.
        headers: Of each call.
    """

    url: str = field(repr=False)  # a password may be in it
    timeout_s: float
    retries: int
    headers: Mapping[str, str] = field(repr=False)  # the token is among them

    @classmethod
    def of(
        cls, url: str, api_key: str | None, *, timeout_s: float, retries: int, headers: Mapping[str, str] | None
    ) -> Target:
        """Return the target that a client's arguments mean.

        Raises:
            InvalidSettings: One of them makes no sense.
        """
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as exc:
            raise InvalidSettings(f"gateway {url!r} is no URL ({exc}): use one such as http://127.0.0.1:8000") from exc
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
            raise InvalidSettings(f"gateway {url!r} is no URL of a gateway: use one such as http://127.0.0.1:8000")
        if timeout_s <= 0 or retries < 0:
            raise InvalidSettings(
                f"timeout_s={timeout_s}, retries={retries}: give a time-out above 0, and 0 retries or more"
            )
        every = {"user-agent": f"marway-client/{__version__}", **_checked(headers)}
        api_key = token_of(api_key, None)
        if api_key is not None:
            every["authorization"] = _value("api_key", f"Bearer {api_key}")
        return cls(url.rstrip("/"), timeout_s, retries, every)


def predict_call(
    target: Target,
    model: str,
    value: object,
    label: str | None = None,
    version: str | None = None,
    *,
    accept: str | None = None,
    content_type: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    request_id: str | None = None,
    group_id: str | None = None,
    priority: Priority | None = None,
) -> Call:
    """Return the call of a prediction.

    Raises:
        InvalidInput: Something of it cannot be sent.
    """
    body, kind = body_of(value, content_type)
    if not body:
        raise InvalidInput("the input is empty: there is nothing to predict", model=model)
    own: dict[str, str] = {"content-type": kind}
    if accept is not None:
        own["accept"] = accept
    if group_id is not None:
        own[wire.REQUEST_GROUP_ID] = _value("group_id", group_id)
    if priority is not None:
        if priority not in ("batch",):
            raise InvalidInput(f"priority {priority!r}: there is only 'batch', which gives way to all others")
        own[wire.PRIORITY] = priority
    given = _checked(headers)
    return _call(
        target,
        "POST",
        path_of(model, label, version),
        {**own, **given},
        body,
        timeout_s=timeout_s,
        request_id=request_id,
        model=model,
        # A sequence's state may have moved on with a request whose answer was lost.
        repeatable=_SEQUENCE.isdisjoint(given),
    )


def feedback_call(target: Target, entries: Iterable[Mapping[str, Any]], *, timeout_s: float | None = None) -> Call:
    """Return the call that sends feedback; members that are None are left out.

    Raises:
        InvalidInput: There is none, or it has no form in JSON.
    """
    sent = [{name: value for name, value in each.items() if value is not None} for each in entries]
    if not sent:
        raise InvalidInput("there is no feedback to send: give one entry or more")
    return _call(target, "POST", "/feedback", {"content-type": JSON}, to_json(sent), timeout_s=timeout_s)


def get_call(target: Target, path: str, *, query: Mapping[str, str] | None = None, model: str | None = None) -> Call:
    """Return the call that reads a document."""
    asked = f"?{httpx.QueryParams(query)}" if query else ""
    return _call(target, "GET", path + asked, {"accept": JSON}, None, model=model)


def model_path(model: str, version: str | None = None) -> str:
    """Return the path under which the gateway describes a model, or a version of it by its name or a label's.

    Raises:
        InvalidReference: One of them cannot be what it stands for.
    """
    path = f"/models/{check_model_id(model)}"
    if version is None:
        return path
    return f"{path}/versions/{version if is_label(version) else check_version(version)}"


@lru_cache(maxsize=256)
def path_of(model: str, label: str | None = None, version: str | None = None) -> str:
    """Return the path under which a version is asked; ``model`` may be `MODEL/LABEL`, `MODEL/VERSION` or an id.

    Raises:
        InvalidReference: One of them cannot be what it stands for.
        InvalidInput: They name more than one version.
    """
    found = parse_reference(model)
    named = [each for each in (found.selector, label, version) if each is not None]
    if len(named) > 1:
        raise InvalidInput(f"{' and '.join(named)}: name one version or one label of {found.name}", model=found.name)
    if label is not None:
        found = Reference(found.name, check_label(label))
    elif version is not None:
        found = Reference(found.name, check_version(version))
    check_model_id(found.name)
    return f"/predict/{found}"


def _call(
    target: Target,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None,
    *,
    timeout_s: float | None = None,
    request_id: str | None = None,
    model: str | None = None,
    repeatable: bool = True,
) -> Call:
    seconds = target.timeout_s if timeout_s is None else timeout_s
    if seconds <= 0:
        raise InvalidInput(f"timeout_s={seconds}: a time-out is above 0 seconds")
    name = uuid4().hex if request_id is None else _value("request_id", request_id)
    every = {**target.headers, **headers, wire.REQUEST_ID: name}
    return Call(method, _parsed(target.url + path), every, body, Deadline.after(seconds), name, model, repeatable)


@lru_cache(maxsize=256)
def _parsed(url: str) -> httpx.URL:
    return httpx.URL(url)


def request_of(
    method: str, url: httpx.URL, *, content: bytes | None, headers: Mapping[str, str], timeout: httpx.Timeout
) -> httpx.Request:
    """Return a request as httpx's clients build it, at half of the cost: one with nothing of its own to add."""
    every = {"accept": "*/*", "accept-encoding": "gzip, deflate", "connection": "keep-alive", **headers}
    return httpx.Request(method, url, content=content, headers=every, extensions={"timeout": timeout.as_dict()})


def _checked(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {name.lower(): _value(name, value) for name, value in (headers or {}).items()}


def _value(name: str, value: str) -> str:
    if wire.header_fault({"x": value}) is not None or not value.isascii():
        raise InvalidInput(f"{name} cannot be sent in a header of HTTP: use plain ASCII text on one line")
    return value
