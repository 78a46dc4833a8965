"""Columns as a lookup gives them: values that JSON has, in the few types of Arrow that are read in place."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from marway.errors import InvalidInput
from marway.graphs.tables import Column

__all__ = ["plain_column", "plain_key"]

_DATATYPES: Final = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "float": "FP32", "double": "FP64",
    "large_string": "BYTES",
}  # fmt: skip
_WANTED: Final = "numbers, texts, true and false, dates and times, and lists of the first three"


def plain_key(name: str, column: Any) -> tuple[Any, Column]:
    """Return a key as whole numbers of 64 bits or as text, and what it is.

    Raises:
        InvalidInput: It is neither, has an empty place, or numbers that are too large.
    """
    column = _decoded(column)
    if column.null_count:
        raise InvalidInput(f"the key {name!r} is empty in {column.null_count} rows: each row needs one")
    if pa.types.is_integer(column.type):
        try:
            return column.cast(pa.int64()), Column(name=name, datatype="INT64")
        except pa.ArrowInvalid as exc:
            raise InvalidInput(f"the key {name!r} has numbers of more than 63 bits: make it text") from exc
    if pa.types.is_large_string(column.type):
        return column, Column(name=name, datatype="BYTES")
    raise InvalidInput(f"the key {name!r} is of type {column.type}: a key is whole numbers or text")


def plain_column(name: str, column: Any) -> tuple[Any, Column]:
    """Return a column's values as a lookup gives them, and what they are; what is no number (NaN) is null.

    Raises:
        InvalidInput: JSON has no such values, or an infinite one.
    """
    column = _decoded(column)
    kind = column.type
    if pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if kind.value_type not in _ITEMS:
            raise InvalidInput(f"column {name!r} is a list of {kind.value_type}: columns are {_WANTED}")
        for chunk in column.chunks:
            values = chunk.flatten()
            if values.null_count:
                raise InvalidInput(f"column {name!r} has lists with an empty place in them")
            if pa.types.is_floating(values.type) and not pc.all(pc.is_finite(values), min_count=0).as_py():
                raise InvalidInput(f"column {name!r} has lists with a number in them that is not finite")
        return column, Column(name=name, datatype=_datatype(kind.value_type), is_list=True)
    if pa.types.is_floating(kind):
        if pc.any(pc.is_inf(column), min_count=0).as_py():
            raise InvalidInput(f"column {name!r} has a number that is infinite, which JSON has not")
        if pc.any(pc.is_nan(column), min_count=0).as_py():
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    elif kind not in _ITEMS:
        raise InvalidInput(f"column {name!r} is of type {kind}: columns are {_WANTED}")
    return column, Column(name=name, datatype=_datatype(kind))


_ITEMS: Final = (
    pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
    pa.float32(), pa.float64(), pa.large_string(),
)  # fmt: skip


def _datatype(kind: Any) -> Any:
    return _DATATYPES[str(kind)]


def _decoded(column: Any) -> Any:
    """Return a column in a type that is read in place, where there is one for what it holds."""
    kind = _target(column.type)
    return column if kind == column.type else column.cast(kind)


def _target(kind: Any) -> Any:
    types = pa.types
    if types.is_dictionary(kind):
        return _target(kind.value_type)
    if types.is_string(kind) or types.is_string_view(kind) or types.is_temporal(kind):
        return pa.large_string()
    if types.is_decimal(kind):
        return pa.float64()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_fixed_size_list(kind):
        return pa.list_(_target(kind.value_type), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.large_list(_target(kind.value_type))
    return kind
