"""Has two versions answer the same golden inputs on this pod, in turns, and compares what they say."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from marway.answers.comparison import Comparing, fails
from marway.answers.golden import DEFAULT_TOLERANCE, ExampleInput, GoldenAnswer, GoldenDocument, Kind
from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, ModelError, Unavailable, clip
from marway.resolve import Resolved
from marway.wire.comparison import Comparison
from marway.wire.envelope import Answer
from marway_sidecar.backends.base import WorkerDied
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.golden_check import GoldenChecks, answer_of, ask_version, row_of
from marway_sidecar.threads import Threads

__all__ = ["Comparer"]

logger = logging.getLogger(__name__)

_ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
"""Larger answers are compared as bytes: fields and numbers are not looked for in them."""
_TIMED: Final = 20
_TIMING_S: Final = 2.0
"""Fast versions answer their inputs again until they were timed so often, or for so long, for a steady median."""
_LINE_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class _Timed:
    """An answer, and how long it took in seconds; `large` if it was not looked into."""

    answer: GoldenAnswer
    seconds: float
    large: bool = False


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Golden inputs, whose they are, and the base's published answers to them where they are its own."""

    examples: Sequence[ExampleInput]
    version: str
    document: GoldenDocument | None = None

    def published(self, number: int) -> GoldenAnswer | None:
        """Return the published answer to input ``number``, or None."""
        if self.document is None or len(self.document.examples) != len(self.examples):
            return None
        return self.document.examples[number].answer


class Comparer:
    """Compares versions that the pool has, by golden inputs and answers that the checks know."""

    def __init__(self, pool: ModelPool, checks: GoldenChecks, threads: Threads) -> None:
        self._pool, self._checks, self._threads = pool, checks, threads

    async def compare(self, new: Resolved, base: Resolved | None, deadline: Deadline) -> Comparison:
        """Return how a version answers the base's golden inputs, or its own where the base has none.

        A base that cannot run here is stood for by its published golden answers. Without a base only the version's own
        answers are looked at.

        The version is loaded first. What was compared until the deadline counts.

        Raises:
            LoadFailed, ArchiveCorrupt: The version cannot be loaded.
            InvalidArchive, InvalidRecord: The golden inputs or answers cannot be read.
            Unavailable, DeadlineExceeded: Nothing could be compared, which says nothing about the version.
        """
        await self._pool.load(new.record, new.serving, deadline)
        version, named = new.record.version, base.record.version if base is not None else None
        inputs = await self._inputs(new, base)
        if not inputs.examples:
            which = f"neither {named} nor {version} has" if named is not None else f"{version} has no"
            return Comparison(version=version, base=named, not_compared=f"{which} golden inputs")
        notes: list[str] = []
        if base is not None and (trouble := await self._load_both(new, base, deadline)) is not None:
            if inputs.published(0) is None:
                reason = f"{trouble}, and has no published golden answers that could stand for its own"
                return Comparison(version=version, base=named, not_compared=reason)
            notes.append(trouble)
            base = None
        tolerance = inputs.document.tolerance if inputs.document else DEFAULT_TOLERANCE
        comparing = Comparing(version, named, tolerance=tolerance)
        run = _Run(self._pool, self._threads, comparing, new, base, inputs, deadline, notes)
        return await run.compared()

    async def _inputs(self, new: Resolved, base: Resolved | None) -> _Inputs:
        """Return the inputs to use: the base's, else the version's own."""
        for each in (base, new):
            if each is not None and (found := await self._checks.inputs(each.record)):
                document = await self._checks.document(each.record) if each is base else None
                return _Inputs(found, each.record.version, document)
        return _Inputs((), new.record.version)

    async def _load_both(self, new: Resolved, base: Resolved, deadline: Deadline) -> str | None:
        """Load the base beside the version; return why that cannot be, if it cannot."""
        half = Deadline.after(deadline.left_s() / 2)
        try:
            with self._pool.hold(new.record, new.serving):  # so that it is not unloaded to make room for the base
                await self._pool.load(new.record, new.serving, deadline)
                await self._pool.load(base.record, base.serving, half)
        except MarwayError as exc:
            return f"{base.record.version} cannot be asked on this pod ({clip(exc.message, _LINE_MAX)})"
        return None


@dataclass(slots=True)
class _Run:
    """One comparison; without a base its published answers stand for it, where there are any."""

    pool: ModelPool
    threads: Threads
    comparing: Comparing
    new: Resolved
    base: Resolved | None
    inputs: _Inputs
    deadline: Deadline
    notes: list[str]
    breaking: set[str] = field(default_factory=set)
    """The versions, by id, that killed their worker with a call, or hung."""

    async def compared(self) -> Comparison:
        """Ask for every input, compare, and take the time."""
        inputs, large, published = self.inputs, 0, 0
        callables = inputs.document is not None and inputs.document.source == "callable"
        started = time.monotonic()
        for number in range(len(inputs.examples)):
            try:
                answer, before = await self._both(number)
                if before is None and self.base is not None and inputs.published(number) is None:
                    raise Unavailable(f"{self.base.record.version} cannot be asked now: it is too busy")
            except DeadlineExceeded:
                if self.comparing.compared == 0:
                    raise
                break
            expected = before.answer if before is not None else inputs.published(number)
            published += before is None and expected is not None
            large += answer.large or (before is not None and before.large)
            values_only = callables and before is None
            await self.threads.run(self.comparing.add, number + 1, expected, answer.answer, values_only=values_only)
        if published:
            self.notes.append(f"published golden answers stand for {published} of the answers that were compared with")
        if large:
            self.notes.append(
                f"{large} answers had more than {_ANSWER_BYTES_MAX} bytes: they were compared as bytes only"
            )
        await self._time_again(started)
        return await self.threads.run(
            self.comparing.done, inputs=len(inputs.examples), inputs_of=inputs.version, notes=tuple(self.notes)
        )

    async def _time_again(self, started: float) -> None:
        """Ask fast versions again, for a steady median."""
        number, count = self.comparing.compared, len(self.inputs.examples)
        if number < count or self.breaking:
            return
        try:
            while number < _TIMED and time.monotonic() < started + _TIMING_S:
                await self._both(number)
                number += 1
        except MarwayError as exc:  # everything is compared already
            logger.info("the timing of %s ended: %s", self.new.record.version, exc.message)

    async def _both(self, number: int) -> tuple[_Timed, _Timed | None]:
        """Ask the version and the base, if it is not too busy; which comes first changes from input to input."""
        example = self.inputs.examples[number % len(self.inputs.examples)]
        before = await self._ask_base(example) if number % 2 == 0 else None
        answer = await self._ask(self.new, example)
        if number % 2:
            before = await self._ask_base(example)
        if not fails(answer.answer):
            self.comparing.time(answer.seconds)
        if before is not None and not fails(before.answer):
            self.comparing.base_time(before.seconds)
        return answer, before

    async def _ask_base(self, example: ExampleInput) -> _Timed | None:
        if self.base is None:
            return None
        try:
            return await self._ask(self.base, example)
        except Unavailable:
            return None

    async def _ask(self, version: Resolved, example: ExampleInput) -> _Timed:
        """Ask a version as a caller on this pod would be answered; what it fails at is an answer of kind `error`.

        Raises:
            DeadlineExceeded: The comparison's own deadline passed.
            Unavailable: It cannot be asked now.
        """
        limit_s = version.serving.predict_timeout_s
        own = Deadline.after(min(self.deadline.left_s(), limit_s))
        started = time.monotonic()
        try:
            answer = await ask_version(self.pool, version, row_of(example), own)
        except ModelError as exc:
            return _failed(exc.status, exc.message, started)
        except WorkerDied:
            self.breaking.add(version.record.id)
            return _failed(500, "it killed its worker", started)
        except DeadlineExceeded:
            if self.deadline.left_s() <= 0:
                raise
            self.breaking.add(version.record.id)
            return _failed(504, f"no answer within {limit_s:g} s", started)
        except Unavailable as exc:
            if version.record.id not in self.breaking:
                raise
            return _failed(503, exc.message, started)
        seconds = time.monotonic() - started
        large = len(answer.body) > _ANSWER_BYTES_MAX
        return _Timed(await self.threads.run(_read, answer, large=large), seconds, large)


def _failed(status: int, message: str, started: float) -> _Timed:
    answer = GoldenAnswer(status=status, kind="error", value=clip(message, _LINE_MAX))
    return _Timed(answer, time.monotonic() - started)


def _read(answer: Answer, *, large: bool) -> GoldenAnswer:
    """Return an answer as it is compared; of one that is too large, or a tensor of another kind, the bytes."""
    if not large:
        try:
            return answer_of(answer)
        except ValueError:
            pass
    kind: Kind = "error" if answer.kind == "error" else "bytes"
    return GoldenAnswer.of(status=answer.status, kind=kind, body=answer.body, content_type=None)
