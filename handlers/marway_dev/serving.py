"""Keeps a handler served as its files change: loads it anew with each change, and asks it its examples."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

from watchfiles import Change, awatch

from marway.answers.difference import difference
from marway.answers.golden import ExampleInput, GoldenAnswer, Kind
from marway.deadline import Deadline
from marway.errors import LoadFailed, MarwayError
from marway.wire.envelope import RAW_BODY, Answer, Part, Row
from marway_archiver.proving.examples import Example, encode_all, input_line
from marway_dev.files import HandlerFiles
from marway_dev.terminal import Answered, Terminal
from marway_dev.workers import LoadedWorker, Workers

__all__ = ["Served"]

_PAUSE_S: Final = 1.0
_DEBOUNCE_MS: Final = 200
"""Editors write a file in several steps; changes this close together are one."""


class Served:
    """The handler as it is now.

    Args:
        files: The handler's files.
        workers: What starts workers.
        terminal: Told of what happens.
        examples: What the handler is asked after each load.
        timeout_s: How long a call may take, where the configuration file says nothing.
    """

    def __init__(
        self,
        files: HandlerFiles,
        workers: Workers,
        terminal: Terminal,
        examples: Sequence[Example],
        *,
        timeout_s: float,
    ) -> None:
        self._files, self._workers, self._terminal = files, workers, terminal
        self._examples = examples
        self.timeout_s = timeout_s
        self._worker: LoadedWorker | None = None
        self._failure: MarwayError | None = None
        self._settled = asyncio.Event()
        self._before: dict[tuple[bytes, str | None], GoldenAnswer] = {}

    @property
    def name(self) -> str:
        """The model's name."""
        return self._files.name

    async def worker(self, deadline: Deadline) -> LoadedWorker:
        """Return the worker of the files as they are, waiting for one that is being loaded.

        Raises:
            LoadFailed, InvalidArchive: The handler is not loaded, and why.
            LoadFailed: It was not loaded before the deadline.
        """
        try:
            async with asyncio.timeout(max(0.0, deadline.left_s())):
                await self._settled.wait()
        except TimeoutError as exc:
            raise LoadFailed(f"{self._files.file} was not loaded before the request's deadline") from exc
        if self._worker is None:
            assert self._failure is not None
            raise self._failure
        return self._worker

    async def reload(self, *, ask: bool = True) -> bool:
        """Load the files as they are now, ask the examples if so told, and return whether all went well."""
        self._settled.clear()
        await self.aclose()
        try:
            try:
                laid = await asyncio.to_thread(self._workers.laid)
            except OSError as exc:  # a file that went while it was looked at: its editor may put it back
                raise LoadFailed(f"the files cannot be read: {exc}") from exc
            self._worker = await self._workers.load(laid, call_timeout_s=self.timeout_s)
        except MarwayError as exc:
            self._failure = exc
            self._terminal.failed(exc.message)
            return False
        finally:
            self._settled.set()
        self._terminal.loaded(str(self._files.file), self._worker.load_s, self._worker.memory_bytes, laid.warnings)
        return await self._ask_examples(self._worker) if ask else True

    async def run(self) -> None:
        """Load, and load anew with each change and when the worker ended by itself, until cancelled."""
        async with _changes(self._files, self._examples) as (changes, watching):
            await self.reload()
            while True:
                names = await self._next(changes, watching)
                if names:
                    self._terminal.changed(names)
                else:
                    await asyncio.sleep(_PAUSE_S)
                # What killed it may be an example: another one is asked none, until a file is changed.
                await self.reload(ask=bool(names))

    async def aclose(self) -> None:
        """End the worker; again is no error."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.aclose()

    async def _next(self, changes: asyncio.Queue[list[str]], watching: asyncio.Task[None]) -> list[str]:
        """Return the files that were changed, or none where the worker ended by itself."""
        change = asyncio.ensure_future(changes.get())
        waited: list[asyncio.Future[Any]] = [change, watching]
        if self._worker is not None:
            waited.append(self._worker.ended)
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if change.done():
                return change.result()
            if watching.done():
                watching.result()  # it ends by a failure alone
        finally:
            change.cancel()
        self._terminal.log("error", "the handler's process ended: another one is started", None)
        return []

    async def _ask_examples(self, worker: LoadedWorker) -> bool:
        well = True
        try:
            given, inputs = await asyncio.to_thread(encode_all, self._examples)
        except MarwayError as exc:
            self._terminal.failed(exc.message)
            return False
        for number, (example, sent) in enumerate(zip(given, inputs, strict=True), 1):
            answered = await self._ask(worker, sent)
            self._terminal.answered(number, answered)
            expected = example.status
            well &= answered.ok if expected is None else answered.answer.status == expected
        return well

    async def _ask(self, worker: LoadedWorker, sent: ExampleInput) -> Answered:
        headers = {} if sent.content_type is None else {"content-type": sent.content_type}
        row = Row("example", [Part(RAW_BODY, sent.data, sent.content_type)], headers, True)
        began = time.perf_counter()
        pieces: list[Answer] = []
        try:
            async for piece in worker.answers(row, Deadline.after(self.timeout_s)):
                pieces.append(piece)  # noqa: PERF401 - what came before a failure counts
        except MarwayError as exc:
            pieces = [Answer(500, exc.message.encode(), "error")]
        seconds = time.perf_counter() - began
        answer = _whole(pieces)
        key = sent.data, sent.content_type
        before = self._before.get(key)
        self._before[key] = answer
        compared = "first" if before is None else difference(before, answer) or "same"
        return Answered(input_line(sent), answer, seconds, len(pieces), compared)


def _whole(pieces: Sequence[Answer]) -> GoldenAnswer:
    """Return an answer that came in pieces as one, in the form in which answers are compared."""
    failed = next((piece for piece in pieces if piece.kind == "error"), None)
    if failed is not None:
        return GoldenAnswer.of(status=failed.status, kind="error", body=failed.body, content_type=None)
    first = pieces[0]
    # A tensor comes as `torch.save` writes it, which only torch reads.
    kind = cast("Kind", "bytes" if first.kind == "tensor" else first.kind)
    body = b"".join([piece.body for piece in pieces])
    return GoldenAnswer.of(status=first.status, kind=kind, body=body, content_type=first.content_type)


@asynccontextmanager
async def _changes(
    files: HandlerFiles, examples: Sequence[Example]
) -> AsyncIterator[tuple[asyncio.Queue[list[str]], asyncio.Task[None]]]:
    """Give a queue of what was changed, by the names of the files, and the task that fills it."""
    queue: asyncio.Queue[list[str]] = asyncio.Queue()
    stop = asyncio.Event()
    of_examples = {each.input.absolute().parent for each in examples if isinstance(each.input, Path)}
    directories = files.watched() | {each for each in of_examples if each.is_dir()}

    known = {each for directory in directories for each in directory.iterdir()}

    async def watch() -> None:
        async for changes in awatch(
            *directories, recursive=False, debounce=_DEBOUNCE_MS, step=_DEBOUNCE_MS // 4, stop_event=stop
        ):
            names = _names(changes, known)
            if names:
                queue.put_nowait(names)

    task = asyncio.create_task(watch(), name="watch-files")
    try:
        yield queue, task
    finally:
        stop.set()
        await asyncio.wait({task})


def _names(changes: Collection[tuple[Change, str]], known: set[Path]) -> list[str]:
    """Return the names of what was changed, and have what is new among it ``known``.

    Editors write beside a file and move that into its place: what is gone again was nobody's.
    """
    found = [Path(path) for _, path in changes]
    there = {path for path in found if path.exists()}
    names = sorted({path.name for path in found if path in there or path in known})
    known |= there
    return names
