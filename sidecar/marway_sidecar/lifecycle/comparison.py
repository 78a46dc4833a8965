"""Has two versions answer the same golden inputs on this pod, in turns, and compares what they say."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from marway.answers.comparison import Comparing, fails
from marway.answers.golden import DEFAULT_TOLERANCE, ExampleInput, GoldenAnswer, GoldenDocument, Kind
from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, ModelError, Unavailable, clip
from marway.resolve import Resolved
from marway.wire.comparison import Comparison
from marway.wire.envelope import Answer
from marway_sidecar.archives import ArchiveStore
from marway_sidecar.backends.base import WorkerDied
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.golden_check import GoldenChecks, answer_of, ask_model, golden_inputs, row_of
from marway_sidecar.threads import Threads

__all__ = ["Comparer"]

logger = logging.getLogger(__name__)

_ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
"""Larger answers are compared as bytes: fields and numbers are not looked for in them."""
_TIMED: Final = 20
_TIMING_S: Final = 2.0
"""Fast versions answer their inputs again until they were timed so often, or for so long, for a steady median."""
_LINE_MAX: Final = 300


@dataclass(slots=True)
class _Side:
    """One of the two versions; `breaks` once a call of it killed its worker or hung."""

    resolved: Resolved
    breaks: bool = False


@dataclass(frozen=True, slots=True)
class _Said:
    """An answer, and how long it took in seconds; `large` if it was not looked into."""

    answer: GoldenAnswer
    seconds: float
    large: bool = False


@dataclass(slots=True)
class _Inputs:
    """Golden inputs, whose they are, and the base's published answers to them where they are its own."""

    examples: Sequence[ExampleInput]
    version: str
    document: GoldenDocument | None = None

    def stored(self, number: int) -> GoldenAnswer | None:
        """Return the published answer to input ``number``, or None."""
        if self.document is None or len(self.document.examples) != len(self.examples):
            return None
        return self.document.examples[number].answer


class Comparer:
    """Compares versions.

    Args:
        pool: Has them.
        checks: Knows golden answers.
        archives: Has the golden inputs.
        threads: Where blocking calls run.
    """

    def __init__(self, pool: ModelPool, checks: GoldenChecks, archives: ArchiveStore, threads: Threads) -> None:
        self._pool, self._checks, self._archives, self._threads = pool, checks, archives, threads

    async def compare(self, new: Resolved, base: Resolved | None, deadline: Deadline) -> Comparison:
        """Return how a version answers the base's golden inputs, or its own where the base has none.

        A base that cannot run here is stood for by its published golden answers. Without a base only the version's own
        answers are looked at.

        Args:
            new: The version; it is loaded first.
            base: The one whose place it is to take, or None.
            deadline: When to end. What was compared until then counts.

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
        tolerance = DEFAULT_TOLERANCE if inputs.document is None else inputs.document.tolerance
        comparing = Comparing(version, named, tolerance=tolerance)
        if base is None:
            return await self._run(comparing, _Side(new), None, inputs, deadline, [])
        notes: list[str] = []
        runs = await self._loaded(new, base, deadline, notes)
        if not runs and inputs.stored(0) is None:
            return Comparison(
                version=version,
                base=named,
                not_compared=f"{notes[0]}, and has no published golden answers that could stand for its own",
            )
        return await self._run(comparing, _Side(new), _Side(base) if runs else None, inputs, deadline, notes)

    async def _inputs(self, new: Resolved, base: Resolved | None) -> _Inputs:
        """Return the inputs to use: the base's, else the version's own."""
        for each in (base, new):
            if each is not None:
                with await self._threads.run(self._archives.use, each.record.archive) as use:
                    found = await self._threads.run(golden_inputs, use.path, None)
                if found:
                    document = await self._checks.document(each.record) if each is base else None
                    return _Inputs(found, each.record.version, document)
        return _Inputs((), new.record.version)

    async def _loaded(self, new: Resolved, base: Resolved, deadline: Deadline, notes: list[str]) -> bool:
        """Load the base beside the version, and return whether that went well; if not, add a note that says why."""
        half = Deadline.after(deadline.remaining() / 2)
        try:
            # The lease keeps the version from being unloaded to make room for the base.
            async with self._pool.lease(new.record, new.serving, deadline):
                await self._pool.load(base.record, base.serving, half)
        except MarwayError as exc:
            notes.append(f"{base.record.version} cannot be asked on this pod ({clip(exc.message, _LINE_MAX)})")
            return False
        return True

    async def _run(
        self,
        comparing: Comparing,
        new: _Side,
        base: _Side | None,
        inputs: _Inputs,
        deadline: Deadline,
        notes: list[str],
    ) -> Comparison:
        """Ask for every input, compare, and take the time; without a base its published answers stand for it."""
        large = stored = 0
        callables = inputs.document is not None and inputs.document.source == "callable"
        started = time.monotonic()
        for number, example in enumerate(inputs.examples):
            try:
                said, before = await self._both(new, base, example, number, deadline)
                if before is None and base is not None and inputs.stored(number) is None:
                    raise Unavailable(f"{base.resolved.record.version} cannot be asked now: it is too busy")
            except DeadlineExceeded:
                if comparing.compared == 0:
                    raise
                break
            self._time(comparing, said, before)
            expected = before.answer if before is not None else inputs.stored(number)
            stored += before is None and expected is not None
            large += said.large or (before is not None and before.large)
            values_only = callables and before is None
            await self._threads.run(comparing.add, number + 1, expected, said.answer, values_only=values_only)
        if stored:
            notes.append(f"published golden answers stand for {stored} of the answers that were compared with")
        if large:
            notes.append(f"{large} answers had more than {_ANSWER_BYTES_MAX} bytes: they were compared as bytes only")
        await self._time_again(comparing, new, base, inputs.examples, started, deadline)
        return await self._threads.run(
            comparing.done, inputs=len(inputs.examples), inputs_of=inputs.version, notes=tuple(notes)
        )

    async def _time_again(
        self,
        comparing: Comparing,
        new: _Side,
        base: _Side | None,
        examples: Sequence[ExampleInput],
        started: float,
        deadline: Deadline,
    ) -> None:
        """Ask fast versions again, for a steady median."""
        number = comparing.compared
        if number < len(examples) or new.breaks or (base is not None and base.breaks):
            return
        try:
            while number < _TIMED and time.monotonic() < started + _TIMING_S:
                said, before = await self._both(new, base, examples[number % len(examples)], number, deadline)
                self._time(comparing, said, before)
                number += 1
        except MarwayError as exc:  # everything is compared already
            logger.info("the timing of %s ended: %s", new.resolved.record.version, exc.message)

    @staticmethod
    def _time(comparing: Comparing, said: _Said, before: _Said | None) -> None:
        if not fails(said.answer):
            comparing.time(said.seconds)
        if before is not None and not fails(before.answer):
            comparing.base_time(before.seconds)

    async def _both(
        self, new: _Side, base: _Side | None, example: ExampleInput, number: int, deadline: Deadline
    ) -> tuple[_Said, _Said | None]:
        """Ask the version and the base, if it is not too busy; which comes first changes from input to input."""
        if base is None:
            return await self._ask(new, example, deadline), None
        if number % 2:
            said = await self._ask(new, example, deadline)
            return said, await self._ask_base(base, example, deadline)
        before = await self._ask_base(base, example, deadline)
        return await self._ask(new, example, deadline), before

    async def _ask_base(self, base: _Side, example: ExampleInput, deadline: Deadline) -> _Said | None:
        try:
            return await self._ask(base, example, deadline)
        except Unavailable:
            return None

    async def _ask(self, side: _Side, example: ExampleInput, deadline: Deadline) -> _Said:
        """Ask a version as a caller on this pod would be answered; what it fails at is an answer of kind `error`.

        Raises:
            DeadlineExceeded: The comparison's own deadline passed.
            Unavailable: It cannot be asked now.
        """
        record, serving = side.resolved.record, side.resolved.serving
        own = Deadline.after(min(deadline.remaining(), serving.predict_timeout_s))
        started = time.monotonic()
        try:
            async with self._pool.lease(record, serving, own) as lease:
                answer = await ask_model(lease.server, lease.model, row_of(example), deadline=own)
        except ModelError as exc:
            return _failed(exc.status, exc.message, started)
        except WorkerDied:
            side.breaks = True
            return _failed(500, "it killed its worker", started)
        except DeadlineExceeded:
            if deadline.remaining() <= 0:
                raise
            side.breaks = True
            return _failed(504, f"no answer within {serving.predict_timeout_s:g} s", started)
        except Unavailable as exc:
            if not side.breaks:
                raise
            return _failed(503, exc.message, started)
        seconds = time.monotonic() - started
        large = len(answer.body) > _ANSWER_BYTES_MAX
        return _Said(await self._threads.run(_read, answer, large=large), seconds, large)


def _failed(status: int, message: str, started: float) -> _Said:
    answer = GoldenAnswer(status=status, kind="error", value=clip(message, _LINE_MAX))
    return _Said(answer, time.monotonic() - started)


def _read(answer: Answer, *, large: bool) -> GoldenAnswer:
    """Return an answer as it is compared; of one that is too large, or a tensor of another kind, the bytes."""
    if not large:
        try:
            return answer_of(answer)
        except ValueError:
            pass
    kind: Kind = "error" if answer.kind == "error" else "bytes"
    return GoldenAnswer.of(status=answer.status, kind=kind, body=answer.body, content_type=None)
