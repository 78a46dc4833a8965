"""What a handler returned, as JSON: one rule for workers, for golden answers and for tests of handlers.

Beside what JSON has: numpy's and torch's numbers and arrays as numbers and lists, dates and times in ISO 8601,
durations in seconds, sets as lists in order, bytes as text, or as `{"b64": "…"}` when they are no UTF-8, UUIDs as text.
Standard library only: workers run it, and the process that runs a handler to pack it. numpy and torch are looked at
only where the handler has imported them.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import sys
import uuid
from typing import Any, Final, Literal

__all__ = ["Nonfinite", "answer_json", "as_tensor"]

Nonfinite = Literal["error", "null", "allow"]
"""What becomes of NaN and infinities, which JSON has not (RFC 8259 §6): the answer is refused, they become null, or
they are written as `NaN` and `Infinity`, as TensorFlow Serving does."""

_SHOWN: Final = 200
_SAVED: Final = frozenset({"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"})
"""numpy's arrays that are passed on as tensors are."""


def answer_json(value: object, *, nonfinite: Nonfinite) -> bytes:
    """Return ``value`` as JSON, indented as TorchServe does it.

    Raises:
        ValueError: It cannot be written; the message says why, and where.
    """

    def dumps(document: object) -> bytes:
        return json.dumps(document, indent=2, default=_default, allow_nan=nonfinite == "allow").encode()

    try:
        try:
            return dumps(value)
        except (TypeError, ValueError) as exc:
            failure = exc
        # Rare, and so looked at only now: a number that is not finite, a key of numpy's, or what is no JSON at all.
        return dumps(_plain(value, "", nonfinite, set()))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except TypeError:
        raise ValueError(str(failure)[:_SHOWN]) from failure


def as_tensor(value: object) -> Any:
    """Return a torch tensor, or the one that a numpy array of numbers stands for; None for anything else."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return None
    if isinstance(value, torch.Tensor):
        return value
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray) or value.dtype.name not in _SAVED:
        return None
    array: Any = value
    # A copy in this machine's byte order: torch takes neither another one nor negative strides.
    return torch.from_numpy(numpy.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True))


def _default(value: object) -> Any:
    """Return what stands for a value that `json` does not know."""
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, set | frozenset):
        return _sorted(value)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(data).decode()}
    if isinstance(value, uuid.UUID):
        return str(value)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray):
        array: Any = value
        if array.dtype.kind in "mM":  # of nanoseconds, which datetime has not
            return array.astype(str).tolist()
        if array.dtype.kind not in "cV":
            return array.tolist()
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        tensor: Any = value
        if not tensor.is_complex():
            return tensor.detach().tolist()
    raise TypeError(f"{type(value).__name__} is none of JSON's types")


def _sorted(values: set[Any] | frozenset[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:  # of several kinds
        return sorted(values, key=lambda each: (type(each).__name__, repr(each)))


def _plain(value: Any, path: str, nonfinite: Nonfinite, around: set[int]) -> Any:
    """Return a part of an answer, at ``path``, of what JSON has; ``around`` holds the ids of what it lies in."""
    if isinstance(value, float):
        if math.isfinite(value) or nonfinite == "allow":
            return value
        if nonfinite == "null":
            return None
        where = f"it holds {value} at {path[:_SHOWN]}" if path else f"it is {value}"
        raise ValueError(f"{where}, a number that JSON has not")
    if value is None or isinstance(value, str | int):
        return value
    if id(value) in around:
        raise ValueError("it holds itself")
    around.add(id(value))
    try:
        if isinstance(value, dict):
            return {
                _key(key): _plain(each, f"{path}.{key}" if path else str(key), nonfinite, around)
                for key, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [_plain(each, f"{path}[{index}]", nonfinite, around) for index, each in enumerate(value)]
        return _plain(_default(value), path, nonfinite, around)
    finally:
        around.discard(id(value))


def _key(key: Any) -> Any:
    numpy: Any = sys.modules.get("numpy")
    return key.item() if numpy is not None and isinstance(key, numpy.generic) else key
