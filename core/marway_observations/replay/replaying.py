"""Sends kept inputs to two versions, some at a time and no faster than is asked, and compares what they answer."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import jmespath
from jmespath.exceptions import JMESPathError

from marway.answers.bodies import parts_of
from marway.answers.difference import golden_of, shown_value
from marway.answers.golden import DEFAULT_TOLERANCE, Tolerance
from marway.answers.pairs import compare_pair
from marway.errors import clip
from marway.proofs.replays import REPLAY_LIMITS, Replay, ReplayCounts
from marway.records import VersionRecord
from marway.registry import Registry
from marway_observations.replay.asking import Answered, Asker, GaveUp, NoRoom
from marway_observations.replay.choosing import Inputs
from marway_observations.replay.tally import Tally, breaches
from marway_observations.why.replaying import NotReplayed

__all__ = ["Progress", "Replaying"]

_AT_ONCE: Final = 4
"""Inputs on their way: more would only wait for each other in a pod, where all callers go first."""
_SEGMENT_MAX: Final = 100

Progress = Callable[[int, int, int], None]
"""Is told how many inputs are done, of how many, and how many of these were not answered the same."""


@dataclass(slots=True)
class Replaying:
    """One replay, as it is wanted.

    Args:
        registry: Has the versions' records, the base's golden tolerance and what decides in its answers.
        base: The version that is compared with.
        candidate: The version that is tried.
        gateway: URL of a gateway's public port.
        token: A bearer token for it.
        label: Whose callers' inputs they are, for the report.
        rate: At most so many inputs a second; None means as fast as the pods have room beside their callers.
        segment: A JMESPath below `input` and `output` (the base's answer) that says of which segment an input is.
        limits: By guard, in which part of the inputs the candidate may do worse.
        timeout_s: Deadline of each request, seconds.
        give_up_s: After how many seconds without any answer it gives up.
    """

    registry: Registry
    base: VersionRecord
    candidate: VersionRecord
    gateway: str
    token: str | None = None
    label: str | None = None
    rate: float | None = None
    segment: str | None = None
    limits: Mapping[str, float] = field(default_factory=lambda: dict(REPLAY_LIMITS))
    timeout_s: float = 60.0
    give_up_s: float = 60.0

    def run(self, inputs: Inputs, *, progress: Progress | None = None) -> Replay:
        """Send all inputs and return what came of it; Ctrl-C breaks it off, and what was compared is returned. Blocks.

        Raises:
            NotFound, LoadFailed, ArchiveCorrupt: A version cannot be asked at all.
            Unauthenticated: The gateway wants a token.
            Unavailable: Not a single input was answered.
        """
        golden = golden_of(self.registry, self.base)
        serving = self.registry.state(self.base.name).serving_for(self.base)
        rules = (rule.prediction for rule in serving.quality if rule.kind == "classification")
        run = _Run(
            self,
            tolerance=DEFAULT_TOLERANCE if golden is None else golden.tolerance,
            decision=next((path for path in rules if path != "@"), None),
            inputs=inputs.count,
            progress=progress,
        )
        begun = time.monotonic()
        asyncio.run(run.all(inputs))
        tally = run.tally
        counts = ReplayCounts(**tally.counts)
        base, candidate = self.base.version, self.candidate.version
        return Replay(
            model=self.base.name,
            base=base,
            candidate=candidate,
            label=self.label,
            since=inputs.since,
            until=inputs.until,
            inputs=inputs.count,
            skipped=dict(tally.skipped),
            counts=counts,
            fields=tally.fields,
            segment=self.segment,
            segments=tally.segments() if self.segment is not None else (),
            sides=tally.sides(base, candidate),
            slowest=tally.slowest(),
            examples=tally.examples(),
            redacted=tuple(serving.observe_redact),
            limits=dict(self.limits),
            breaches=breaches(counts, self.limits, base=base, candidate=candidate),
            broken_off=run.broken_off,
            duration_s=time.monotonic() - begun,
        )


class _Run:
    """A replay under way."""

    def __init__(
        self, wanted: Replaying, *, tolerance: Tolerance, decision: str | None, inputs: int, progress: Progress | None
    ) -> None:
        self.tally = Tally()
        self.broken_off: str | None = None
        self._wanted = wanted
        self._tolerance = tolerance
        self._decision = decision
        self._inputs = inputs
        self._progress = progress
        self._segment = None if wanted.segment is None else jmespath.compile(wanted.segment)
        self._begun = 0
        self._done = 0
        self._next_at = 0.0
        self._stop = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    async def all(self, inputs: Inputs) -> None:
        """Send all inputs, or as many as there are until it is broken off."""
        wanted = self._wanted
        # The client's own time-out is for a gateway that is gone: one that is there ends a request at its deadline.
        times = httpx.Timeout(wanted.timeout_s + 5.0, connect=5.0)
        async with httpx.AsyncClient(base_url=wanted.gateway, timeout=times, trust_env=False) as client:
            asker = Asker(client, wanted.timeout_s, wanted.give_up_s, wanted.token)
            rows = iter(inputs)
            await self._one(next(rows), asker, timed=False)  # alone: it may have to wait until a version is loaded
            tasks = [asyncio.create_task(self._some(rows, asker), name="marway-replay") for _ in range(_AT_ONCE)]
            try:
                with self._stopped_by_signals():
                    await asyncio.gather(*tasks)
            except GaveUp as exc:
                if not self.tally.counts["compared"]:
                    raise
                self.broken_off = exc.message
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _some(self, rows: Iterator[Mapping[str, Any]], asker: Asker) -> None:
        """Take one input after the other, until there are none or it is stopped."""
        while True:
            async with self._one_at_a_time:  # one after the other: each fetches some more, and waits for its time
                await self._turn()
                # Rows come from disk in pieces: milliseconds, for which nobody else here has anything to do.
                row = None if self._stop.is_set() else next(rows, None)
                if row is None:
                    return
                self._begun += 1
            await self._one(row, asker)

    async def _turn(self) -> None:
        """Wait until the rate allows another input, or it is stopped."""
        if self._wanted.rate is None:
            return
        now = time.monotonic()
        self._next_at = max(self._next_at, now - 1.0)  # what was missed is made up for, for a second at most
        if self._next_at > now:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._next_at - now)
        self._next_at += 1.0 / self._wanted.rate

    async def _one(self, row: Mapping[str, Any], asker: Asker, *, timed: bool = True) -> None:
        await self._compare(row, asker, timed=timed)
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._inputs, self.tally.differing)

    async def _compare(self, row: Mapping[str, Any], asker: Asker, *, timed: bool) -> None:
        wanted = self._wanted
        both = (wanted.base, wanted.candidate) if self._begun % 2 else (wanted.candidate, wanted.base)
        found: dict[str, Answered] = {}
        try:
            for record in both:  # in turns, so that neither always has the warmer caches
                found[record.version] = await asker.ask(row, record)
        except NotReplayed as exc:
            self.tally.skipped[clip(exc.message, 200)] += 1
            return
        except NoRoom as exc:
            self.tally.skipped[f"not answered: {clip(exc.message, 180)}"] += 1
            return
        base, candidate = (
            found[each.version] if timed else found[each.version]._replace(model_s=None)
            for each in (wanted.base, wanted.candidate)
        )
        pair = compare_pair(base.answer, candidate.answer, self._tolerance, decision=self._decision)
        segment = None if self._segment is None else self._segment_of(row, base)
        self.tally.add(row["prediction_id"], base, candidate, pair, segment=segment)

    def _segment_of(self, row: Mapping[str, Any], base: Answered) -> str | None:
        assert self._segment is not None
        parts = parts_of(bytes(row["input"]), row["input_type"])
        given = None if parts is None else parts[0] if len(parts) == 1 else parts
        try:
            found = self._segment.search({"input": given, "output": base.answer.value})
        except JMESPathError:  # a function that does not take such a value
            return None
        if found is None or isinstance(found, bytes):
            return None
        return clip(found if isinstance(found, str) else shown_value(found), _SEGMENT_MAX)

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        """Have the first Ctrl-C end it after the inputs that are on their way, and a second one at once."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            self.broken_off = "interrupted"
            self._stop.set()

        try:
            loop.add_signal_handler(signal.SIGINT, stop)
        except (ValueError, RuntimeError, NotImplementedError):  # not in the main thread
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
