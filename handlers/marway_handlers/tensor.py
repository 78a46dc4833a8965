"""Numbers in, numbers out: one tensor a row, through any eager-mode model."""

import io
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import Failure, ModelHandler, unwrapped
else:  # in an archive, beside this file
    from marway_handler_base import Failure, ModelHandler, unwrapped

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
NPY = b"\x93NUMPY"


class TensorHandler(ModelHandler):
    """Runs an eager-mode model over tensors, N rows in one forward pass.

    The archive carries:

    - a model file with one ``nn.Module`` class that is built without arguments, with the attributes ``input_shape``
      (of one row, without the batch) and, if it is not float32, ``input_dtype`` (one of ``DTYPES``), whose ``forward``
      takes a tensor of shape (N, *input_shape) and gives one of shape (N, ...);
    - a serialized file with its ``state_dict``.

    A row holds nested lists or one flat list of the same as JSON, bare or under one of ``keys``; or raw
    little-endian values in C order; or the bytes of a `.npy` file. It is answered with nested lists of numbers; a row
    that is no such tensor with status 400 and ``{"error": "…"}`` as its own answer, one whose answer holds a number
    that JSON has not (NaN or an infinity) with status 500. Its neighbours are not touched.
    """

    def prepare(self) -> None:
        self.shape = tuple(int(side) for side in self.model.input_shape)
        dtype = getattr(self.model, "input_dtype", "float32")
        if dtype not in DTYPES:
            raise RuntimeError(f"the model's input_dtype {dtype!r} is none of {', '.join(DTYPES)}")
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._forward([np.zeros(self.shape, self.dtype)] * 2)

    def answers(self, inputs: list[npt.NDArray[Any]]) -> Iterator[Any]:
        for output in self._forward(inputs):
            finite = bool(torch.isfinite(output).all())
            yield output.tolist() if finite else Failure("the model's answer holds a number that is not finite")

    @torch.inference_mode()
    def _forward(self, tensors: list[npt.NDArray[Any]]) -> torch.Tensor:
        output = self.model(torch.from_numpy(np.stack(tensors)).to(self.device))
        if not isinstance(output, torch.Tensor) or output.dim() < 1 or output.shape[0] != len(tensors):
            got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise RuntimeError(f"for {len(tensors)} rows the model gives {got}, not one answer a row")
        return output.float().cpu() if output.dtype == torch.bfloat16 else output.cpu()

    def parse(self, value: Any) -> npt.NDArray[Any]:
        return self._array(self._parse(value))

    def accepted(self) -> str:
        return (
            f"send one tensor of shape {_shown(self.shape)} and type {self.dtype.name}: lists of numbers (nested "
            f'or flat, bare or under "data", "inputs" or "instances"), raw little-endian bytes, or a .npy file'
        )

    def _parse(self, value: Any) -> Any:
        """Turn what a request carries into an array or a JSON value."""
        if isinstance(value, str):
            value = value.encode(errors="replace")
        if not isinstance(value, bytes | bytearray):
            return value
        content = bytes(value)
        if content.startswith(NPY):
            return _npy(content)
        # Lists and objects first: as text they can have as many bytes as a tensor has. A bare number is no tensor.
        if content.lstrip()[:1] in (b"[", b"{", b"\xef"):
            found = _json(content)
            if found is not None:
                return found
        if len(content) == math.prod(self.shape) * self.dtype.itemsize:
            return np.frombuffer(content, self.dtype.newbyteorder("<"))
        if not content.strip():
            raise ValueError("the body is empty")
        raise ValueError(f"the body is neither JSON lists nor a tensor: it has {len(content)} bytes")

    def _array(self, value: Any) -> npt.NDArray[Any]:
        value = unwrapped(value, self.keys)
        try:
            raw = np.asarray(value)
        except ValueError:
            raise ValueError("the lists of numbers are not all of one length") from None
        if raw.dtype.kind not in "biuf":
            raise ValueError("an item is not a number")
        leading = raw.shape[: max(raw.ndim - len(self.shape), 0)]
        nested = raw.shape[len(leading) :] == self.shape and all(side == 1 for side in leading)
        flat = math.prod(self.shape)
        if not nested and raw.shape not in ((flat,), (1, flat)):
            raise ValueError(f"the tensor has the shape {_shown(raw.shape)}")
        # Compared before conversion, which would wrap or overflow in silence.
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            if raw.dtype.kind == "f" and not bool(np.all(raw == np.floor(raw))):
                raise ValueError("an item is no whole number")
            if not bool(np.all((raw >= limits.min) & (raw <= limits.max))):
                raise ValueError("an item is out of range")
        elif self.dtype.kind == "f" and not bool(np.all(np.abs(raw.astype(np.float64)) <= np.finfo(self.dtype).max)):
            raise ValueError("an item is out of range")
        elif self.dtype.kind == "b" and not bool(np.all((raw == 0) | (raw == 1))):
            raise ValueError("an item is neither 0 nor 1")
        return np.ascontiguousarray(raw.reshape(self.shape).astype(self.dtype))


def _json(content: bytes) -> Any:
    """Parse JSON; None for what is none."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _npy(content: bytes) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # its reader raises whatever a broken header makes it stumble over
        raise ValueError(f"the .npy file cannot be read ({type(error).__name__})") from None
    return array


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "of one number"
