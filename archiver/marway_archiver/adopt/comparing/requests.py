"""Requests that clients sent to an old server, as a file has them: JSON lines, also those of an access log, or HAR."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from marway.archives.entries import from_file, read_all, shown
from marway.errors import InvalidInput, clip
from marway_archiver.adopt.comparing.routes import Route, default_route, route_of
from marway_archiver.adopt.comparing.sent import (
    OldAnswer,
    OldRequest,
    body_of,
    decoded,
    headers_given,
    headers_sent,
    host_named,
)
from marway_archiver.adopt.found import Protocol

__all__ = ["Requests", "read_requests"]

_FILE_BYTES_MAX: Final = 256 * 1024 * 1024
_REQUESTS_MAX: Final = 100_000
_BYTES: Final = "application/octet-stream"
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "method": ("method", "request_method", "http_method"),
    "path": ("path", "url", "uri", "request_uri", "request_path"),
    "body": ("body", "input", "request_body", "payload", "request"),
    "body_base64": ("body_base64", "request_body_base64"),
    "file": ("file",),
    "content_type": ("content_type", "request_content_type"),
    "headers": ("headers", "request_headers"),
    "model": ("model", "model_name"),
    "version": ("version", "model_version"),
    "answer": ("answer", "output", "response_body", "response"),
    "answer_base64": ("answer_base64", "response_body_base64"),
    "answer_type": ("answer_content_type", "response_content_type"),
    "status": ("status", "response_status", "status_code"),
    "seconds": ("duration_s", "seconds", "request_time"),
    "milliseconds": ("duration_ms", "latency_ms"),
}
"""Fields of a line, each by the names that it goes by in people's logs."""


@dataclass(frozen=True, slots=True)
class Requests:
    """What a file holds.

    Attributes:
        found: Requests for predictions, in their order, each once.
        left_out: How many entries are none, or cannot be sent again, by why.
        repeated: How many are the same as one before.
        not_read: Fields of lines that nothing is known of, by how many have them.
    """

    found: tuple[OldRequest, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    repeated: int = 0
    not_read: Mapping[str, int] = field(default_factory=dict)


class _LeftOut(Exception):
    """An entry is passed over, for this reason."""


def read_requests(path: Path, protocols: Mapping[str, Protocol]) -> Requests:
    """Read a file of requests: HAR where it is one JSON object with a `log`, else an object a line.

    A line has `path` (or `model`, and `version`), and a body as `body` (JSON, or text), `body_base64` or `file`, a path
    relative to the file; also `content_type`, `method`, `headers`, and what was answered: `answer`, `status`. Access
    logs' own names are known too, and lines of `marway pack --examples`.

    Args:
        path: The file.
        protocols: By which a line that names no path is sent, by the old server's names of its models. Where there is
            one model, lines need not name it.

    Raises:
        InvalidInput: It cannot be read, or a line is none; the message names it.
    """
    try:
        text = read_all(from_file(path.name, path), _FILE_BYTES_MAX).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"{path} is not UTF-8") from exc
    reading = _Reading(path, protocols)
    document = _har(text)
    if document is not None:
        for number, entry in enumerate(document, 1):
            reading.take(f"{path.name}, entry {number}", entry, har=True)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                reading.take(f"{path.name}:{number}", _object(f"{path.name}:{number}", line))
    return reading.done()


def _har(text: str) -> list[Any] | None:
    """Return the entries of a HAR file, or None where it is none."""
    if '"log"' not in text or not text.lstrip().startswith("{"):
        return None
    try:
        entries = json.loads(text)["log"]["entries"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return entries if isinstance(entries, list) else None


def _object(where: str, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(f"{where}: is not JSON: {clip(str(exc), 120)}") from exc
    if not isinstance(found, dict):
        raise InvalidInput(f"{where}: an object is wanted, with 'path' or 'model', and 'body'")
    return found


class _Reading:
    """A file while it is read."""

    def __init__(self, path: Path, protocols: Mapping[str, Protocol]) -> None:
        self._path, self._protocols = path, protocols
        self._found: dict[tuple[str, str | None, bytes], OldRequest] = {}
        self._left_out: Counter[str] = Counter()
        self._not_read: Counter[str] = Counter()
        self._repeated = 0

    def take(self, where: str, entry: Any, *, har: bool = False) -> None:
        """Take in an entry."""
        try:
            request = self._of_har(where, entry) if har else self._of_line(where, entry)
        except _LeftOut as exc:
            self._left_out[str(exc)] += 1
            return
        key = (request.route.path, request.content_type, request.body)
        known = self._found.setdefault(key, request)
        if known is not request:
            self._repeated += 1
        elif len(self._found) > _REQUESTS_MAX:
            raise InvalidInput(f"{self._path} has more than {_REQUESTS_MAX} different requests: give fewer")

    def done(self) -> Requests:
        if not self._found:
            why = "; ".join(f"{count} {text}" for text, count in self._left_out.most_common(3))
            raise InvalidInput(
                f"{self._path} holds no request for a prediction" + (f": {why}" if why else "")
                + '; give one JSON object a line, such as {"path": "/predictions/intent", "body": "some text"}'
            )  # fmt: skip
        return Requests(tuple(self._found.values()), dict(self._left_out), self._repeated, dict(self._not_read))

    def _of_line(self, where: str, line: Mapping[str, Any]) -> OldRequest:
        given: dict[str, Any] = {}
        known = {name: what for what, names in _NAMES.items() for name in reversed(names)}
        for name, value in line.items():
            what = known.get(name)
            if what is None:
                self._not_read[clip(name, 60)] += 1
            elif value is not None:
                given.setdefault(what, value)
        for name in ("method", "path", "file", "content_type", "model", "body_base64", "answer_base64", "answer_type"):
            if not isinstance(given.get(name, ""), str):
                raise InvalidInput(f"{where}: {name} is a text")
        headers = headers_given(where, given.get("headers", {}))
        url = given.get("path")
        method = str(given.get("method", "POST")).upper()
        route = self._route(where, method, url, given)
        kind = given.get("content_type") or headers.get("content-type")
        if sum(name in given for name in ("body", "body_base64", "file")) != 1:
            if not {"body", "body_base64", "file"} & given.keys():
                raise _LeftOut("have no body")
            raise InvalidInput(f"{where}: one of 'body', 'body_base64' and 'file' is wanted")
        if "file" in given:
            body, kind = self._file(where, given["file"]), kind or _BYTES
        elif "body_base64" in given:
            body, kind = decoded(where, given["body_base64"]), kind or _BYTES
        else:
            body, kind = body_of(given["body"], kind, text="input" in line)
        return OldRequest(
            where, route, body, kind, headers_sent(headers), _answer(where, given), host_named(url, headers)
        )

    def _route(self, where: str, method: str, url: str | None, given: Mapping[str, Any]) -> Route:
        if url is None:
            only = next(iter(self._protocols)) if len(self._protocols) == 1 else None
            model = given.get("model", only)
            if model is None:
                raise InvalidInput(f"{where}: says neither 'path' nor 'model', and there are several models")
            version = given.get("version")
            protocol = self._protocols.get(model, next(iter(self._protocols.values()), "torchserve"))
            return default_route(protocol, model, None if version is None else str(version))
        return _asked(method, url)

    def _of_har(self, where: str, entry: Any) -> OldRequest:
        request = entry.get("request") if isinstance(entry, dict) else None
        if not isinstance(request, dict) or not isinstance(request.get("url"), str):
            raise InvalidInput(f"{where}: has no request with a url")
        url = request["url"]
        route = _asked(str(request.get("method", "POST")).upper(), url)
        pairs = request.get("headers") or []
        headers = headers_given(where, {str(each.get("name")): str(each.get("value")) for each in pairs})
        posted = request.get("postData") or {}
        if not isinstance(posted.get("text"), str):
            raise _LeftOut("have no body that the HAR file kept")
        body = decoded(where, posted["text"]) if posted.get("encoding") == "base64" else posted["text"].encode()
        kind = headers.get("content-type") or posted.get("mimeType") or None
        return OldRequest(
            where, route, body, kind, headers_sent(headers), _har_answer(where, entry), host_named(url, headers)
        )

    def _file(self, where: str, name: str) -> bytes:
        path = self._path.parent / name
        if not path.is_file():
            raise InvalidInput(f"{where}: there is no file {shown(str(path))}")
        return read_all(from_file(path.name, path), _FILE_BYTES_MAX)


def _asked(method: str, url: str) -> Route:
    """Return what is asked for; raise where it is no prediction."""
    route = route_of(url)
    if route is None or method in ("OPTIONS", "HEAD", "DELETE"):
        kind = url.partition("?")[0].rstrip("/").rpartition("/")[2]
        raise _LeftOut(f"ask for no prediction ({method} …/{clip(kind, 40)})")
    if method == "GET":
        raise _LeftOut("are predictions by GET, whose input is in the query")
    return route


def _answer(where: str, given: Mapping[str, Any]) -> OldAnswer | None:
    if not {"answer", "answer_base64"} & given.keys():
        return None
    status = given.get("status", 200)
    if not (isinstance(status, int) or (isinstance(status, str) and status.isdigit())) or not 100 <= int(status) <= 599:
        raise InvalidInput(f"{where}: status is a number, such as 200")
    kind = given.get("answer_type")
    if "answer_base64" in given:
        return OldAnswer(int(status), kind, decoded(where, given["answer_base64"]), _seconds(given))
    body, assumed = body_of(given["answer"], kind, text=False)
    return OldAnswer(int(status), kind or assumed, body, _seconds(given))


def _seconds(given: Mapping[str, Any]) -> float | None:
    for name, scale in (("seconds", 1.0), ("milliseconds", 1000.0)):
        value = given.get(name)
        if isinstance(value, int | float) and value > 0:
            return float(value) / scale
    return None


def _har_answer(where: str, entry: Mapping[str, Any]) -> OldAnswer | None:
    response = entry.get("response") or {}
    content = response.get("content") or {}
    if not isinstance(content.get("text"), str) or not isinstance(response.get("status"), int):
        return None
    text = content["text"]
    body = decoded(where, text) if content.get("encoding") == "base64" else text.encode()
    waited = (entry.get("timings") or {}).get("wait")
    seconds = waited / 1000 if isinstance(waited, int | float) and waited > 0 else None
    return OldAnswer(response["status"], content.get("mimeType") or None, body, seconds)
