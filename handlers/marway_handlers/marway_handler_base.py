"""What the handlers share: a model loaded from the archive, one answer a row, and a row that is bad failing alone.

`marway pack` puts this file into the archive of a handler that imports it, and nothing else of its package. It imports
nothing of Marway's: a packed handler runs in any TorchServe.
"""

import importlib.util
import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ts.context import Context

logger = logging.getLogger(__name__)

MAX_CHARACTERS = 20_000
MAX_NESTING = 8
NONFINITE = "x-marway-nonfinite"
TEXT_KEYS = ("text", "document", "data", "instances", "inputs")
TEXTS_ACCEPTED = (
    'send one text: plain, as a JSON string, or as {"text": "..."}, {"document": "..."}, {"data": "..."} '
    'or {"instances": ["..."]}'
)
TOP = 3


class Failure(NamedTuple):
    """Stands for the answer to a row that the model has none for (status 500): why, and whether for NaN or infinity."""

    error: str
    nonfinite: bool = True


class ModelHandler:
    """A handler of a model, of eager mode unless `load` says otherwise, to derive from.

    The archive carries a model file with one ``nn.Module`` class that is built without arguments, and a serialized file
    with its ``state_dict``. A row that holds no input gets status 400 and ``{"error": "…"}`` as its own answer; its
    neighbours are not touched.

    Attributes:
        keys: Names under which an input is looked for, in a form and in JSON.
        model: The model, on ``device``.
        directory: Where the archive's files are.
    """

    keys: tuple[str, ...] = ("data", "inputs", "instances")
    model: Any
    directory: Path

    def __init__(self) -> None:
        self.initialized = False
        self.device = torch.device("cpu")

    def initialize(self, context: Context) -> None:
        """Load the model and prove that it is one that this handler serves.

        Raises:
            RuntimeError: the archive is incomplete, or the model is no such model (the one kind that a worker reports
                instead of dying of it).
        """
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # parallelism comes from workers; threads of one would only fight for the cores
        properties = context.system_properties
        if torch.cuda.is_available() and properties.get("gpu_id") is not None:
            self.device = torch.device(f"cuda:{properties['gpu_id']}")
        self.directory = Path(properties["model_dir"])
        self.model = self.load(context.manifest["model"])
        self.prepare()
        self.initialized = True

    def load(self, manifest: dict[str, str]) -> Any:
        """Return the model that ``manifest`` names; a RuntimeError says why there is none."""
        return _load_model(self.directory, manifest, self.device)

    def prepare(self) -> None:
        """Read what the model says of itself, and try it out; a RuntimeError says why it is no model for this."""
        raise NotImplementedError

    def parse(self, value: Any) -> Any:
        """Return the input that a row's value holds; a ValueError says why there is none."""
        raise NotImplementedError

    def accepted(self) -> str:
        """Return what a row may hold, for the answer to one that does not."""
        raise NotImplementedError

    def answers(self, inputs: list[Any]) -> Iterable[Any]:
        """Return the answer to each input, or a `Failure`."""
        raise NotImplementedError

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[Any]:
        """Answer N rows with N answers, in order.

        A row is a dict; its input is under ``data`` or ``body``, else under one of ``keys``, else its only value. What
        it may be, and what is answered, the class says. ``{"error": str}`` comes with status 400 for a row that holds
        no input, with status 500 for one that the model has no answer for.
        """
        answers: list[Any] = [None] * len(data)
        inputs: dict[int, Any] = {}
        for index, row in enumerate(data):
            try:
                inputs[index] = self.parse(row_value(row, self.keys))
            except ValueError as error:  # noqa: PERF203 - a row fails alone
                answers[index] = self.refused(error, context, index)
        if inputs:
            for index, answer in zip(inputs, self.answers(list(inputs.values())), strict=True):
                answers[index] = answer
                if isinstance(answer, Failure):
                    answers[index] = {"error": answer.error}
                    context.set_response_status(code=500, phrase="Internal Server Error", idx=index)
                    if answer.nonfinite:
                        report_nonfinite(context, index)
        for index in range(len(data)):
            set_content_type(context, index, "application/json")
        return answers

    def refused(self, error: ValueError, context: Context, index: int) -> dict[str, str]:
        """Set the status of row ``index``, which holds no input, and return its answer."""
        context.set_response_status(code=400, phrase="Bad Request", idx=index)
        return {"error": f"{error}; {self.accepted()}"}


class Classifier(ModelHandler):
    """A handler of a model that gives logits, one for each label of the archive's ``labels.json``."""

    labels: list[str]

    def prepare(self) -> None:
        self.labels = _load_labels(self.directory)
        width = self.probabilities([self.sample()]).shape[-1]
        if width != len(self.labels):
            raise RuntimeError(f"labels.json has {len(self.labels)} labels, the model gives {width} scores")

    def sample(self) -> Any:
        """Return an input to try the model with."""
        return "warm up"

    def parse(self, value: Any) -> Any:
        return one_text(value, self.keys)

    def accepted(self) -> str:
        return TEXTS_ACCEPTED

    def answers(self, inputs: list[Any]) -> Iterator[Any]:
        return self.answers_of(self.probabilities(inputs))

    @torch.inference_mode()
    def probabilities(self, inputs: list[Any]) -> torch.Tensor:
        """Return a row of probabilities for each text; the model's ``encode(texts)`` gives what it takes."""
        encoded = [tensor.to(self.device) for tensor in self.model.encode(inputs)]
        return torch.softmax(self.model(*encoded).float(), dim=-1).cpu()

    def answers_of(self, probabilities: torch.Tensor) -> Iterator[Any]:
        """Yield the answer to each row of probabilities: its best labels with their scores, the best first."""
        best = probabilities.topk(min(TOP, len(self.labels)))
        for scores, places in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if not all(map(math.isfinite, scores)):
                yield Failure("the model's scores are not finite")
                continue
            # Four digits: what differs between batch sizes is the order of float sums, seven digits down.
            named = {self.labels[place]: round(score, 4) for place, score in zip(places, scores, strict=True)}
            label, score = next(iter(named.items()))
            yield {"label": label, "score": score, "scores": named}


def report_nonfinite(context: Context, index: int) -> None:
    """Have Marway count the answer to row ``index`` as one with a number that is not finite (docs/archives.md)."""
    if context.request_processor:  # absent where a tool calls the handler with no request around it
        context.set_response_header(index, NONFINITE, "1")


def set_content_type(context: Context, index: int, content_type: str) -> None:
    """Set the content type of the answer to row ``index``."""
    if context.request_processor:  # as above
        context.set_response_content_type(index, content_type)


def row_value(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """Return the one value of a row; a ValueError says why there is none."""
    for key in ("data", "body", *keys):
        if row.get(key) is not None:
            return row[key]
    if len(row) == 1:
        return next(iter(row.values()))
    raise ValueError("the request has no body" if not row else "none of the form fields is known")


def member(value: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """Return what a JSON object has under the first of ``keys``; a ValueError says that it has none."""
    for key in keys:
        if key in value:
            return value[key]
    raise ValueError("the JSON object has none of the keys " + ", ".join(keys))


def unwrapped(value: Any, keys: tuple[str, ...], inside: tuple[type, ...] = (dict,)) -> Any:
    """Return what JSON holds under ``keys``, one below another, also in lists of one item of the types ``inside``."""
    for _ in range(MAX_NESTING):
        if isinstance(value, dict):
            value = member(value, keys)
        elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], inside):
            value = value[0]
        else:
            return value
    raise ValueError("the JSON is nested too deeply")


def decoded(value: Any, otherwise: str) -> Any:
    """Return a body of bytes as text, anything else as it is; a ValueError says ``otherwise``."""
    if not isinstance(value, bytes | bytearray):
        return value
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(otherwise) from None


def one_text(value: Any, keys: tuple[str, ...], most: int = MAX_CHARACTERS) -> str:
    """Return the one text that a row's value holds: plain, or in JSON.

    Raises:
        ValueError: There is none or more than one, or it has more than ``most`` characters.
    """
    value = decoded(value, "the body is not UTF-8 text")
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            # A text may begin with a quotation mark or a bracket; one that begins with a brace is broken JSON.
            if value.lstrip().startswith("{"):
                raise ValueError("the body begins like a JSON object and is not valid JSON") from None
    for _ in range(MAX_NESTING):
        if isinstance(value, str):
            return _checked(value, most)
        if isinstance(value, dict):
            value = member(value, keys)
        elif isinstance(value, list):
            if len(value) != 1:
                raise ValueError(f"the list holds {len(value)} items, a request takes exactly one text")
            value = value[0]
        else:
            raise ValueError(f"a JSON value of type {type(value).__name__} is not a text")
    raise ValueError("the JSON is nested too deeply")


def _checked(text: str, most: int) -> str:
    if not text.strip():
        raise ValueError("the text is empty")
    if len(text) > most:
        raise ValueError(f"the text has {len(text)} characters, the limit is {most}")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        raise ValueError("the text is not valid Unicode") from None
    return text


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
