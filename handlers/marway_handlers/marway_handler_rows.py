"""Rows of named tensors, for handlers of models that say themselves, or in `signature.json`, what they take.

`marway pack` puts this file into the archive of a handler that imports it, as it does `marway_handler_base.py`.
"""

import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import Failure, member
else:  # in an archive, beside this file
    from marway_handler_base import Failure, member

KEYS = ("data", "inputs", "instances")
NPY = b"\x93NUMPY"
TEXT = "BYTES"
DATATYPES = {
    "BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64", "INT8": "int8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    TEXT: "object",
}  # fmt: skip
"""The Open Inference Protocol's names of types, and numpy's."""


class Wanted(NamedTuple):
    """An input of the model: its name, its type (one of `DATATYPES`), and a row's shape, -1 for any length.

    With ``shape`` None any shape is taken.
    """

    name: str
    datatype: str = "FP32"
    shape: tuple[int, ...] | None = None

    def array(self, value: Any) -> npt.NDArray[Any]:
        """Return a row's value as an array; a ValueError says what is wrong with it."""
        dtype = np.dtype(DATATYPES[self.datatype])
        if isinstance(value, bytes | bytearray):
            value = self._of_bytes(bytes(value), dtype)
        try:
            raw = np.asarray(value, dtype=object if self.datatype == TEXT else None)
        except ValueError:
            raise ValueError(f"{self.name}: the lists are not all of one length") from None
        if self.datatype == TEXT:
            if not all(isinstance(each, str) for each in raw.ravel().tolist()):
                raise ValueError(f"{self.name}: an item is no text")
            return self._shaped(raw)
        if raw.dtype.kind not in "biuf":
            raise ValueError(f"{self.name}: an item is not a number")
        # Compared before conversion, which would wrap or overflow in silence; so that NaN fails too.
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if not bool(np.all((raw >= limits.min) & (raw <= limits.max))) or bool(np.any(raw != np.floor(raw))):
                raise ValueError(f"{self.name}: an item is no whole number from {limits.min} to {limits.max}")
        elif dtype.kind == "f" and not bool(np.all(np.abs(raw.astype(np.float64)) <= np.finfo(dtype).max)):
            raise ValueError(f"{self.name}: an item is out of range")
        elif dtype.kind == "b" and not bool(np.all((raw == 0) | (raw == 1))):
            raise ValueError(f"{self.name}: an item is neither 0 nor 1")
        return self._shaped(raw.astype(dtype))

    def shown(self) -> str:
        """Return what it is in words."""
        what = "texts" if self.datatype == TEXT else DATATYPES[self.datatype]
        shape = "of any shape" if self.shape is None else f"of shape {list(self.shape)}"
        return f"{self.name} ({what}, {shape})"

    def _of_bytes(self, content: bytes, dtype: np.dtype[Any]) -> Any:
        if content.startswith(NPY):
            try:
                return np.load(io.BytesIO(content), allow_pickle=False)
            except Exception as error:  # its reader raises whatever a broken header makes it stumble over
                raise ValueError(f"the .npy file cannot be read ({type(error).__name__})") from None
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = ""
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            if self.datatype == TEXT and text.strip():
                return text
        if self.shape and -1 not in self.shape and len(content) == math.prod(self.shape) * dtype.itemsize:
            return np.frombuffer(content, dtype.newbyteorder("<"))
        raise ValueError("the body is neither JSON nor a .npy file")

    def _shaped(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.shape is None:
            return np.ascontiguousarray(array)
        found = array.shape
        if len(found) == len(self.shape) + 1 and found[0] == 1:  # a row as a batch of one
            array, found = array[0], found[1:]
        if len(found) == len(self.shape) and all(
            wanted in (-1, side) for wanted, side in zip(self.shape, found, strict=True)
        ):
            return np.ascontiguousarray(array)
        if -1 not in self.shape and array.size == math.prod(self.shape):  # flat, or a scalar as a list of one
            return np.ascontiguousarray(array.reshape(self.shape))
        shown = "x".join(map(str, found)) or "of one number"
        raise ValueError(f"{self.name}: the tensor has the shape {shown}, wanted is {list(self.shape)}")


def wanted_of(directory: Path) -> list[Wanted]:
    """Return the inputs that an archive's `signature.json` names, none where it has none.

    Raises:
        RuntimeError: It is no signature.
    """
    file = directory / "signature.json"
    if not file.is_file():
        return []
    try:
        inputs = json.loads(file.read_text(encoding="utf-8"))["inputs"]
        found = [Wanted(each["name"], each["datatype"], tuple(each["shape"][1:])) for each in inputs]
        unknown = [each.datatype for each in found if each.datatype not in DATATYPES]
    except (KeyError, TypeError, ValueError) as error:
        raise RuntimeError(f"signature.json is no signature: {type(error).__name__}: {error}") from error
    if unknown:
        raise RuntimeError(f"signature.json: {unknown[0]!r} is none of {', '.join(DATATYPES)}")
    return found


def parsed(value: Any, wanted: Sequence[Wanted]) -> tuple[npt.NDArray[Any], ...]:
    """Return a row's tensors in the order in which the model takes them; a ValueError says what is wrong with one."""
    if isinstance(value, bytes | bytearray) and len(wanted) > 1:
        try:
            value = json.loads(bytes(value).decode("utf-8-sig"))
        except (ValueError, RecursionError):
            raise ValueError("the body is no JSON object") from None
    if len(wanted) == 1:
        (only,) = wanted
        if isinstance(value, bytes | bytearray) and value.lstrip()[:1] == b"{":
            try:
                value = json.loads(bytes(value).decode("utf-8-sig"))
            except (ValueError, RecursionError):
                raise ValueError("the body begins like a JSON object and is not valid JSON") from None
        while isinstance(value, dict):
            value = member(value, (only.name, *KEYS))
        return (only.array(value),)
    if isinstance(value, dict) and not all(each.name in value for each in wanted):
        value = member(value, KEYS)
    if not isinstance(value, dict):
        raise ValueError("the body is no JSON object with the model's inputs")
    missing = [each.name for each in wanted if each.name not in value]
    if missing:
        raise ValueError(f"the JSON object has no {missing[0]!r}")
    return tuple(each.array(value[each.name]) for each in wanted)


def groups(rows: Sequence[tuple[npt.NDArray[Any], ...]], *, single: bool) -> Iterator[list[int]]:
    """Yield the places of rows that go into one call together: those of the same shapes, or each alone."""
    if single:
        yield from ([place] for place in range(len(rows)))
        return
    together: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for place, row in enumerate(rows):
        together.setdefault(tuple(array.shape for array in row), []).append(place)
    yield from together.values()


def plain(value: Any) -> Any:
    """Return a row's output as JSON has it, or a `Failure` where a number of it is not finite."""
    array = np.asarray(value)
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        return Failure("the model's answer holds a number that is not finite")
    return array.tolist()
