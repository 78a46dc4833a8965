"""Embeddings: one text or one tensor a row in, one vector of length 1 out.

The file is standalone: a packed archive holds it without the rest of its package.
"""

import importlib.util
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

KEYS = ("text", "document", "data", "inputs", "instances")
DIGITS = 7
MAX_CHARACTERS = 20_000
MAX_NESTING = 8
NONFINITE = "x-marway-nonfinite"


class EmbeddingHandler:
    """Turns texts or tensors into vectors of length 1 with an eager-mode model, N rows in one forward pass.

    The archive carries:

    - a model file with one ``nn.Module`` class that is built without arguments and either has ``encode(texts)``, which
      gives a tuple of tensors for ``forward(*encoded)``, or the attribute ``input_shape`` (of one row), whose
      ``forward`` takes float32 numbers of shape (N, *input_shape). ``forward`` gives vectors of shape (N, width);
    - a serialized file with its ``state_dict``.

    A row that is no such input gets status 400 and ``{"error": "…"}`` as its own answer; its neighbours are not
    touched.
    """

    def __init__(self) -> None:
        self.initialized = False
        self.device = torch.device("cpu")

    def initialize(self, context: Context) -> None:
        """Load the model and prove that it gives one vector a row.

        Raises:
            RuntimeError: the archive is incomplete, or the model is no such model (the one kind that a worker reports
                instead of dying of it).
        """
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # parallelism comes from workers; threads of one would only fight for the cores
        properties = context.system_properties
        if torch.cuda.is_available() and properties.get("gpu_id") is not None:
            self.device = torch.device(f"cuda:{properties['gpu_id']}")
        self.model = _load_model(Path(properties["model_dir"]), context.manifest["model"], self.device)
        self.takes_text = hasattr(self.model, "encode")
        if not self.takes_text and not hasattr(self.model, "input_shape"):
            raise RuntimeError("the model has neither encode(texts) nor input_shape")
        self.shape = () if self.takes_text else tuple(int(side) for side in self.model.input_shape)
        self._vectors(["warm up"] * 2 if self.takes_text else [np.ones(self.shape, np.float32)] * 2)
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[dict[str, Any]]:
        """Answer N rows with N dicts, in order.

        A row is a dict; its input is under ``data`` or ``body``, else under a key of ``KEYS``, else its only value: a
        text or lists of numbers, the same as JSON, bare or under a key of ``KEYS``.

        Returns:
            ``{"embedding": [float, ...]}`` a row, a vector of Euclidean length 1; ``{"error": str}`` with status 400
            for a row that holds no input, with status 500 for one whose vector has no direction (all zeros or a number
            that is not finite).
        """
        answers: list[dict[str, Any]] = [{} for _ in data]
        inputs: dict[int, Any] = {}
        for index, row in enumerate(data):
            try:
                inputs[index] = self._input(row)
            except PredictionException as error:  # noqa: PERF203 - a row fails alone
                answers[index] = {"error": error.message}
                context.set_response_status(code=error.error_code, phrase="Bad Request", idx=index)
        if inputs:
            for index, vector in zip(inputs, self._vectors(list(inputs.values())).tolist(), strict=True):
                if all(map(math.isfinite, vector)) and any(vector):
                    # Seven digits are what float32 holds; the rest would only make answers longer.
                    answers[index] = {"embedding": [round(number, DIGITS) for number in vector]}
                else:
                    answers[index] = {"error": "the model's vector has no direction"}
                    context.set_response_status(code=500, phrase="Internal Server Error", idx=index)
                    if not all(map(math.isfinite, vector)):
                        _report_nonfinite(context, index)
        if context.request_processor:  # absent where a tool calls the handler with no request around it
            for index in range(len(data)):
                context.set_response_content_type(index, "application/json")
        return answers

    @torch.inference_mode()
    def _vectors(self, inputs: list[Any]) -> torch.Tensor:
        if self.takes_text:
            encoded = [tensor.to(self.device) for tensor in self.model.encode(inputs)]
        else:
            encoded = [torch.from_numpy(np.stack(inputs)).to(self.device)]
        vectors = self.model(*encoded)
        if not isinstance(vectors, torch.Tensor) or vectors.dim() != 2 or vectors.shape[0] != len(inputs):
            got = tuple(vectors.shape) if isinstance(vectors, torch.Tensor) else type(vectors).__name__
            raise RuntimeError(f"for {len(inputs)} rows the model gives {got}, not one vector a row")
        return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()

    def _input(self, row: dict[str, Any]) -> Any:
        """Find the one text or tensor of a row.

        Raises:
            PredictionException: 400, there is none that fits; the message says what is accepted.
        """
        try:
            value = _parse(_row_value(row), as_text=self.takes_text)
            for _ in range(MAX_NESTING):
                if isinstance(value, dict):
                    value = _member(value)
                elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict | str):
                    value = value[0]
                else:
                    return _text(value) if self.takes_text else self._array(value)
            raise ValueError("the JSON is nested too deeply")
        except ValueError as error:
            what = "one text" if self.takes_text else f"{'x'.join(map(str, self.shape))} numbers as lists"
            keys = ", ".join(f'"{key}"' for key in KEYS)
            raise PredictionException(f"{error}; send {what}, bare or as JSON under one of {keys}", 400) from None

    def _array(self, value: Any) -> npt.NDArray[np.float32]:
        try:
            raw = np.asarray(value)
        except ValueError:
            raise ValueError("the lists of numbers are not all of one length") from None
        if raw.dtype.kind not in "biuf":
            raise ValueError("an item is not a number")
        flat = math.prod(self.shape)
        if raw.shape not in (self.shape, (1, *self.shape), (flat,), (1, flat)):
            raise ValueError(f"the tensor has the shape {'x'.join(map(str, raw.shape)) or 'of one number'}")
        # Compared so that NaN fails too, and before float32 can overflow.
        if not bool(np.all(np.abs(raw.astype(np.float64)) <= np.finfo(np.float32).max)):
            raise ValueError("an item is out of range")
        return raw.reshape(self.shape).astype(np.float32)


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


def _parse(value: Any, *, as_text: bool) -> Any:
    """Turn what a request carries into a JSON value, or a text where texts are taken."""
    if isinstance(value, bytes | bytearray):
        try:
            value = value.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("the body is not UTF-8 text") from None
    if not isinstance(value, str) or (as_text and value.lstrip()[:1] not in ("{", "[", '"')):
        return value
    if not value.strip():
        raise ValueError("the body is empty")
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        # A text may begin with a quotation mark or a bracket; one that begins with a brace is broken JSON.
        if not as_text or value.lstrip().startswith("{"):
            raise ValueError("the body is not valid JSON") from None
        return value


def _member(value: dict[str, Any]) -> Any:
    key = next((key for key in KEYS if key in value), None)
    if key is None:
        raise ValueError("the JSON object has none of the keys " + ", ".join(KEYS))
    return value[key]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a JSON value of type {type(value).__name__} is not a text")
    if not value.strip():
        raise ValueError("the text is empty")
    if len(value) > MAX_CHARACTERS:
        raise ValueError(f"the text has {len(value)} characters, the limit is {MAX_CHARACTERS}")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        raise ValueError("the text is not valid Unicode") from None
    return value


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
