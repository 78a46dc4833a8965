"""Reads a tensor that `torch.save` wrote, without torch: only to compare an answer with the golden one.

The format is a zip whose members are stored as they are: `…/data.pkl` is a pickle that says how the tensor lies in
memory, `…/data/0` is that memory, `…/byteorder` how its numbers are written (torch/serialization.py). The pickle may be
anybody's, so its reader knows the few names that a plain tensor needs and refuses every other.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

__all__ = ["decode_tensor"]

_ELEMENTS_MAX: Final = 4 * 1024 * 1024
_PIECE_ELEMENTS: Final = 64 * 1024
_PICKLE_BYTES_MAX: Final = 64 * 1024

# dtype by the name of its storage class: what it is called, and how struct writes it.
_STORAGES: Final = {
    "BFloat16Storage": ("bfloat16", "H"),
    "BoolStorage": ("bool", "?"),
    "ByteStorage": ("uint8", "B"),
    "CharStorage": ("int8", "b"),
    "DoubleStorage": ("float64", "d"),
    "FloatStorage": ("float32", "f"),
    "HalfStorage": ("float16", "e"),
    "IntStorage": ("int32", "i"),
    "LongStorage": ("int64", "q"),
    "ShortStorage": ("int16", "h"),
}


class _Name(str):
    """A storage class, by its name."""

    __slots__ = ()


class _Storage(NamedTuple):
    """Memory that a tensor lies in: which numbers, and under which name in the archive."""

    dtype: str
    code: str
    key: str


class _Tensor(NamedTuple):
    """A tensor as its pickle describes it; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def decode_tensor(data: bytes) -> dict[str, Any]:
    """Return a saved tensor as golden answers hold it: `{dtype, shape, values}`, with nested lists for values.

    Raises:
        ValueError: It is none, of a kind that is not compared (sparse, quantised, complex), or too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _decode(archive)
    except (zipfile.BadZipFile, KeyError, struct.error, pickle.UnpicklingError, EOFError, OverflowError) as exc:
        raise ValueError(f"not a saved tensor: {exc}") from exc
    except (AttributeError, IndexError, TypeError, NotImplementedError, RuntimeError) as exc:
        # What a pickle or a zip that was made to mislead runs its reader into.
        raise ValueError(f"not a saved tensor: {type(exc).__name__}") from exc


def _decode(archive: zipfile.ZipFile) -> dict[str, Any]:
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise ValueError("not a saved tensor: its members are compressed")
    described = members["data.pkl"]
    if described.file_size > _PICKLE_BYTES_MAX:
        raise ValueError("it is more than a tensor")
    tensor = _Unpickler(io.BytesIO(archive.read(described))).load()
    if not isinstance(tensor, _Tensor):
        raise ValueError("it is no plain tensor")
    order = archive.read(members["byteorder"]) if "byteorder" in members else b"little"
    values = _values(tensor, archive.read(members[f"data/{tensor.storage.key}"]), ">" if order == b"big" else "<")
    return {"dtype": tensor.storage.dtype, "shape": list(tensor.shape), "values": values}


def _values(tensor: _Tensor, memory: bytes, order: str) -> Any:
    count = math.prod(tensor.shape)
    # A stride of 0 repeats an element for nothing, so the shape is checked and not only the memory.
    if count > _ELEMENTS_MAX or len(tensor.shape) > 64 or sum(tensor.shape) > _ELEMENTS_MAX:
        raise ValueError(f"it has more than {_ELEMENTS_MAX} elements")
    size = struct.calcsize(order + tensor.storage.code)
    flat: list[Any] = []
    # Piece by piece, for one call that unpacks all would let no other thread have its turn meanwhile.
    for start in range(0, len(memory), _PIECE_ELEMENTS * size):
        piece = memory[start : start + _PIECE_ELEMENTS * size]
        numbers = len(piece) // size
        values: Sequence[Any] = struct.unpack_from(f"{order}{numbers}{tensor.storage.code}", piece)
        if tensor.storage.dtype == "bfloat16":  # the upper half of a float32
            values = struct.unpack(f"{numbers}f", struct.pack(f"{numbers}I", *(each << 16 for each in values)))
        flat += values

    def nested(axis: int, at: int) -> Any:
        if axis == len(tensor.shape):
            return flat[at]
        stride = tensor.strides[axis]
        return [nested(axis + 1, at + index * stride) for index in range(tensor.shape[axis])]

    return nested(0, tensor.offset)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _Name(name)
        if (module, name) not in _FUNCTIONS:
            raise pickle.UnpicklingError(f"{module}.{name} is not compared")
        return _FUNCTIONS[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key = pid[:3]
        if kind != "storage" or not isinstance(storage, _Name) or not isinstance(key, str):
            raise pickle.UnpicklingError("memory of an unknown kind")
        return _Storage(*_STORAGES[storage], key)


def _rebuild(storage: object, offset: int, shape: Sequence[int], strides: Sequence[int], *rest: Any) -> _Tensor:
    """Stand in for `torch._utils._rebuild_tensor_v2`; a fourth further argument marks a lazily changed tensor."""
    numbers = [offset, *shape, *strides]
    if not isinstance(storage, _Storage) or not all(type(each) is int and each >= 0 for each in numbers):
        raise pickle.UnpicklingError("a tensor with no shape")
    if len(shape) != len(strides) or (len(rest) > 2 and rest[2]):
        raise pickle.UnpicklingError("a tensor that is a view of another kind")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_FUNCTIONS: Final[dict[tuple[str, str], Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,  # compared as the tensor that it is
    ("collections", "OrderedDict"): OrderedDict,
}
