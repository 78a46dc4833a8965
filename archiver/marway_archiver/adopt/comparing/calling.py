"""Asks a server for predictions over one kept connection, and takes the time of each answer.

With `http.client`, for what the client takes counts in every time: httpx takes several times as long for a request as a
small model for its answer, and so would make every two servers look alike.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

from marway.answers.golden import GoldenAnswer, Kind, is_json, mime_type
from marway.answers.tensors import decode_tensor
from marway.errors import InvalidInput, Unavailable, clip
from marway_archiver.adopt.comparing.sent import OldAnswer, OldRequest
from marway_archiver.adopt.found import Protocol

__all__ = ["NoAnswer", "Server", "compared_answer", "has_id", "server_url"]

_ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
_ZIP: Final = b"PK"
_USER_AGENT: Final = "marway-adopt"


class NoAnswer(Exception):
    """A server gave no answer to a request; the text says why."""


def server_url(text: str, *, flag: str) -> str:
    """Return the URL of a server without a slash at its end.

    Raises:
        InvalidInput: It is none, or has what no base of a server's routes has.
    """
    parts = urlsplit(text)
    try:
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok = False
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or not port_ok:
        raise InvalidInput(f"{flag} {clip(text, 100)!r}: give a server's address, such as http://127.0.0.1:8080")
    if parts.username is not None:
        raise InvalidInput(f"{flag}: give no password in a URL, but a header with --from-header")
    return text.rstrip("/")


@dataclass(slots=True)
class Server:
    """One server, old or new, by one connection, which whoever made this closes.

    Args:
        url: Its address, as `server_url` returns it.
        timeout_s: How long one answer is waited for.
        headers: What every request gets, such as `authorization`; `host` too, where a router goes by it.
    """

    url: str
    timeout_s: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict)
    _connection: HTTPConnection | None = None

    def ask(self, request: OldRequest, path: str, *, host: str | None = None) -> OldAnswer:
        """Send a request to a path and return the answer with the seconds that it took. Blocks.

        A kept connection that the server has closed meanwhile is opened anew, once, and the time begins again.

        Raises:
            NoAnswer: There is none; it is not told apart whether the server had the request.
        """
        sent = {"user-agent": _USER_AGENT, **request.headers, **({"host": host} if host is not None else {})}
        if request.content_type is not None:
            sent["content-type"] = request.content_type
        return self._sent("POST", path, request.body, sent | dict(self.headers))

    def get(self, path: str, *, host: str | None = None) -> OldAnswer:
        """Return what it answers to a GET, such as for a model's metadata; raises as `ask`."""
        return self._sent("GET", path, b"", ({"host": host} if host is not None else {}) | dict(self.headers))

    def check_there(self) -> None:
        """Connect.

        Raises:
            Unavailable: Nobody listens there.
        """
        try:
            self._connected()
        except OSError as exc:
            raise Unavailable(f"no server listens at {self.url}: {exc}; is it running, and can it be reached?") from exc

    def close(self) -> None:
        """Close its connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> HTTPConnection:
        if self._connection is None:
            parts = urlsplit(self.url)
            kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
            connection = kind(parts.netloc, timeout=self.timeout_s)
            connection.connect()
            self._connection = connection
        return self._connection

    def _sent(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> OldAnswer:
        path = f"{urlsplit(self.url).path}{path}"
        kept = self._connection is not None
        try:
            return self._once(method, path, body, headers)
        except TimeoutError as exc:
            self.close()
            raise NoAnswer(f"no answer within {self.timeout_s:g} s") from exc
        except (OSError, HTTPException) as exc:
            self.close()
            if not kept:
                raise NoAnswer(f"no answer: {str(exc) or type(exc).__name__}") from exc
        try:
            return self._once(method, path, body, headers)
        except (OSError, HTTPException) as exc:
            self.close()
            raise NoAnswer(f"no answer: {str(exc) or type(exc).__name__}") from exc

    def _once(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> OldAnswer:
        connection = self._connected()
        started = time.perf_counter()
        connection.request(method, path, body if method == "POST" else None, dict(headers))
        answer = connection.getresponse()
        data = answer.read(_ANSWER_BYTES_MAX + 1)
        took = time.perf_counter() - started
        if len(data) > _ANSWER_BYTES_MAX:
            self.close()
            raise NoAnswer(f"an answer of more than {_ANSWER_BYTES_MAX} bytes, which is not compared")
        if answer.will_close:
            self.close()
        return OldAnswer(answer.status, answer.getheader("content-type"), data, took)


def compared_answer(answer: OldAnswer, protocol: Protocol, *, has_id: bool = False) -> GoldenAnswer:
    """Return an answer as two are compared: numbers within a tolerance, saved tensors as such, of errors their status.

    What a v2 server puts into each response of its own accord is left out: the model's name and version there, an id
    that the caller did not give (``has_id``), and parameters that are none.
    """
    status, content_type, body = answer.status, answer.content_type, answer.body
    if status >= 400:
        text = " ".join(body[:2000].decode(errors="replace").split())
        return GoldenAnswer(status=status, kind="error", content_type=content_type, value=clip(text, 400))
    if body.startswith(_ZIP):
        try:
            return GoldenAnswer(status=status, kind="tensor", content_type=content_type, value=decode_tensor(body))
        except ValueError:
            pass  # another file, or a tensor that is not looked into
    kind: Kind = "json" if is_json(content_type) else "text" if _is_text(answer) else "bytes"
    made = GoldenAnswer.of(status=status, kind=kind, body=body, content_type=content_type)
    if protocol == "v2" and isinstance(made.value, dict) and "outputs" in made.value:
        hidden = {"model_name", "model_version"} | (set() if has_id else {"id"})
        given = _with_parameters({n: v for n, v in made.value.items() if n not in hidden})
        outputs = given["outputs"]
        if isinstance(outputs, list):
            given["outputs"] = [_with_parameters(each) if isinstance(each, dict) else each for each in outputs]
        return made.model_copy(update={"value": given})
    return made


def _with_parameters(part: dict[str, Any]) -> dict[str, Any]:
    return part if part.get("parameters", True) else {name: v for name, v in part.items() if name != "parameters"}


def _is_text(answer: OldAnswer) -> bool:
    """Return whether an answer is text; TorchServe says nothing of what a handler's answer is, JSON or text."""
    mime = mime_type(answer.content_type).lower()
    if mime.startswith("text/"):
        return True
    if mime:
        return False
    try:
        answer.body.decode()
    except UnicodeDecodeError:
        return False
    return True


def has_id(body: bytes) -> bool:
    """Return whether a v2 request gives an id."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "id" in found
