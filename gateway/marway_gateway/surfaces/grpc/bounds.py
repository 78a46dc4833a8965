"""Messages over gRPC are bounded before they are parsed: parsing happens on the event loop, and costs by their fields.

A message of 16 MB can hold eight million empty inputs, which take seconds and a gigabyte to parse. So its outermost
fields are counted first, in as many steps; what is within the inputs of a `ModelInfer` is parsed elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from marway.errors import InvalidRequest

__all__ = ["FIELDS_MAX", "check_fields", "text_fields"]

FIELDS_MAX: Final = 10_000
"""Most outermost fields of a message: inputs, outputs, parameters, binary contents together."""
_SMALL_BYTES: Final = 4096
"""No message of this size has more, or is worth looking at."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def check_fields(data: bytes) -> None:
    """Return when a message has few enough outermost fields.

    Raises:
        InvalidRequest: It has too many, or is no message.
    """
    if len(data) > _SMALL_BYTES:
        for _ in _fields(data):
            pass


def text_fields(data: bytes, *numbers: int) -> tuple[str, ...]:
    """Return the texts of a message's outermost fields of these numbers; "" for one that is not there.

    Raises:
        InvalidRequest: It has too many fields, is no message, or one of them is no text.
    """
    found = dict.fromkeys(numbers, b"")
    for number, value in _fields(data):
        if number in found and value is not None:
            found[number] = bytes(value)
    try:
        return tuple(value.decode() for value in found.values())
    except UnicodeDecodeError:
        raise InvalidRequest("the message's model name or version is no text") from None


def _fields(data: bytes) -> Iterator[tuple[int, memoryview | None]]:
    """Yield number and value of each outermost field (protobuf's encoding); None for one that is no text or message."""
    view, at, count = memoryview(data), 0, 0
    while at < len(view):
        count += 1
        if count > FIELDS_MAX:
            raise InvalidRequest(f"the message has more than {FIELDS_MAX} fields: send less at once")
        tag, at = _varint(view, at)
        kind, value = tag & 7, None
        if kind == _VARINT:
            _, at = _varint(view, at)
        elif kind == _LENGTH:
            length, at = _varint(view, at)
            value, at = view[at : at + length], at + length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:  # groups, which no message here has
            raise InvalidRequest("the message cannot be parsed")
        if at > len(view):
            raise InvalidRequest("the message cannot be parsed: it is cut off")
        yield tag >> 3, value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise InvalidRequest("the message cannot be parsed")
