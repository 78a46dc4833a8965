"""Text classification: one text a row in, one label with its score out.

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

import torch
from ts.context import Context
from ts.utils.util import PredictionException

logger = logging.getLogger(__name__)

ACCEPTED = (
    'send one text: plain, as a JSON string, or as {"text": "..."}, {"document": "..."}, {"data": "..."} '
    'or {"instances": ["..."]}'
)
KEYS = ("text", "document", "data", "instances", "inputs")
MAX_CHARACTERS = 20_000
MAX_NESTING = 8
NONFINITE = "x-marway-nonfinite"
TOP = 3


class TextClassifier:
    """Classifies texts with an eager-mode model, N rows in one forward pass.

    The archive carries:

    - a model file with one ``nn.Module`` class that is built without arguments, whose ``encode(texts)`` gives a tuple
      of tensors and whose ``forward(*encoded)`` gives logits of shape (number of texts, number of labels);
    - a serialized file with its ``state_dict``;
    - ``labels.json``: a list of the labels, in the order of the logits.

    A row that is not a text gets status 400 and ``{"error": "…"}`` as its own answer; its neighbours are not touched.
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
        width = self._probabilities(["warm up"]).shape[-1]
        if width != len(self.labels):
            raise RuntimeError(f"labels.json has {len(self.labels)} labels, the model gives {width} scores")
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[dict[str, Any]]:
        """Answer N rows with N dicts, in order.

        A row is a dict; its text is under ``data`` or ``body``, else under a key of ``KEYS``, else its only value.

        Returns:
            ``{"label": str, "score": float, "scores": {label: float}}`` a row, scores from 0 to 1 with the best three
            first; ``{"error": str}`` with status 400 for a row that holds no text, with status 500 for one whose
            scores are no numbers (NaN).
        """
        answers: list[dict[str, Any]] = [{} for _ in data]
        texts: dict[int, str] = {}
        for index, row in enumerate(data):
            try:
                texts[index] = _text(row)
            except PredictionException as error:  # noqa: PERF203 - a row fails alone
                answers[index] = {"error": error.message}
                context.set_response_status(code=error.error_code, phrase="Bad Request", idx=index)
        if texts:
            best = self._probabilities(list(texts.values())).topk(min(TOP, len(self.labels)))
            for index, scores, places in zip(texts, best.values.tolist(), best.indices.tolist(), strict=True):
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
    def _probabilities(self, texts: list[str]) -> torch.Tensor:
        encoded = [tensor.to(self.device) for tensor in self.model.encode(texts)]
        return torch.softmax(self.model(*encoded).float(), dim=-1).cpu()


def _text(row: dict[str, Any]) -> str:
    """Find the one text of a row.

    Raises:
        PredictionException: 400, there is none or more than one; the message says what is accepted.
    """
    value = _parse(_row_value(row))
    for _ in range(MAX_NESTING):
        if isinstance(value, str):
            return _checked(value)
        if isinstance(value, dict):
            key = next((key for key in KEYS if key in value), None)
            if key is None:
                raise _refusal("the JSON object has none of the keys " + ", ".join(KEYS))
            value = value[key]
        elif isinstance(value, list):
            if len(value) != 1:
                raise _refusal(f"the list holds {len(value)} items, a request takes exactly one text")
            value = value[0]
        else:
            raise _refusal(f"a JSON value of type {type(value).__name__} is not a text")
    raise _refusal("the JSON is nested too deeply")


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
    raise _refusal("the request has no body" if not row else "none of the form fields is known")


def _parse(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        try:
            value = value.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise _refusal("the body is not UTF-8 text") from None
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            # A text may begin with a quotation mark or a bracket; one that begins with a brace is broken JSON.
            if value.lstrip().startswith("{"):
                raise _refusal("the body begins like a JSON object and is not valid JSON") from None
    return value


def _checked(text: str) -> str:
    if not text.strip():
        raise _refusal("the text is empty")
    if len(text) > MAX_CHARACTERS:
        raise _refusal(f"the text has {len(text)} characters, the limit is {MAX_CHARACTERS}")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        raise _refusal("the text is not valid Unicode") from None
    return text


def _refusal(reason: str) -> PredictionException:
    return PredictionException(f"{reason}; {ACCEPTED}", 400)


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
