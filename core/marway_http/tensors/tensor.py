"""One tensor, whole in memory, and its form in JSON.

What reads a request raises `InvalidRequest`, which says what is wrong and where.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from marway.errors import InvalidRequest, clip
from marway_http.tensors.datatypes import Datatype, Value

__all__ = ["BASE64", "Tensor", "common_shape", "flat_values", "json_object", "leaves_of", "nested", "shape_of"]

BASE64: Final = "base64"
"""As `content_type` among a BYTES tensor's parameters: its strings are the base64 of its elements."""
_DIMENSIONS_MAX: Final = 16
_ELEMENTS_MAX: Final = 32 * 1024 * 1024
"""Handlers are given JSON, in which each has two bytes at least: 64 MiB, what a gateway takes by default."""
_EMPTY_LISTS_MAX: Final = 64 * 1024
"""Lists within lists that a shape may ask for beyond two for each element: nothing that was sent pays for those."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor.

    Attributes:
        name: Unique among the inputs, or the outputs, of a request.
        datatype: What its values are.
        shape: Its dimensions; the first is the number of rows.
        values: All of them, row-major.
        content_type: The MIME type of its BYTES elements, where their sender said it.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    values: Sequence[Value] = field(repr=False)
    content_type: str | None = None

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def row_size(self) -> int:
        """Elements of a row."""
        return math.prod(self.shape[1:])

    def row(self, index: int) -> Sequence[Value]:
        """Return the elements of one row, row-major."""
        return self.values[index * self.row_size : (index + 1) * self.row_size]


def json_object(text: bytes, *, nonfinite: bool = False) -> dict[str, Any]:
    """Return the JSON object that ``text`` is.

    Args:
        text: All of it.
        nonfinite: Whether `NaN` and `Infinity` are taken, which JSON has not.
    """
    try:
        document = json.loads(text, parse_constant=None if nonfinite else _no_constant)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(f"the body is no JSON: {clip(str(exc), 200)}") from exc
    if not isinstance(document, dict):
        raise InvalidRequest("the body is JSON, but no object")
    return document


def shape_of(raw: object, *, where: str) -> tuple[int, ...]:
    """Return a request's shape, which has at least the dimension of rows."""
    if not isinstance(raw, Sequence) or not all(type(side) is int and side >= 0 for side in raw):
        raise InvalidRequest(f"{where} has no shape: give a list of whole numbers, 0 or more")
    shape = tuple(raw)
    if not 1 <= len(shape) <= _DIMENSIONS_MAX:
        raise InvalidRequest(
            f"{where} has {len(shape)} dimensions: give 1 to {_DIMENSIONS_MAX}, the first being the number of rows"
        )
    # A dimension of 0 leaves no elements, and says nothing of how many empty lists the others make.
    if math.prod(side or 1 for side in shape) > _ELEMENTS_MAX:
        raise InvalidRequest(
            f"{where} has the shape {list(shape)}: its dimensions give more than {_ELEMENTS_MAX} elements"
        )
    elements = math.prod(shape)
    lists = sum(math.prod(shape[:depth]) for depth in range(1, len(shape)))
    if lists > _EMPTY_LISTS_MAX + 2 * elements:
        raise InvalidRequest(
            f"{where} has the shape {list(shape)}: that is {lists} lists for {elements} elements; leave out dimensions "
            "of 1, and send no large ones beside a 0"
        )
    return shape


def flat_values(
    data: object, datatype: Datatype, shape: tuple[int, ...], parameters: Mapping[str, Any], *, where: str
) -> list[Value]:
    """Return the values of a tensor that came as JSON, nested as its shape says or flat."""
    if not isinstance(data, list):
        raise InvalidRequest(f"{where} has no list under data")
    count = math.prod(shape)
    raw = data
    if data and isinstance(data[0], list):
        raw = _unnested(data, shape, where=where)
    elif len(data) != count:
        raise InvalidRequest(f"{where} has {len(data)} elements; its shape {list(shape)} has {count}")
    if (index := datatype.refused(raw)) is not None:
        shown = clip(repr(raw[index]), 60)
        raise InvalidRequest(f"{where} is {datatype.name}; its element {index}, {shown}, is none")
    if datatype.kind is bytes and parameters.get("content_type") == BASE64:
        return [_decoded(value, index, where) for index, value in enumerate(raw)]
    try:
        return [datatype.converted(value) for value in raw]
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        raise InvalidRequest(f"{where} has an element that is no Unicode text") from None


def nested(values: Sequence[Any], shape: Sequence[int]) -> Any:
    """Return row-major ``values`` as lists within lists; with no dimension, the one value."""
    if not shape:
        return values[0]
    if len(shape) == 1:
        return list(values)
    size = math.prod(shape[1:])
    return [nested(values[index * size : (index + 1) * size], shape[1:]) for index in range(shape[0])]


def common_shape(values: Sequence[Any]) -> tuple[int, ...] | None:
    """Return the shape of lists within lists whose lengths are the same everywhere, else None."""
    shape = [len(values)]
    level: Sequence[Any] = values
    while any(isinstance(value, list) for value in level):
        if not all(isinstance(value, list) and len(value) == len(level[0]) for value in level):
            return None
        shape.append(len(level[0]))
        level = [item for value in level for item in value]
    return tuple(shape)


def leaves_of(values: Sequence[Any], depth: int) -> Iterator[Any]:
    """Yield what lies in so many levels of lists, row-major."""
    if depth == 1:
        yield from values
        return
    for value in values:
        yield from leaves_of(value, depth - 1)


def _unnested(data: list[Any], shape: tuple[int, ...], *, where: str) -> list[Any]:
    level = data
    for depth, side in enumerate(shape):
        expected = math.prod(shape[: depth + 1])
        if len(level) != expected:
            raise InvalidRequest(f"{where} does not have the shape {list(shape)}: its dimension {depth} is not {side}")
        if depth == len(shape) - 1:
            break
        within = shape[depth + 1]
        if not all(isinstance(each, list) and len(each) == within for each in level):
            raise InvalidRequest(
                f"{where} does not have the shape {list(shape)}: its dimension {depth + 1} is not {within} everywhere"
            )
        level = [value for each in level for value in each]
    return level


def _decoded(value: Any, index: int, where: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise InvalidRequest(f"{where} says base64; its element {index} is none") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")
