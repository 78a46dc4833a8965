"""Image classification: one greyscale image a row in, one label with its score out.

The file is standalone: a packed archive holds it without the rest of its package.
"""

import base64
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
from PIL import Image
from ts.context import Context
from ts.utils.util import PredictionException

logger = logging.getLogger(__name__)

KEYS = ("image", "data", "instances", "inputs", "b64")
PNG = b"\x89PNG"
MAGIC = (PNG + b"\r\n\x1a\n", b"\xff\xd8\xff")
MAX_NESTING = 8
NONFINITE = "x-marway-nonfinite"
MAX_PIXELS = 4096 * 4096
TOP = 3


class ImageClassifier:
    """Classifies greyscale images with an eager-mode model, N rows in one forward pass.

    The archive carries:

    - a model file with one ``nn.Module`` class that is built without arguments, with the attributes ``input_size``
      (height, width) and ``max_value`` (brightest pixel; the darkest is 0), whose ``forward`` takes float32 pixels of
      shape (number of images, height, width) and gives logits of shape (number of images, number of labels);
    - a serialized file with its ``state_dict``;
    - ``labels.json``: a list of the labels, in the order of the logits.

    A row that is not such an image gets status 400 and ``{"error": "…"}`` as its own answer; its neighbours are not
    touched.
    """

    def __init__(self) -> None:
        self.initialized = False
        self.device = torch.device("cpu")

    def initialize(self, context: Context) -> None:
        """Load the model and prove that it fits its labels.

        Raises:
            RuntimeError: the archive is incomplete, or the labels do not fit (the one kind that a worker reports
                instead of dying of it).
        """
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # parallelism comes from workers; threads of one would only fight for the cores
        properties = context.system_properties
        if torch.cuda.is_available() and properties.get("gpu_id") is not None:
            self.device = torch.device(f"cuda:{properties['gpu_id']}")
        directory = Path(properties["model_dir"])
        self.labels = _load_labels(directory)
        self.model = _load_model(directory, context.manifest["model"], self.device)
        self.height, self.width = (int(side) for side in self.model.input_size)
        self.max_value = float(self.model.max_value)
        width = self._probabilities([np.zeros((self.height, self.width), np.float32)]).shape[-1]
        if width != len(self.labels):
            raise RuntimeError(f"labels.json has {len(self.labels)} labels, the model gives {width} scores")
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[dict[str, Any]]:
        """Answer N rows with N dicts, in order.

        A row is a dict; its image is under ``data`` or ``body``, else under a key of ``KEYS``, else its only value. An
        image is a list of rows of pixels or one flat list of them (0 to ``max_value``), the same as JSON, or the bytes
        of a PNG or JPEG picture, light ink on a dark ground, of any size (in JSON as base64).

        Returns:
            ``{"label": str, "score": float, "scores": {label: float}}`` a row, scores from 0 to 1 with the best three
            first; ``{"error": str}`` with status 400 for a row that holds no image, with status 500 for one whose
            scores are no numbers (NaN).
        """
        answers: list[dict[str, Any]] = [{} for _ in data]
        images: dict[int, npt.NDArray[np.float32]] = {}
        for index, row in enumerate(data):
            try:
                images[index] = self._pixels(row)
            except PredictionException as error:  # noqa: PERF203 - a row fails alone
                answers[index] = {"error": error.message}
                context.set_response_status(code=error.error_code, phrase="Bad Request", idx=index)
        if images:
            best = self._probabilities(list(images.values())).topk(min(TOP, len(self.labels)))
            for index, scores, places in zip(images, best.values.tolist(), best.indices.tolist(), strict=True):
                if not all(map(math.isfinite, scores)):
                    answers[index] = {"error": "the model's scores are not finite"}
                    context.set_response_status(code=500, phrase="Internal Server Error", idx=index)
                    _report_nonfinite(context, index)
                    continue
                # Four digits: what differs between batch sizes is the order of float sums, seven digits down.
                named = {self.labels[place]: round(score, 4) for place, score in zip(places, scores, strict=True)}
                label, score = next(iter(named.items()))
                answers[index] = {"label": label, "score": score, "scores": named}
        if context.request_processor:  # absent where a tool calls the handler with no request around it
            for index in range(len(data)):
                context.set_response_content_type(index, "application/json")
        return answers

    @torch.inference_mode()
    def _probabilities(self, images: list[npt.NDArray[np.float32]]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack(images)).to(self.device)
        return torch.softmax(self.model(pixels).float(), dim=-1).cpu()

    def _pixels(self, row: dict[str, Any]) -> npt.NDArray[np.float32]:
        """Find the one image of a row: float32 of shape (height, width), 0 to ``max_value``.

        Raises:
            PredictionException: 400, there is none that fits; the message says what is accepted.
        """
        try:
            value = _parse(_row_value(row))
            for _ in range(MAX_NESTING):
                if isinstance(value, bytes):
                    return self._picture(value)
                if isinstance(value, dict):
                    value = _member(value)
                elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict | str):
                    value = value[0]
                elif isinstance(value, str):
                    value = _base64(value)
                else:
                    return self._array(value)
            raise ValueError("the JSON is nested too deeply")
        except ValueError as error:
            shape = f"{self.height}x{self.width}"
            accepted = (
                f"send {shape} pixels from 0 to {self.max_value:g} as a list (nested or flat, bare or under "
                f'"image", "data" or "instances"), or a PNG or JPEG picture'
            )
            raise PredictionException(f"{error}; {accepted}", 400) from None

    def _array(self, value: object) -> npt.NDArray[np.float32]:
        try:
            raw = np.asarray(value)
        except ValueError:
            raise ValueError("the lists of pixels are not all of one length") from None
        if raw.dtype.kind not in "iuf":
            raise ValueError("a pixel is not a number")
        flat = self.height * self.width
        leading, trailing = raw.shape[:-2], raw.shape[-2:]
        nested = trailing == (self.height, self.width) and all(side == 1 for side in leading)
        if not nested and raw.shape not in ((flat,), (1, flat)):
            raise ValueError(f"the pixels have the shape {'x'.join(map(str, raw.shape)) or 'of one number'}")
        # Compared so that NaN fails too, and before float32 can overflow.
        if not bool(np.all((raw >= 0) & (raw <= self.max_value))):
            raise ValueError("a pixel is out of range")
        return raw.reshape(self.height, self.width).astype(np.float32)

    def _picture(self, content: bytes) -> npt.NDArray[np.float32]:
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ValueError(f"the picture has more than {MAX_PIXELS} pixels")
                if picture.has_transparency_data:
                    ground = Image.new("RGBA", picture.size, "black")
                    grey = Image.alpha_composite(ground, picture.convert("RGBA")).convert("L")
                else:
                    grey = picture.convert("L")
        except (MemoryError, ValueError):
            raise
        except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over
            raise ValueError(f"the picture cannot be decoded ({type(error).__name__})") from None
        # Box: the mean of the pixels under each new one, as the digits data set itself was reduced from its scans.
        small = grey.resize((self.width, self.height), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32) * np.float32(self.max_value / 255)


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


def _parse(value: Any) -> Any:
    """Turn what a request carries into picture bytes or a JSON value."""
    if isinstance(value, bytes | bytearray):
        content = bytes(value)
        if content.startswith(MAGIC):
            return content
        if content.startswith(PNG):
            raise ValueError(
                "the body is a PNG picture without its line ends, which `curl -d @FILE` takes out: send it with "
                "`--data-binary @FILE`"
            )
        try:
            value = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("the body is neither JSON nor a PNG or JPEG picture") from None
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("the body is empty")
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value  # base64, or nothing that can be read
    return value


def _member(value: dict[str, Any]) -> Any:
    key = next((key for key in KEYS if key in value), None)
    if key is None:
        raise ValueError("the JSON object has none of the keys " + ", ".join(KEYS))
    return value[key]


def _base64(value: str) -> bytes:
    text = value.partition(",")[2] if value.startswith("data:image/") else value
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        content = b""
    if not content.startswith(MAGIC):
        raise ValueError("the text is neither JSON nor the base64 of a PNG or JPEG picture")
    return content


def _load_labels(directory: Path) -> list[str]:
    try:
        labels = json.loads((directory / "labels.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RuntimeError(f"the archive needs a readable labels.json: {error}") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise RuntimeError("labels.json must be a JSON list of strings")
    if len(labels) != len(set(labels)) or not labels:
        raise RuntimeError("labels.json must name each label once")
    return labels


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
