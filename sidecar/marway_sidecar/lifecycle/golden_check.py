"""Golden examples on a pod: they warm a version up after each load, and prove it when that is asked for.

The inputs are in the archive, the answers in the registry (`marway.answers.golden`).
"""

from __future__ import annotations

import asyncio
import logging
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast

from marway.answers.difference import golden_difference, golden_of
from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, Kind, examples_in
from marway.answers.tensors import decode_tensor
from marway.archive_store import ArchiveStore
from marway.bundles import BUNDLE_SUFFIX
from marway.deadline import Deadline
from marway.errors import InvalidArchive, InvalidRecord, MarwayError, ModelError, RuntimeDown, clip
from marway.records import VersionRecord
from marway.refs import new_ulid
from marway.registry import Registry
from marway.resolve import Resolved
from marway.wire.envelope import Answer, Part, Row
from marway.wire.headers import JSON_NONFINITE
from marway_sidecar.backends.base import ModelServer, ServedModel, WorkerDied
from marway_sidecar.errors import about, without_traceback
from marway_sidecar.lifecycle.pool import ModelPool
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler import Job, StreamJob
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads

__all__ = ["Ask", "GoldenChecks", "Proved", "answer_of", "ask_version", "row_of"]

logger = logging.getLogger(__name__)

_RAW_BODY_NAME: Final = "data"
_LINE_MAX: Final = 300

Ask = Callable[[Row], Awaitable[Answer]]
"""Sends one row to the version and returns its answer."""


@dataclass(frozen=True, slots=True)
class Proved:
    """What came of comparing every golden answer: a line for each that was answered otherwise."""

    golden_sha256: str | None
    """Which answers; None when the version has none."""
    examples: int
    differences: tuple[str, ...]


class GoldenChecks:
    """Sends the golden inputs of archives through versions and compares what comes with the registry's answers."""

    def __init__(
        self,
        registry: Registry,
        archives: ArchiveStore,
        threads: Threads,
        metrics: SidecarMetrics,
        settings: SidecarSettings,
    ) -> None:
        self._registry = registry
        self._archives = archives
        self._threads = threads
        self._metrics = metrics
        self._warm_examples = settings.golden_warm_examples
        self._warm_s = settings.golden_warm_s

    async def warm(self, server: ModelServer, model: ServedModel, record: VersionRecord, deadline: Deadline) -> None:
        """Send a few golden inputs to a version that was just loaded, so that no caller meets a cold one.

        What differs from the golden answers is counted and logged, and the version serves all the same: whether it may
        is decided where labels move. Trouble with an example does not refuse a load either.

        Raises:
            RuntimeDown: The server went away.
        """
        if model.workers == 0 or self._warm_examples == 0:
            return
        until = time.monotonic() + self._warm_s
        try:
            inputs = await self._threads.run(_golden_inputs, model.archive, self._warm_examples)
            document = await self._document_soon(record) if inputs else None
            ask = partial(_ask_server, server, model, deadline)
            for number, example in enumerate(inputs):
                # Between examples and not within one: a call that is given up goes on running in its worker.
                if number and time.monotonic() >= until:
                    return
                await self._compared(ask, example, document, number, record)
        except RuntimeDown:
            raise
        except MarwayError as exc:
            self._failed(record, exc)

    async def prove(self, ask: Ask, record: VersionRecord) -> Proved:
        """Send every golden input through a loaded version and compare all answers.

        Raises:
            InvalidArchive, InvalidRecord: The golden inputs or answers cannot be read.
            Unavailable, DeadlineExceeded: An answer could not be had, which says nothing about the version.
        """
        document = await self.document(record)
        if document is None:
            return Proved(None, 0, ())
        inputs = await self.inputs(record)
        if len(inputs) != len(document.examples):
            message = (
                f"{record.name} {record.version} carries {len(inputs)} golden inputs and has "
                f"{len(document.examples)} golden answers: publish it again"
            )
            raise about(record, InvalidRecord(message))
        found = [await self._compared(ask, example, document, number, record) for number, example in enumerate(inputs)]
        return Proved(record.golden_sha256, len(inputs), tuple(line for line in found if line is not None))

    async def _compared(
        self, ask: Ask, example: ExampleInput, document: GoldenDocument | None, number: int, record: VersionRecord
    ) -> str | None:
        """Send one input and return how its answer differs, in one line, or None."""
        try:
            answer = await ask(row_of(example))
        except WorkerDied:
            difference: str | None = "it killed its worker"
        except ModelError as exc:
            difference = clip(exc.message, _LINE_MAX)
        else:
            difference = await self._threads.run(_difference, document, number, example, answer)
        if difference is None:
            if document is not None:
                self._count(record, "same")
            return None
        self._count(record, "different")
        line = f"example {number + 1}: {difference}"
        logger.warning("%s %s, golden %s", record.name, record.version, line)
        return line

    async def _document_soon(self, record: VersionRecord) -> GoldenDocument | None:
        """Return the golden answers if they can be had soon: a version serves while the registry is away."""
        try:
            async with asyncio.timeout(self._warm_s):
                return await self.document(record)
        except TimeoutError:
            return None
        except MarwayError as exc:
            self._failed(record, exc)
            return None

    async def inputs(self, record: VersionRecord) -> Sequence[ExampleInput]:
        """Return a version's golden inputs, none where it has none.

        Raises:
            InvalidArchive: They cannot be read.
            MarwayError: As `ArchiveStore.use`.
        """
        with await self._threads.run(self._archives.use, record.archive) as use:
            return await self._threads.run(_golden_inputs, use.path, None)

    async def document(self, record: VersionRecord) -> GoldenDocument | None:
        """Return a version's golden answers, None where it has none; raises as `golden_of` does."""
        return await self._threads.run(golden_of, self._registry, record)

    def _failed(self, record: VersionRecord, error: MarwayError) -> None:
        self._count(record, "failed")
        logger.warning("%s %s: golden examples failed: %s", record.name, record.version, clip(error.message, _LINE_MAX))

    def _count(self, record: VersionRecord, outcome: str) -> None:
        self._metrics.golden_checks.labels(record.name, record.version, outcome).inc()


def row_of(example: ExampleInput) -> Row:
    """Return the row that a client would have sent with this input."""
    headers = {"content-type": example.content_type} if example.content_type is not None else {}
    headers[JSON_NONFINITE] = "allow"  # an answer may be NaN, and is compared as what it is
    return Row(f"golden-{new_ulid()}", [Part(_RAW_BODY_NAME, example.data, example.content_type)], headers)


def answer_of(answer: Answer) -> GoldenAnswer:
    """Return an answer of a worker in the form in which answers are compared.

    Raises:
        ValueError: A tensor that cannot be read.
    """
    if answer.kind == "tensor":
        return GoldenAnswer(
            status=answer.status,
            kind="tensor",
            content_type=answer.content_type,
            value=decode_tensor(answer.body),
        )
    return GoldenAnswer.of(
        status=answer.status, kind=cast("Kind", answer.kind), body=answer.body, content_type=answer.content_type
    )


async def ask_version(pool: ModelPool, version: Resolved, row: Row, deadline: Deadline) -> Answer:
    """Send a row to a version as a caller on this pod would; raises as `ModelPool.predict` does."""
    record, serving = version.record, version.serving
    try:
        if serving.streaming:
            return await _last(pool.stream(record, serving, StreamJob(row, deadline)))
        (answer,) = await pool.predict(record, serving, Job([row], deadline))
    except ModelError as exc:
        if isinstance(exc.__cause__, MarwayError):  # whether it may be tried elsewhere does not matter here
            raise without_traceback(exc.__cause__) from exc
        raise
    return answer


async def _ask_server(server: ModelServer, model: ServedModel, deadline: Deadline, row: Row) -> Answer:
    if model.streaming:
        return await _last(server.predict_stream(model, row, deadline))
    (answer,) = await server.predict(model, [row], deadline)
    return answer


async def _last(pieces: AsyncIterator[Answer]) -> Answer:
    """Return the last piece of a streamed answer: it is what the handler returned."""
    answers = [piece async for piece in pieces]
    if not answers:
        raise ModelError("its handler gave no answer")
    return answers[-1]


def _difference(document: GoldenDocument | None, number: int, example: ExampleInput, answer: Answer) -> str | None:
    if document is None:
        return None
    if number >= len(document.examples) or document.examples[number].input_sha256 != example.sha256:
        return "there is no golden answer to this input"
    try:
        return golden_difference(document, number, answer_of(answer))
    except ValueError as exc:
        return clip(f"the answer is a tensor that cannot be compared: {exc}", _LINE_MAX)


def _golden_inputs(archive: Path, most: int | None) -> Sequence[ExampleInput]:
    """Return the golden inputs of an archive, or its first ``most``."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return examples_in(opened, "bundle" if archive.suffix == BUNDLE_SUFFIX else "mar")[:most]
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as exc:
        raise InvalidArchive(f"the golden inputs of {archive.name} cannot be read: {clip(str(exc), 200)}") from exc
