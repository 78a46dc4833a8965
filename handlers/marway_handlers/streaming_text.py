"""Streaming text classification: one text a row in, a line for each of its sentences out, as soon as it is classified.

The file is standalone: a packed archive holds it without the rest of its package. Publish the version with
``{"serving": {"streaming": true}}`` in its record.
"""

import importlib.util
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
from ts.context import Context
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException

logger = logging.getLogger(__name__)

ACCEPTED = (
    'send one text: plain, as a JSON string, or as {"text": "..."}, {"document": "..."}, {"data": "..."} '
    'or {"instances": ["..."]}'
)
KEYS = ("text", "document", "data", "instances", "inputs")
CONTENT_TYPE = "application/x-ndjson"
MAX_CHARACTERS = 200_000
MAX_NESTING = 8
NONFINITE = "x-marway-nonfinite"
SENTENCE = re.compile(r"[^.!?。！？\n]*[.!?。！？\n]+|[^.!?。！？\n]+")
TOP = 3


class StreamingTextClassifier:
    """Classifies the sentences of a text one after another, with an eager-mode model.

    The archive carries what ``text_classifier`` takes, so one model serves both:

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
        width = self._probabilities("warm up").shape[-1]
        if width != len(self.labels):
            raise RuntimeError(f"labels.json has {len(self.labels)} labels, the model gives {width} scores")
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[str | dict[str, Any]]:
        """Answer each row with lines of JSON: one a sentence, then one for the whole text.

        A row is a dict; its text is under ``data`` or ``body``, else under a key of ``KEYS``, else its only value. The
        lines of a sentence are sent as they are made when there is one row, as there is in a stream; the last is
        returned. Several rows get all their lines at once.

        Returns:
            ``{"sentence": str, "start": int, "end": int, "label": str, "score": float}`` a sentence, with its place in
            the text in characters, then ``{"sentences": int, "label": str, "score": float, "scores": {label: float}}``
            with the mean of their probabilities, the best three first; ``{"error": str}`` with status 400 for a row
            that holds no text. A sentence whose scores are no numbers (NaN) has ``error`` for its label and score, and
            so has its text.
        """
        answers: list[str | dict[str, Any]] = []
        for index, row in enumerate(data):
            content_type = CONTENT_TYPE
            try:
                text = _text(row)
            except PredictionException as error:
                context.set_response_status(code=error.error_code, phrase="Bad Request", idx=index)
                text, content_type = None, "application/json"
                answers.append({"error": error.message})
            if context.request_processor:  # absent where a tool calls the handler with no request around it
                context.set_response_content_type(index, content_type)
            if text is not None:
                answers.append(self._lines(text, context, index, send=len(data) == 1))
        return answers

    def _lines(self, text: str, context: Context, index: int, *, send: bool) -> str:
        """Classify the sentences of a text, row ``index``; return the lines that were not sent."""
        kept: list[str] = []
        error: dict[str, str] = {}
        total = torch.zeros(len(self.labels))
        sentences = [match for match in SENTENCE.finditer(text) if match.group().strip()]
        for match in sentences:
            sentence = match.group().strip()
            start = match.start() + match.group().index(sentence)
            probabilities = self._probabilities(sentence)
            place = {"start": start, "end": start + len(sentence)}
            if bool(torch.isfinite(probabilities).all()):
                total += probabilities
                (label, score), *_ = self._best(probabilities).items()
                line = _line({"sentence": sentence, **place, "label": label, "score": score})
            else:
                error = {"error": "the model's scores are not finite"}
                line = _line({"sentence": sentence, **place, **error})
                _report_nonfinite(context, index)
            if send:
                send_intermediate_predict_response([line], context.request_ids, "Intermediate", 200, context)
            else:
                kept.append(line)
        if error:
            return "".join([*kept, _line({"sentences": len(sentences), **error})])
        scores = self._best(total / len(sentences))
        label, score = next(iter(scores.items()))
        kept.append(_line({"sentences": len(sentences), "label": label, "score": score, "scores": scores}))
        return "".join(kept)

    @torch.inference_mode()
    def _probabilities(self, sentence: str) -> torch.Tensor:
        encoded = [tensor.to(self.device) for tensor in self.model.encode([sentence])]
        return torch.softmax(self.model(*encoded).float(), dim=-1)[0].cpu()

    def _best(self, probabilities: torch.Tensor) -> dict[str, float]:
        best = probabilities.topk(min(TOP, len(self.labels)))
        # Four digits: the rest differs between machines.
        return {
            self.labels[place]: round(score, 4)
            for place, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        }


def _report_nonfinite(context: Context, index: int) -> None:
    """Have Marway count the answer to row ``index`` as one with a number that is not finite (docs/archives.md)."""
    if context.request_processor:  # absent where a tool calls the handler with no request around it
        context.set_response_header(index, NONFINITE, "1")


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False) + "\n"


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
