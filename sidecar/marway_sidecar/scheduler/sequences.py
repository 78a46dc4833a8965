"""Requests of sequences, whose handler keeps a state from one to the next: one after the other, in one worker.

At most one request of a sequence is in the version's queue or in a call. So a call has no two of one sequence, many of
several, and the order of their coming is kept. The others of a sequence wait here for their turn.

The version has one worker, which says with each answer who it is. What is asked next of the sequence names it, and is
refused by any other: so nobody has to see a worker die, and no state is begun anew without a word
(`marway.worker.sequences`). A version with sequences that live is not idle: it is neither unloaded for others' memory
nor for want of requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from uuid import uuid4

from marway.archives.sequences import SequenceSettings
from marway.errors import (
    InvalidRequest,
    MarwayError,
    ModelError,
    RuntimeDown,
    Unimplemented,
    clip,
)
from marway.wire.envelope import Answer
from marway.wire.headers import SEQUENCE_END, SEQUENCE_ID, SEQUENCE_START, SEQUENCE_WORKER
from marway.worker.sequences import LOST
from marway_sidecar.backends.base import ModelServer, NotLoaded, WorkerDied
from marway_sidecar.errors import about
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler.live_sequences import LiveSequence, LiveSequences, Step
from marway_sidecar.scheduler.queue import Job
from marway_sidecar.scheduler.scheduler import Scheduler
from marway_sidecar.scheduler.streams import StreamJob
from marway_sidecar.scheduler.version import ScheduledVersion
from marway_sidecar.settings import SidecarSettings

__all__ = ["SequenceScheduler"]

_ID_CHARS_MAX: Final = 256
_LOOK_S: Final = 0.01
_STATE_LOST: Final = (RuntimeDown, NotLoaded, WorkerDied)
"""Ends of a call with which the worker's state is gone."""


class SequenceScheduler(Scheduler):
    """The scheduler of a version that keeps sequences, as ``rules`` say."""

    def __init__(
        self,
        version: ScheduledVersion,
        server: ModelServer,
        settings: SidecarSettings,
        metrics: SidecarMetrics,
        rules: SequenceSettings,
    ) -> None:
        super().__init__(version, server, settings, metrics)
        self._rules = rules
        self._live = LiveSequences(version.record, rules)
        self._steps: dict[Job, Step] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether no call is in flight, none waits, and no sequence lives."""
        return super().idle and not self._live.by_id

    @property
    def live(self) -> int:
        """How many sequences live."""
        return len(self._live.by_id)

    def submit(self, job: Job) -> None:
        """Have ``job`` done once those of its sequence before it are; as `Scheduler.submit` otherwise.

        Raises:
            SequenceNotFound: It is to go on with a sequence that is not there.
            ModelError: As many requests of the sequence wait as may.
            Overloaded: It would begin a sequence, and as many live as may.
            MarwayError: As `Scheduler.submit`, or it is no request of a sequence.
        """
        headers = self._checked(job)
        known = SEQUENCE_ID in headers
        name = headers[SEQUENCE_ID] if known else f"ts-seq-{uuid4()}"
        start = headers.get(SEQUENCE_START, "").lower() if known else "true"
        ends = headers.get(SEQUENCE_END, "").lower() == "true"
        self._end_overdue()
        sequence = self._live.by_id.get(name)
        if sequence is None:
            sequence = self._live.begin(name, start)
        elif len(sequence.waiting) >= self._rules.max_waiting:
            raise self._error(
                ModelError(
                    f"{len(sequence.waiting) + 1} requests of the sequence {name!r} are under way already, and "
                    f"{self._rules.max_waiting} may wait (maxSequenceJobQueueSize): send one after the other",
                    status=503,
                )
            )
        step = self._steps[job] = Step(job, sequence, start == "true", ends)
        if sequence.current is None:
            try:
                self._ask(step)
            except BaseException:
                del self._steps[job]
                if sequence.worker is None:
                    self._live.by_id.pop(name, None)
                raise
        else:
            sequence.waiting.append(step)
            self.jobs.add(job)
            self._first_deadline.note(job.deadline.at)
        self._look_again()

    def leave(self, job: Job) -> None:
        """Let go of a job that was submitted; its sequence goes on without it."""
        step = self._steps.pop(job, None)
        if step is None:
            return
        self.jobs.discard(job)
        inner = step.inner
        if inner is None:
            if step in step.sequence.waiting:
                step.sequence.waiting.remove(step)
            return
        _copy_times(inner, job)
        if not inner.started:
            inner.future.cancel()
        super().leave(inner)

    def _checked(self, job: Job) -> Mapping[str, str]:
        """Return the headers of a job's row.

        Raises:
            Unimplemented: Its answer is to come in pieces.
            InvalidRequest: It has several rows, or an id or a start that cannot be.
        """
        if isinstance(job, StreamJob):
            raise self._error(Unimplemented(f"{self._title} keeps sequences, and answers whole: ask for no pieces"))
        if len(job.rows) != 1:
            raise self._error(InvalidRequest(f"{self._title} keeps sequences: send one row with each request"))
        headers = job.rows[0].headers
        name, start = headers.get(SEQUENCE_ID), headers.get(SEQUENCE_START, "true").lower()
        if name is not None and not (0 < len(name) <= _ID_CHARS_MAX and name.isprintable()):
            message = f"a sequence's id has 1 to {_ID_CHARS_MAX} characters, all printable: {clip(name, 40)!r}"
            raise self._error(InvalidRequest(message))
        if start not in ("true", "false"):
            raise self._error(InvalidRequest(f"{SEQUENCE_START} is {clip(start, 40)!r}: say true or false"))
        return headers

    def _ask(self, step: Step) -> None:
        """Put a request, whose turn it is, into the queue."""
        sequence, job = step.sequence, step.job
        if step.begins:
            sequence.worker, sequence.began = None, time.monotonic()
        row = job.rows[0]
        headers = {name: value for name, value in row.headers.items() if name != SEQUENCE_START}
        headers |= {SEQUENCE_ID: sequence.id, SEQUENCE_WORKER: sequence.worker or ""}
        if sequence.worker is None:
            headers[SEQUENCE_START] = "true"
        inner = Job(
            [replace(row, headers=headers)], job.deadline, group=job.group, body=job.body, priority=job.priority
        )
        super().submit(inner)
        step.inner, sequence.current = inner, step
        self.jobs.discard(job)
        inner.future.add_done_callback(lambda _: self._done(step, inner))

    def _done(self, step: Step, inner: Job) -> None:
        """Tell the caller what came of its request, and have the next of its sequence done."""
        sequence, job = step.sequence, step.job
        sequence.current, sequence.used = None, time.monotonic()
        _copy_times(inner, job)
        error = None if inner.future.cancelled() else inner.future.exception()
        if inner.future.cancelled():
            self._left(sequence)
        elif error is None:
            self._answered(step, inner.future.result()[0])
        else:
            because = error.__cause__ if isinstance(error, ModelError) else error
            if isinstance(because, _STATE_LOST) and inner.started:
                assert isinstance(error, MarwayError)
                error = self._live.gone(sequence.id, error.message)
                self._end(sequence, "the worker with its state is gone")
            else:
                self._left(sequence)
            job.fail(error if isinstance(error, Exception) else RuntimeDown("the call was given up"))
        self._next(sequence)
        self._look_again()

    def _answered(self, step: Step, answer: Answer) -> None:
        sequence, headers = step.sequence, dict(answer.headers)
        worker = headers.pop(SEQUENCE_WORKER, None)
        if worker == LOST:
            self._end(sequence, "the worker with its state is gone")
            step.job.fail(self._live.gone(sequence.id, "the worker that had its state has ended"))
            return
        sequence.worker = worker or sequence.worker  # an answer that was too large to be sent has none
        self._left(sequence)
        if step.ends or any(name.lower() == SEQUENCE_END for name in headers):
            self._end(sequence, "it was ended by the request before")
        step.job.answer([replace(answer, headers=headers)])

    def _left(self, sequence: LiveSequence) -> None:
        """Take in that a request ended without the handler's answer: one that was to begin the sequence did not."""
        if sequence.worker is None:
            self._end(sequence, "the request that was to begin it failed")

    def _next(self, sequence: LiveSequence) -> None:
        while sequence.current is None and sequence.waiting:
            step = sequence.waiting.popleft()
            self.jobs.discard(step.job)
            if step.job.future.done():
                continue
            try:
                self._ask(step)
            except MarwayError as exc:
                step.job.fail(exc)

    def _end(self, sequence: LiveSequence, why: str) -> None:
        """End a sequence; those of its requests that wait are told, unless they begin it anew."""
        if self._live.by_id.get(sequence.id) is not sequence:
            return
        sequence.worker = None
        while sequence.waiting and not sequence.waiting[0].begins:
            step = sequence.waiting.popleft()
            self.jobs.discard(step.job)
            step.job.fail(self._live.gone(sequence.id, why))
        if not sequence.waiting:
            del self._live.by_id[sequence.id]
        if self.version.memory.short and self.idle:
            self.version.memory.pump()

    def _look_again(self) -> None:
        """Have sequences ended in time that nobody asks any more."""
        if self._timer is None and self._live.by_id:
            wait_s = max(_LOOK_S, self._live.first_due_at() - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)

    def _look(self) -> None:
        self._timer = None
        self._end_overdue()
        self._look_again()

    def _end_overdue(self) -> None:
        for sequence, why in self._live.overdue():
            self._end(sequence, why)

    @property
    def _title(self) -> str:
        return f"{self.version.record.name} {self.version.record.version}"

    def _error(self, error: MarwayError) -> MarwayError:
        return about(self.version.record, error)


def _copy_times(inner: Job, job: Job) -> None:
    """Tell a caller's job when and how that which stands for it was run."""
    job.started_at, job.batch_rows = inner.started_at, inner.batch_rows
