"""Numbers in, numbers out: one tensor a row, through any eager-mode model.

The file is standalone: a packed archive holds it without the rest of its package.
"""

import importlib.util
import io
import json
import logging
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ts.context import Context
from ts.utils.util import PredictionException

logger = logging.getLogger(__name__)

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
KEYS = ("data", "inputs", "instances")
MAX_NESTING = 8
NPY = b"\x93NUMPY"
NONFINITE = "x-marway-nonfinite"


class TensorHandler:
    """Runs an eager-mode model over tensors, N rows in one forward pass.

    The archive carries:

    - a model file with one ``nn.Module`` class that is built without arguments, with the attributes ``input_shape``
      (of one row, without the batch) and, if it is not float32, ``input_dtype`` (one of ``DTYPES``), whose ``forward``
      takes a tensor of shape (N, *input_shape) and gives one of shape (N, ...);
    - a serialized file with its ``state_dict``.

    A row that is not such a tensor gets status 400 and ``{"error": "…"}`` as its own answer; its neighbours are not
    touched.
    """

    def __init__(self) -> None:
        self.initialized = False
        self.device = torch.device("cpu")

    def initialize(self, context: Context) -> None:
        """Load the model and prove that it takes what it says.

        Raises:
            RuntimeError: the archive is incomplete, or the model does not give one answer a row (the one kind that a
                worker reports instead of dying of it).
        """
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # parallelism comes from workers; threads of one would only fight for the cores
        properties = context.system_properties
        if torch.cuda.is_available() and properties.get("gpu_id") is not None:
            self.device = torch.device(f"cuda:{properties['gpu_id']}")
        self.model = _load_model(Path(properties["model_dir"]), context.manifest["model"], self.device)
        self.shape = tuple(int(side) for side in self.model.input_shape)
        dtype = getattr(self.model, "input_dtype", "float32")
        if dtype not in DTYPES:
            raise RuntimeError(f"the model's input_dtype {dtype!r} is none of {', '.join(DTYPES)}")
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._forward([np.zeros(self.shape, self.dtype)] * 2)
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[Any]:
        """Answer N rows with N answers, in order.

        A row is a dict; its tensor is under ``data`` or ``body``, else under a key of ``KEYS``, else its only value. A
        tensor is nested lists or one flat list of numbers, the same as JSON, bare or under a key of ``KEYS``; or raw
        little-endian values in C order; or the bytes of a `.npy` file.

        Returns:
            nested lists of numbers a row; ``{"error": str}`` with status 400 for a row that holds no tensor, with
            status 500 for one whose answer holds a number that JSON has not (NaN or an infinity).
        """
        answers: list[Any] = [None for _ in data]
        tensors: dict[int, npt.NDArray[Any]] = {}
        for index, row in enumerate(data):
            try:
                tensors[index] = self._tensor(row)
            except PredictionException as error:  # noqa: PERF203 - a row fails alone
                answers[index] = {"error": error.message}
                context.set_response_status(code=error.error_code, phrase="Bad Request", idx=index)
        if tensors:
            for index, output in zip(tensors, self._forward(list(tensors.values())), strict=True):
                answers[index] = output.tolist()
                if not bool(torch.isfinite(output).all()):
                    answers[index] = {"error": "the model's answer holds a number that is not finite"}
                    context.set_response_status(code=500, phrase="Internal Server Error", idx=index)
                    _report_nonfinite(context, index)
        if context.request_processor:  # absent where a tool calls the handler with no request around it
            for index in range(len(data)):
                context.set_response_content_type(index, "application/json")
        return answers

    @torch.inference_mode()
    def _forward(self, tensors: list[npt.NDArray[Any]]) -> torch.Tensor:
        output = self.model(torch.from_numpy(np.stack(tensors)).to(self.device))
        if not isinstance(output, torch.Tensor) or output.dim() < 1 or output.shape[0] != len(tensors):
            got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise RuntimeError(f"for {len(tensors)} rows the model gives {got}, not one answer a row")
        return output.float().cpu() if output.dtype == torch.bfloat16 else output.cpu()

    def _tensor(self, row: dict[str, Any]) -> npt.NDArray[Any]:
        """Find the one tensor of a row.

        Raises:
            PredictionException: 400, there is none that fits; the message says what is accepted.
        """
        try:
            return self._array(self._parse(_row_value(row)))
        except ValueError as error:
            accepted = (
                f"send one tensor of shape {_shown(self.shape)} and type {self.dtype.name}: lists of numbers (nested "
                f'or flat, bare or under "data", "inputs" or "instances"), raw little-endian bytes, or a .npy file'
            )
            raise PredictionException(f"{error}; {accepted}", 400) from None

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
        for _ in range(MAX_NESTING):
            if isinstance(value, dict):
                value = _member(value)
            elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
                value = value[0]
            else:
                break
        else:
            raise ValueError("the JSON is nested too deeply")
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


def _report_nonfinite(context: Context, index: int) -> None:
    """Have Marway count the answer to row ``index`` as one with a number that is not finite (docs/archives.md)."""
    if context.request_processor:  # absent where a tool calls the handler with no request around it
        context.set_response_header(index, NONFINITE, "1")


def _row_value(row: dict[str, Any]) -> Any:
    for key in ("data", "body", *KEYS):
        if row.get(key) is not None:
            return row[key]
    if len(row) == 1:
        return next(iter(row.values()))
    raise ValueError("the request has no body" if not row else "none of the form fields is known")


def _json(content: bytes) -> Any:
    """Parse JSON; None for what is none."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _member(value: dict[str, Any]) -> Any:
    key = next((key for key in KEYS if key in value), None)
    if key is None:
        raise ValueError("the JSON object has none of the keys " + ", ".join(KEYS))
    return value[key]


def _npy(content: bytes) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # its reader raises whatever a broken header makes it stumble over
        raise ValueError(f"the .npy file cannot be read ({type(error).__name__})") from None
    return array


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "of one number"


def _load_model(directory: Path, manifest: dict[str, str], device: torch.device) -> Any:
    missing = [key for key in ("modelFile", "serializedFile") if not manifest.get(key)]
    if missing:
        raise RuntimeError(f"the archive's manifest names no {' and no '.join(missing)}")
    path = directory / manifest["modelFile"]
    # By path: another module of the same name that is imported already must not be taken for this one.
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RuntimeError(f"the model file {path.name} is not in the archive")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    classes = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, torch.nn.Module) and item.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise RuntimeError(f"{path.name} must define exactly one nn.Module class, it defines {len(classes)}")
    model = classes[0]()
    weights = torch.load(directory / manifest["serializedFile"], weights_only=True, map_location=device)
    model.load_state_dict(weights)
    logger.info("loaded %s from %s", classes[0].__name__, manifest["serializedFile"])
    return model.to(device).eval()
