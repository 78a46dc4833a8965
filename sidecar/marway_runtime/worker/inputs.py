"""What handlers are given for a row: the values and headers that TorchServe's REST front end would have given them."""

from __future__ import annotations

import json
import logging
from collections.abc import ItemsView, Iterator, KeysView, Sequence, ValuesView
from typing import Any

from marway.wire.envelope import RAW_BODY, Part, Row, mime_type
from marway.wire.headers import JSON_NONFINITE
from marway.wire.raw_body import REST_NAME, RawBody

__all__ = ["Headers", "UnusableInput", "headers_of", "input_of", "unexplained"]

logger = logging.getLogger(__name__)

_FRONT_ENDS_OWN = {"explain": "False", "url_path": ""}
"""What TorchServe's front end adds to the headers of every prediction; its own handlers look at `explain`."""


class UnusableInput(Exception):
    """A row that no handler can be given: its caller's fault."""


class Headers(dict[str, Any]):
    """Request headers by their names in lower case, found however they are spelt.

    TorchServe hands on the names as the client spelt them and compares them exactly; HTTP says that case is nothing.
    """

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

    looked = False

    def __getitem__(self, key: str) -> Any:
        self._look(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._look(key)
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._look(key)
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        self.looked = True
        return super().__iter__()

    def keys(self) -> KeysView[str]:  # type: ignore[override]  # the stubs name dict's own kinds of views
        self.looked = True
        return super().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # as above
        self.looked = True
        return super().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]  # as above
        self.looked = True
        return super().items()

    def copy(self) -> dict[str, Any]:
        self.looked = True
        return super().copy()

    def _look(self, key: object) -> None:
        if isinstance(key, str) and key.lower() == "explain":
            self.looked = True


def unexplained(headers: Sequence[Headers]) -> bool:
    """Return whether rows with these headers were to be explained, and the handler never looked at that."""
    return all(isinstance(each, _HeadersOfExplanation) and not each.looked for each in headers)


def input_of(row: Row) -> dict[str, Any]:
    """Return the values of a row by name; of fields that share one the last counts, as in TorchServe.

    Raises:
        UnusableInput: One of them is JSON that no parser takes in; TorchServe hands that on as bytes.
    """
    values = {part.name: _value(part) for part in row.parts}
    return RawBody(values) if row.is_raw else values


def headers_of(row: Row) -> Headers:
    """Return the headers of a row, and each part's content type under the part's name, where TorchServe puts it."""
    headers = Headers({part.name: {"content-type": mime_type(part.content_type)} for part in row.parts})
    if row.is_raw:
        headers[REST_NAME] = headers[RAW_BODY]
    headers.update(_FRONT_ENDS_OWN)
    headers.update(row.headers)
    headers.pop(JSON_NONFINITE, None)
    return _HeadersOfExplanation(headers) if row.explains else headers


def _value(part: Part) -> object:
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
