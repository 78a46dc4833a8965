"""Tensors for property tests: every datatype, and shapes of every kind."""

from __future__ import annotations

import math
import struct
from typing import Any

from hypothesis import strategies as st

from marway_http.tensors.datatypes import DATATYPES, Datatype
from marway_http.tensors.tensor import Tensor

__all__ = ["bits", "tensors"]


def values_for(datatype: Datatype) -> st.SearchStrategy[Any]:
    """Values that are exactly the datatype's."""
    if datatype.kind is bool:
        return st.booleans()
    if datatype.kind is int:
        return st.integers(int(datatype.low), int(datatype.high))
    if datatype.kind is bytes:
        return st.binary(max_size=12) | st.text(max_size=8).map(lambda text: text.encode())
    if datatype.name == "BF16":
        return (
            st.integers(0, 0xFFFF)
            .map(lambda bits: struct.unpack("<f", struct.pack("<I", bits << 16))[0])
            .filter(math.isfinite)
        )
    width = {"FP16": 16, "FP32": 32, "FP64": 64}[datatype.name]
    return st.floats(width=width, allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(sorted(DATATYPES.values(), key=lambda each: each.name)))
    # JSON has no lists within a list of none, so only the last dimension may be 0.
    within = draw(st.sampled_from([(), (0,), (1,), (3,), (2, 0), (1, 1), (2, 3)]))
    shape = (draw(st.integers(1, 4)), *within)
    count = math.prod(shape)
    values = draw(st.lists(values_for(datatype), min_size=count, max_size=count))
    return Tensor("x", datatype, shape, values)


def bits(tensor: Tensor) -> bytes:
    return tensor.datatype.pack(tensor.values)
