"""Calls of the model server with the rows of one request or of many, and what becomes of rows whose call failed.

When a call goes wrong as a whole, each of its rows is sent again by itself, so that what one of them did harms no
other. So good rows run twice, unless the version's serving settings say that none may (`retry_rows`): then all of them
fail. Rows that the server says it did not run, because it lost the version, go again with the next load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, ModelError, Overloaded, RuntimeDown
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import ModelServer, NotLoaded, NotSent, ServedModel, StackedAnswer, WorkerDied
from marway_sidecar.errors import about
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler.breaker import Breaker
from marway_sidecar.scheduler.queue import Job
from marway_sidecar.scheduler.streams import StreamJob
from marway_sidecar.scheduler.version import ScheduledVersion

__all__ = ["BatchCaller", "was_slow"]

_GRACE_S: Final = 10.0  # the server restarts a worker that takes longer than the version's time-out, and says so then
_SLOW_FACTOR: Final = 10.0
_SLOW_S: Final = 1.0
_LOST_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class BatchCaller:
    """Makes the calls of one version, and tells its breaker how they end."""

    version: ScheduledVersion
    server: ModelServer
    breaker: Breaker
    metrics: SidecarMetrics

    async def call(self, model: ServedModel, jobs: Sequence[Job]) -> list[Job]:
        """Make a call with these jobs, tell them what came of it, and return those that have to be sent again."""
        first = jobs[0]
        try:
            if isinstance(first, StreamJob):
                await self._stream(model, first)
                answers: list[Answer] = []
            elif first.alone:
                answers = [await self._ask_alone(model, first, row) for row in first.rows]
            else:
                answers = await self._ask(model, jobs, [row for job in jobs for row in job.rows])
        except asyncio.CancelledError as exc:
            self.breaker.ended(exc)
            for job in jobs:
                job.fail(RuntimeDown("the model server was let go of during the call", model=model.name))
            raise
        except Exception as exc:
            self.breaker.ended(exc)
            return self._after(exc, model, jobs)
        if self.breaker.troubled:
            self.breaker.ended(None)
        if not first.alone and len(answers) > 1 and self._may_run_twice and all(a.kind == "error" for a in answers):
            return _one_by_one(jobs)  # the handler raised: which row made it, it does not say
        start = 0
        for job in jobs:
            job.answer(answers[start : start + len(job.rows)])
            start += len(job.rows)
        return []

    @property
    def _may_run_twice(self) -> bool:
        return self.version.serving.retry_rows and self.version.record.sequences is None

    def _after(self, error: Exception, model: ServedModel, jobs: Sequence[Job]) -> list[Job]:
        """Decide what becomes of jobs whose call failed as a whole; return those that are sent again."""
        if isinstance(error, NotLoaded):
            self.version.lose()
            for job in jobs:
                job.lost += 1
                job.started_at = None
                if job.lost >= _LOST_MAX:
                    job.fail(error)
            return [job for job in jobs if job.lost < _LOST_MAX]
        alone, rows = jobs[0].alone, sum(len(job.rows) for job in jobs)
        no_rows_fault = isinstance(error, (RuntimeDown, Overloaded, DeadlineExceeded))
        if isinstance(error, NotSent) and not (alone and rows > 1):
            for job in jobs:
                job.started_at = None  # nobody started on it, so it may go elsewhere at no cost
        elif self._may_run_twice and not (no_rows_fault or alone or rows == 1):
            return _one_by_one(jobs)  # which row made it go wrong, nobody knows
        else:
            error = self._final(error, model)
        for job in jobs:
            job.fail(error)
        return []

    def _final(self, error: Exception, model: ServedModel) -> Exception:
        """Return what callers are told: an error that nobody tries again where rows may have run, and may not twice."""
        if self._may_run_twice or not isinstance(error, (RuntimeDown, WorkerDied)):
            return error
        message = f"{error.message}; the call may have run, and may not run twice (`retry_rows`)"
        final = about(model, ModelError(message))
        final.__cause__ = error
        return final

    async def _ask(self, model: ServedModel, jobs: Sequence[Job], rows: Sequence[Row]) -> list[Answer]:
        count = len(rows)
        self.metrics.batch_rows.observe(count)
        for job in jobs:
            job.batch_rows = count
        answers = await self.server.predict(model, rows, _own_deadline(model, jobs))
        if answers and isinstance(answers[0], StackedAnswer):  # of a backend that is given one job at a time
            jobs[0].batch_rows = max(each.batch_rows for each in answers if isinstance(each, StackedAnswer))
        for answer in answers:
            if answer.headers or answer.measured:  # most have none
                self.metrics.count_answer(model.name, model.version, answer)
        return answers

    async def _ask_alone(self, model: ServedModel, job: Job, row: Row) -> Answer:
        """Send one row by itself; among others of its request, one that fails is an answer like theirs."""
        try:
            (answer,) = await self._ask(model, [job], [row])
        except ModelError as exc:
            if len(job.rows) == 1:
                raise
            return Answer(exc.status, exc.message.encode(), "error")
        return answer

    async def _stream(self, model: ServedModel, job: StreamJob) -> None:
        """Pass on the pieces of an answer, all of which are read: so long its handler is at work."""
        piece: Answer | None = None
        job.batch_rows = 1
        async with aclosing(self.server.predict_stream(model, job.rows[0], _own_deadline(model, [job]))) as pieces:
            async for piece in pieces:
                await job.put(piece)
        if piece is not None:  # the last has every header that the handler set on the way
            self.metrics.count_answer(model.name, model.version, piece)


def was_slow(since: float, usual_s: float | None) -> bool:
    """Whether a call that began at ``since`` takes far longer than its version's calls do: it may hang."""
    return time.monotonic() - since > (usual_s * _SLOW_FACTOR if usual_s is not None else _SLOW_S)


def _own_deadline(model: ServedModel, jobs: Sequence[Job]) -> Deadline:
    """Return the deadline of a call itself, which its work cannot outlive: later than its callers'."""
    last_s = max(job.deadline.at for job in jobs) - time.monotonic()
    return Deadline.after(max(last_s, model.predict_timeout_s) + _GRACE_S)


def _one_by_one(jobs: Sequence[Job]) -> list[Job]:
    for job in jobs:
        job.alone = True
    return list(jobs)
