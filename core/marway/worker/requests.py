"""What handlers are given for a row: the values and headers that TorchServe's REST front end would have given them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from marway.answers.encoding import Nonfinite
from marway.wire.envelope import RAW_BODY, Part, Row, mime_type
from marway.wire.headers import JSON_NONFINITE, TIMED
from marway.wire.raw_body import REST_NAME, RawBody

__all__ = [
    "Headers",
    "Request",
    "UnusableInput",
    "request_headers",
    "request_of",
    "unexplained",
    "value_of",
]

logger = logging.getLogger(__name__)

_FRONT_ENDS_OWN = {"explain": "False", "url_path": ""}
"""What TorchServe's front end adds to the headers of every prediction; its own handlers look at `explain`."""


class UnusableInput(Exception):
    """A row that no handler can be given: its caller's fault."""


class Headers(dict[str, Any]):
    """Request headers by their names in lower case, found however they are spelt.

    TorchServe hands on the names as the client spelt them and compares them exactly; HTTP says that case is nothing.

    Attributes:
        explains: Whether the row is to be explained.
        looked: Whether the handler found out whether it is; noted for such a row only.
    """

    explains = False
    looked = False

    def __missing__(self, key: str) -> Any:
        if key != key.lower():
            return self[key.lower()]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (isinstance(key, str) and super().__contains__(key.lower()))

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, super().get(key.lower(), default))


class _HeadersOfExplanation(Headers):
    """Those of a row that is to be explained: they note whether the handler found out."""

    explains = True

    def __getitem__(self, key: str) -> Any:
        self._look(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._look(key)
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._look(key)
        return super().get(key, default)

    def _look(self, key: object) -> None:
        if isinstance(key, str) and key.lower() == "explain":
            self.looked = True


def _noted(method: Callable[..., Any]) -> Callable[..., Any]:
    def look(self: _HeadersOfExplanation) -> Any:
        self.looked = True
        return method(self)

    return look


for _name in ("__iter__", "copy", "items", "keys", "values"):  # by which whoever looks sees all
    setattr(_HeadersOfExplanation, _name, _noted(getattr(Headers, _name)))


class Request(NamedTuple):  # made for every row: a frozen dataclass takes twice as long
    """One row as a handler is given it.

    Attributes:
        request_id: What the handler sees as the request's id.
        headers: What it finds by the context.
        inputs: Returns the values by name; raises `UnusableInput`.
        nonfinite: What becomes of numbers in its answer that JSON has not.
    """

    request_id: str
    headers: Headers
    inputs: Callable[[], dict[str, Any]]
    nonfinite: Nonfinite = "error"


def request_of(row: Row) -> Request:
    """Return an envelope's row as a handler is given it; of fields with one name the last counts, as in TorchServe."""
    raw = row.is_raw
    asked = row.headers.get(JSON_NONFINITE)
    return Request(
        row.request_id,
        request_headers({part.name: part.content_type for part in row.parts}, row.headers, raw=raw),
        partial(_values, row.parts, raw),
        asked if asked in ("null", "allow") else "error",  # type: ignore[arg-type]  # one of its words
    )


def unexplained(headers: Sequence[Headers]) -> bool:
    """Return whether rows with these headers were to be explained, and the handler never looked at that."""
    return all(each.explains and not each.looked for each in headers)


def request_headers(content_types: Mapping[str, str | None], sent: Mapping[str, str], *, raw: bool) -> Headers:
    """Return what a client sent, and each part's content type under the part's name, where TorchServe puts it.

    Names of headers that were ``sent`` are in lower case. The one part of a ``raw`` body has two names.
    """
    headers = Headers({name: {"content-type": mime_type(kind)} for name, kind in content_types.items()})
    if raw:
        headers[REST_NAME] = headers[RAW_BODY]
    headers.update(_FRONT_ENDS_OWN)
    headers.update(sent)
    headers.pop(JSON_NONFINITE, None)
    headers.pop(TIMED, None)
    return _HeadersOfExplanation(headers) if sent.get("explain") == "True" else headers


def _values(parts: Sequence[Part], raw: bool) -> dict[str, Any]:
    values = {part.name: value_of(part) for part in parts}
    return RawBody(values) if raw else values


def value_of(part: Part) -> object:
    """Return what `ts.protocol.otf_message_handler` makes of a part.

    Raises:
        UnusableInput: It is JSON that no parser takes in.
    """
    content_type = mime_type(part.content_type)
    try:
        if content_type == "application/json":
            return json.loads(part.value.decode())
        if content_type.startswith("text"):
            return part.value.decode()
    except RecursionError:
        raise UnusableInput("the JSON is nested too deeply") from None
    except ValueError:  # includes UnicodeDecodeError: the handler gets the bytes, as TorchServe does it
        logger.warning("A %s body could not be decoded and goes to the handler as bytes.", content_type)
    return part.value if isinstance(part.value, bytearray) else bytearray(part.value)
