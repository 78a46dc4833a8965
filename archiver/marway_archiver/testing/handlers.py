"""Loads a handler from a file, an unpacked archive or a `.mar`, calls it as a worker does, and tries its batches."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import yaml

from marway.answers.difference import difference
from marway.answers.encoding import as_tensor
from marway.answers.golden import GoldenAnswer, Kind, Tolerance
from marway.archives.entries import MANIFEST_NAME
from marway.archives.rules import calling_of
from marway.errors import InvalidArchive
from marway.wire.envelope import Answer
from marway.worker.calls import Outcome, call_async_handler, call_handler, described_tensor
from marway.worker.continuous import ContinuousBatch, answered_whole
from marway.worker.requests import Request
from marway_archiver.archives import opened_archive
from marway_archiver.contents.manifest import parse_manifest
from marway_archiver.packing import StrPath
from marway_archiver.proving.batch_plan import equal_answers, plan_batches, try_batches
from marway_archiver.proving.handler_process import unpack
from marway_archiver.testing.rows import AnyRow, request
from marway_archiver.testing.torchserve_stubs import (
    HandlerContext,
    RequestProcessor,
    list_classes,
    torchserve_importable,
)

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["KitAnswer", "LoadedHandler", "assert_batch_correct", "load_handler"]


@dataclass(frozen=True, slots=True)
class KitAnswer(Answer):
    """What became of one row: `status`, `body` (the answer as a client gets it, or a failure's message) and so on.

    Attributes:
        output: What the handler returned, as it is.
        exception: What it raised, if it did.
    """

    output: Any = None
    exception: BaseException | None = None

    def json(self) -> Any:
        """Return the body parsed."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    def golden(self) -> GoldenAnswer:
        """Return the answer in the form in which answers are compared."""
        body = described_tensor(as_tensor(self.output)) if self.kind == "tensor" else self.body
        kind = cast("Kind", self.kind)
        return GoldenAnswer.of(status=self.status, kind=kind, body=body, content_type=self.content_type)


class LoadedHandler:
    """A handler that has been initialised; close it, or use it in a `with` block.

    Attributes:
        instance: The handler's object; None for a handler that is a function.
        context: What it is given with every call.
        calls: How often it was called.
    """

    def __init__(
        self,
        entry_point: Callable[[Any, Any], Any],
        instance: Any,
        context: HandlerContext,
        stack: ExitStack,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._entry_point = entry_point
        self.instance = instance
        self.context = context
        self.calls = 0
        self._stack = stack
        self._loop = loop

    def ask(self, *rows: AnyRow) -> list[KitAnswer]:
        """Send all rows in one call, and return an answer a row; one that comes in pieces is put together.

        An exception becomes the answer of every row, as it does in a worker. A mapping is a row's inputs.
        """
        self.calls += 1
        requests = [request(row, index) for index, row in enumerate(rows)]
        outcome = self._called(requests)
        outputs = outcome.outputs or [None] * len(rows)
        return [
            KitAnswer(each.status, each.body, each.kind, each.content_type, each.headers, (), output, outcome.exception)
            for each, output in zip(outcome.answers, outputs, strict=True)
        ]

    def _called(self, requests: Sequence[Request]) -> Outcome:
        """Call the handler as its archive's configuration file has it."""
        if self._loop is not None:
            return self._loop.run_until_complete(
                call_async_handler(self._entry_point, self.context, requests, RequestProcessor)
            )
        if calling_of(self.context.model_yaml_config).way == "continuous":
            batch: ContinuousBatch[int] = ContinuousBatch(self._entry_point, self.context, RequestProcessor)
            steps, exception = answered_whole(batch, requests)
            answers = [replace(each[0].answer, body=b"".join(piece.answer.body for piece in each)) for each in steps]
            return Outcome(answers, [each[-1].output for each in steps], exception)
        return call_handler(self._entry_point, self.context, requests, RequestProcessor)

    def ask_each(self, rows: Iterable[AnyRow]) -> list[KitAnswer]:
        """Send each row in a call of its own."""
        return [self.ask(row)[0] for row in rows]

    def close(self) -> None:
        """Take the handler's directory from the path and its modules from memory; again is no error."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def assert_batch_correct(
    handler: LoadedHandler,
    rows: Sequence[AnyRow],
    *,
    max_rows: int = 32,
    tolerance: float = 1e-4,
) -> None:
    """Assert that rows are answered in batches as they are alone: what packing asks before a version is batched.

    Args:
        handler: The handler.
        rows: At least 2 different ones whose answers differ: otherwise an answer in the wrong row would not show.
            Rows that the handler sets an error status for are welcome; one that it raises for fails its whole batch.
        max_rows: Rows of the largest batch.
        tolerance: How far numbers of equal answers may lie apart, relative and absolute.

    Raises:
        AssertionError: With the first row that is answered differently; or the rows could not show it.
    """
    bounds = Tolerance(relative=tolerance, absolute=tolerance)
    alone = [answer.golden() for answer in handler.ask_each(rows)]
    for number, single in enumerate(alone, 1):
        assert single.kind != "error", f"row {number} fails alone, so no batch with it can succeed: {single.value}"
    groups = equal_answers(alone, bounds)
    assert len(set(groups)) > 1, "give at least 2 rows whose answers differ: else a wrong row's answer would not show"
    batches = plan_batches(groups, [0] * len(rows), max_rows=max_rows, max_bytes=1)
    _, found = try_batches(
        batches,
        alone,
        lambda batch: [answer.golden() for answer in handler.ask(*[rows[index] for index in batch])],
        bounds,
    )
    assert found is None, found
    again = [answer.golden() for answer in handler.ask_each(rows)]
    for number, (first, second) in enumerate(zip(alone, again, strict=True), 1):
        found = difference(first, second, bounds)
        assert found is None, f"row {number} is answered differently after other calls: {found}"


def load_handler(
    source: StrPath,
    *,
    handler: str | None = None,
    model_file: StrPath | None = None,
    serialized_file: StrPath | None = None,
    extra_files: Sequence[StrPath] = (),
    model_name: str = "model",
    gpu_id: int | None = None,
) -> LoadedHandler:
    """Load a handler and initialise it, as a TorchServe worker does.

    Args:
        source: A `.mar`, an unpacked archive (a directory with `MAR-INF/MANIFEST.json`), or a handler's Python file,
            whose own directory then stands for the archive unless further files are given.
        handler: Another entry point than the archive's or the file's, as `FILE:FUNCTION`.
        model_file: With a Python file: the model's, as for `pack`.
        serialized_file: With a Python file: the weights.
        extra_files: With a Python file: further files, for the archive's root.
        model_name: With a Python file: the model's name.
        gpu_id: The worker's GPU.

    Raises:
        InvalidArchive: The source is none, or the file holds no handler.
        Exception: Whatever the handler raises while it is imported or initialised.
    """
    path = Path(source)
    with ExitStack() as stack:
        if path.suffix == ".py" and not path.is_dir():
            files = (model_file, serialized_file, *extra_files)
            directory = _gathered(stack, path, [Path(each) for each in files if each is not None])
            model = {"modelName": model_name, "modelVersion": "1.0", "handler": handler or path.name}
            for key, file in (("modelFile", model_file), ("serializedFile", serialized_file)):
                if file is not None:
                    model[key] = Path(file).name
            manifest = {"runtime": "python", "model": model, "archiverVersion": "0.12.0"}
        else:
            directory = path if path.is_dir() else _unpacked(stack, path)
            raw = (directory / MANIFEST_NAME).read_bytes()
            parse_manifest(raw)
            manifest = json.loads(raw)
        return _load(stack, directory.resolve(), manifest, handler, gpu_id)


def _gathered(stack: ExitStack, handler: Path, files: list[Path]) -> Path:
    if not handler.is_file():
        raise InvalidArchive(f"{handler} does not exist")
    if not files:
        return handler.parent
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marway-testing-")))
    for file in (handler, *files):
        shutil.copyfile(file, directory / file.name)
    return directory


def _unpacked(stack: ExitStack, archive: Path) -> Path:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marway-testing-")))
    with opened_archive(archive) as (info, entries):
        assert info.manifest is not None
        unpack(directory, info.manifest, entries.values())
    return directory


def _load(
    stack: ExitStack, directory: Path, manifest: dict[str, Any], handler: str | None, gpu_id: int | None
) -> LoadedHandler:
    """Load a handler from a directory; what is on ``stack`` is the loaded handler's to close."""
    model = manifest["model"]
    config: dict[str, Any] = {}
    if model.get("configFile"):
        config = yaml.safe_load((directory / model["configFile"]).read_text(encoding="utf-8")) or {}
    context = HandlerContext(model["modelName"], str(directory), manifest, gpu_id=gpu_id, model_yaml_config=config)
    stack.enter_context(torchserve_importable())
    sys.path.insert(0, str(directory))
    stack.callback(_forget, directory, frozenset(sys.modules), _set_aside(directory))
    file, _, function = (handler or model["handler"]).partition(":")
    stem = Path(file).name.removesuffix(".py")
    importlib.invalidate_caches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open while it is imported
        module = importlib.import_module(stem)
    found: Any = getattr(module, function or "handle", None)
    if found is not None:
        # A function initialises itself when it is called without data; TorchServe waits for none that is `async def`.
        if inspect.iscoroutine(begun := found(None, context)):
            begun.close()
        instance = getattr(found, "__self__", None)
    elif function:
        raise InvalidArchive(f"{file} defines no function {function!r}")
    else:
        classes = list_classes(module)
        if len(classes) != 1:
            names = ", ".join(each.__name__ for each in classes) or "none"
            raise InvalidArchive(f"{stem}.py must define exactly one class or a function 'handle': it has {names}")
        instance = cast("Any", classes[0]())
        instance.initialize(context)
        found = instance.handle
    loop = None
    if calling_of(config).way == "async":
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
    return LoadedHandler(found, instance, context, stack.pop_all(), loop)


def _set_aside(directory: Path) -> dict[str, ModuleType]:
    """Take out modules of the names that can be imported from ``directory``: they are those of something else."""
    own = {path.stem for path in directory.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in own}


def _forget(directory: Path, before: frozenset[str], aside: dict[str, ModuleType]) -> None:
    with suppress(ValueError):
        sys.path.remove(str(directory))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name not in before - aside.keys() and isinstance(file, str) and Path(file).is_relative_to(directory):
            del sys.modules[name]
    sys.modules.update(aside)
