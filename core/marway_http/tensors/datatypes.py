"""The datatypes of the Open Inference Protocol: which values they hold, and how those lie in bytes.

Binary tensors are little-endian and row-major; a BYTES element is its length (4 bytes) and then itself. BF16 is the
upper half of an FP32. Values in memory are Python's bool, int, float and bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from marway.errors import InvalidRequest

__all__ = ["BYTES", "DATATYPES", "Datatype", "Value", "datatype_of"]

Value = bool | int | float | bytes

_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype.

    Attributes:
        name: In the protocol's words.
        kind: The type of its values in memory.
        size: Bytes of an element; 0 for BYTES, whose elements differ.
        code: How `struct` writes an element; "" where it cannot.
        low, high: The least and the largest finite value.
    """

    name: str
    kind: type[bool | int | float | bytes]
    size: int
    code: str
    low: float = 0
    high: float = 0

    def accepts(self, value: object) -> bool:
        """Return whether ``value``, as JSON gives it, is one of its values: finite, of its kind and in its range."""
        if self.kind is bytes:
            return isinstance(value, str | bytes)
        if self.kind is bool:
            return isinstance(value, bool) or (type(value) is int and value in (0, 1))
        if self.kind is int and type(value) is float and not value.is_integer():
            return False  # but 3.0 is taken, as some clients write a whole number
        return type(value) in (int, float) and self.low <= value <= self.high  # type: ignore[operator]  # a number

    def refused(self, values: Sequence[Any]) -> int | None:
        """Return where the first value is that it does not accept, None where it accepts all; none of them is NaN."""
        kinds = set(map(type, values))
        numbers = self.low < self.high and kinds == {self.kind} and self.low <= min(values) and max(values) <= self.high
        if numbers or (self.kind is bytes and kinds == {str}):
            return None  # as nearly always
        return next((index for index, value in enumerate(values) if not self.accepts(value)), None)

    def converted(self, value: Any) -> Value:
        """Return a value that `accepts` accepted as what it is in memory."""
        return value.encode() if isinstance(value, str) else self.kind(value)

    def unpack(self, data: bytes | memoryview, *, count: int, where: str) -> list[Value]:
        """Return the ``count`` values, as the tensor's shape has them, that ``data`` holds.

        Raises:
            InvalidRequest: It holds another number of them, or none of this datatype.
        """
        if self.kind is bytes:
            return _elements(bytes(data), count=count, where=where)
        if len(data) != count * self.size:
            raise InvalidRequest(
                f"{where} has {len(data)} bytes: {count} elements of {self.name} have {count * self.size}"
            )
        if self.name == "BF16":
            halves = struct.unpack(f"<{count}H", data)
            return list(struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *(half << 16 for half in halves))))
        if self.kind is bool:
            # Any byte but 0 is true to whoever wrote it; struct would take it so without saying.
            if not set(bytes(data)) <= {0, 1}:
                raise InvalidRequest(f"{where} holds a byte that is neither 0 nor 1, which no BOOL is")
            return [byte == 1 for byte in bytes(data)]
        return list(struct.unpack(f"<{count}{self.code}", data))

    def pack(self, values: Sequence[Any]) -> bytes:
        """Return the bytes of values that are its own."""
        if self.kind is bytes:
            return b"".join(piece for value in values for piece in (_LENGTH.pack(len(value)), value))
        if self.name == "BF16":
            return struct.pack(f"<{len(values)}H", *map(_bfloat16, values))
        return struct.pack(f"<{len(values)}{self.code}", *values)


_WIDTHS: Final = ((8, "b"), (16, "h"), (32, "i"), (64, "q"))
_FLOATS: Final = (
    ("BF16", 2, "", 3.3895313892515355e38),
    ("FP16", 2, "e", 65504.0),
    ("FP32", 4, "f", 3.4028234663852886e38),
    ("FP64", 8, "d", 1.7976931348623157e308),
)

BYTES: Final = Datatype("BYTES", bytes, 0, "")
DATATYPES: Final[Mapping[str, Datatype]] = {
    each.name: each
    for each in (
        Datatype("BOOL", bool, 1, "?"),
        *(Datatype(f"INT{n}", int, n // 8, code, -(2 ** (n - 1)), 2 ** (n - 1) - 1) for n, code in _WIDTHS),
        *(Datatype(f"UINT{n}", int, n // 8, code.upper(), 0, 2**n - 1) for n, code in _WIDTHS),
        *(Datatype(name, float, size, code, -high, high) for name, size, code, high in _FLOATS),
        BYTES,
    )
}


def datatype_of(name: object, *, where: str) -> Datatype:
    """Return the datatype of this name.

    Raises:
        InvalidRequest: There is none.
    """
    found = DATATYPES.get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidRequest(f"{where} has no known datatype: give one of {', '.join(sorted(DATATYPES))}")
    return found


def _bfloat16(value: float) -> int:
    """Return the BF16 nearest to ``value``, ties to even, as its 16 bits."""
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    if math.isnan(value):
        return (bits >> 16) | 0x40
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def _elements(data: bytes, *, count: int, where: str) -> list[Value]:
    found: list[Value] = []
    offset = 0
    while offset < len(data):
        start = offset + _LENGTH.size
        if start > len(data):
            raise InvalidRequest(f"{where} ends within the length of element {len(found)}")
        (length,) = _LENGTH.unpack_from(data, offset)
        offset = start + length
        if offset > len(data):
            raise InvalidRequest(
                f"{where} says that element {len(found)} has {length} bytes; only {len(data) - start} are left"
            )
        found.append(data[start:offset])
    if len(found) != count:
        raise InvalidRequest(f"{where} holds {len(found)} elements; its shape has {count}")
    return found
