"""Models to serve in tests, laid out as TorchServe unpacks an archive; the two examples are trained once a session."""

import importlib.util
import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from marway_archiver.testing import LoadedHandler, load_handler

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open while it is imported
    from ts.model_loader import ModelLoaderFactory

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HANDLERS = {"intent": "text_classifier", "digits": "image_classifier"}

TENSOR_MODEL = """\
import torch


class Net(torch.nn.Module):
    input_shape = (2, 3)

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 4)

    def forward(self, numbers):
        return self.layer(numbers.flatten(1)).reshape(-1, 2, 2)
"""

_trained: dict[str, "Trained"] = {}


@dataclass(frozen=True)
class Trained:
    """A trained example: its train.py as a module, what train() returned, and the unpacked archive."""

    name: str
    module: ModuleType
    result: Any
    directory: Path


@dataclass(frozen=True)
class Answers:
    """What one call gave, row by row."""

    bodies: list[Any]
    statuses: list[int]
    content_types: list[str | None]


@dataclass(frozen=True)
class Served:
    """A handler in our own test kit."""

    loaded: LoadedHandler

    @property
    def handler(self) -> Any:
        return self.loaded.instance

    def ask(self, *rows: dict[str, Any]) -> Answers:
        """Send rows in one call; an exception of the handler is raised here."""
        answers = self.loaded.ask(*rows)
        for answer in answers:
            if answer.exception is not None:
                raise answer.exception
        return Answers(
            bodies=[answer.json() for answer in answers],
            statuses=[answer.status for answer in answers],
            content_types=[answer.content_type for answer in answers],
        )


@dataclass(frozen=True)
class InTorchServe:
    """A handler that TorchServe's own loader loaded."""

    service: Any

    @property
    def handler(self) -> Any:
        return self.service._entry_point.__self__

    def ask(self, *rows: dict[str, Any]) -> Answers:
        """Send rows in one call, passed on as TorchServe's worker passes them."""
        batch = [
            {
                "requestId": f"request-{index}".encode(),
                "headers": [],
                "parameters": [{"name": name, "contentType": "", "value": value} for name, value in row.items()],
            }
            for index, row in enumerate(rows)
        ]
        context = self.service.context
        context.request_processor, unpacked, context.request_ids = self.service.retrieve_data_for_inference(batch)
        bodies = self.service._entry_point(unpacked, context)
        places = range(len(rows))
        return Answers(
            bodies=json.loads(json.dumps(bodies)),
            statuses=[context.get_response_status(index)[0] for index in places],
            content_types=[context.get_response_content_type(index) for index in places],
        )


def load_example(name: str) -> ModuleType:
    """Import an example's train.py under a name of its own."""
    return load_module(EXAMPLES / name / "train.py", f"{name}_train")


def untrained(directory: Path, source: str) -> tuple[Path, Path]:
    """Write a model's source and weights, random but the same each time, into a directory, and return the files."""
    model, weights = directory / "model.py", directory / "weights.pt"
    model.write_text(source)
    torch.manual_seed(7)
    torch.save(load_module(model, "net").Net().state_dict(), weights)
    return model, weights


def load_module(path: Path, name: str) -> ModuleType:
    """Import a file under a name that is not registered anywhere."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained(name: str, factory: pytest.TempPathFactory) -> Trained:
    """Train an example with its default seed, once a session whoever asks."""
    if name not in _trained:
        module = load_example(name)
        result = module.train(factory.mktemp(f"{name}-trained"))
        directory = factory.mktemp(f"{name}-archive")
        lay_out(directory, HANDLERS[name], result.files)
        _trained[name] = Trained(name, module, result, directory)
    return _trained[name]


def lay_out(directory: Path, handler: str, files: tuple[Path, ...]) -> None:
    """Write what an unpacked archive holds: the files at its root, and the manifest."""
    spec = importlib.util.find_spec(f"marway_handlers.{handler}")
    assert spec is not None
    assert spec.origin is not None
    for path in (Path(spec.origin), Path(spec.origin).with_name("marway_handler_base.py"), *files):
        shutil.copyfile(path, directory / path.name)
    manifest = {
        "runtime": "python",
        "model": {
            "modelName": "served",
            "modelVersion": "1.0",
            "handler": f"{handler}.py",
            "modelFile": "model.py",
            "serializedFile": "weights.pt",
        },
        "archiverVersion": "0.12.0",
    }
    (directory / "MAR-INF").mkdir()
    (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest), encoding="utf-8")


@contextmanager
def served(directory: Path) -> Iterator[Served]:
    """Load an unpacked archive in our own test kit."""
    with load_handler(directory) as loaded:
        yield Served(loaded)


@contextmanager
def in_torchserve(directory: Path) -> Iterator[InTorchServe]:
    """Load an unpacked archive as a TorchServe worker does, with the archive's root on sys.path."""
    manifest = json.loads((directory / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))["model"]
    stems = ["marway_handler_base", *(Path(manifest[key]).stem for key in ("handler", "modelFile"))]
    for stem in stems:
        sys.modules.pop(stem, None)
    sys.path.insert(0, str(directory))
    try:
        loader = ModelLoaderFactory.get_model_loader()
        yield InTorchServe(loader.load(manifest["modelName"], str(directory), manifest["handler"], None, 1))
    finally:
        sys.path.remove(str(directory))
        for stem in stems:
            sys.modules.pop(stem, None)
