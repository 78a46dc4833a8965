"""The outermost fields of a protobuf message, found without parsing it (protobuf.dev/programming-guides/encoding).

Parsing costs by a message's fields and copies what they hold: one of 16 MB can hold eight million empty inputs, which
take seconds and a gigabyte, or one tensor, which need not be copied at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from marway.errors import InvalidRequest

__all__ = ["FIELDS_MAX", "Field", "encoded", "fields_of", "parted", "text_fields"]

FIELDS_MAX: Final = 10_000
"""Most outermost fields of a message: inputs, outputs, parameters, binary contents together."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field.

    Attributes:
        number: As the .proto has it.
        value: What it holds; None for one that is no text, bytes or message.
        start, end: Where it lies in its message, its number and length included.
    """

    number: int
    value: memoryview | None
    start: int
    end: int


def fields_of(data: bytes) -> Iterator[Field]:
    """Yield each outermost field.

    Raises:
        InvalidRequest: There are more than `FIELDS_MAX`, or it is no message.
    """
    view, at, count = memoryview(data), 0, 0
    while at < len(view):
        count += 1
        if count > FIELDS_MAX:
            raise InvalidRequest(f"the message has more than {FIELDS_MAX} fields: send less at once")
        start = at
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
        yield Field(tag >> 3, value, start, at)


def text_fields(data: bytes, *numbers: int) -> tuple[str, ...]:
    """Return the texts of a message's outermost fields of these numbers; "" for one that is not there.

    Raises:
        InvalidRequest: It has too many fields, is no message, or one of them is no text.
    """
    found = dict.fromkeys(numbers, b"")
    for field in fields_of(data):
        if field.number in found and field.value is not None:
            found[field.number] = bytes(field.value)
    try:
        return tuple(value.decode() for value in found.values())
    except UnicodeDecodeError:
        raise InvalidRequest("the message's model name or version is no text") from None


def parted(data: bytes, number: int) -> tuple[bytes, list[memoryview]]:
    """Return a message without its fields of a number, and what those hold, uncopied.

    Raises:
        InvalidRequest: It has too many fields, or is no message.
    """
    rest: list[memoryview] = []
    found: list[memoryview] = []
    view = memoryview(data)
    for field in fields_of(data):
        if field.number == number and field.value is not None:
            found.append(field.value)
        else:
            rest.append(view[field.start : field.end])
    return (b"".join(rest), found) if found else (data, found)


def encoded(number: int, length: int) -> bytes:
    """Return what stands before the ``length`` bytes of a field of texts, bytes or messages."""
    return _as_varint(number << 3 | _LENGTH) + _as_varint(length)


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


def _as_varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
