"""Calls of the model server with the rows of one request or of many.

Nothing waits for a batch to fill: the gate hands over what waits when a worker becomes free, as one call. When such a
call goes wrong as a whole, each of its rows is sent again by itself, so that what one of them did harms no other. So
good rows run twice, unless the version's serving settings say that none may (`retry_rows`): then all of them fail.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, ModelError, Overloaded, RuntimeDown
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import ModelServer, NotLoaded, NotSent, ServedModel, WorkerDied
from marway_sidecar.lifecycle.failures import again
from marway_sidecar.scheduler.breaker import Breaker
from marway_sidecar.scheduler.scheduler import Gate, Slot
from marway_sidecar.scheduler.work import Work

__all__ = ["Batcher", "own_deadline", "was_slow"]

_GRACE_S: Final = 10.0  # the server restarts a worker that takes longer than the version's time-out, and says so then
_SLOW_FACTOR: Final = 10.0
_SLOW_S: Final = 1.0
_LOST_MAX: Final = 2


class Batcher:
    """Makes the calls of one version.

    Args:
        server: The model server.
        served: Returns the version as the server knows it; None when it has just been lost.
        gate: Where work goes back to that has to be sent again.
        breaker: Told how calls end.
        lost: Called when the server says that it does not have the version.
        retry_rows: Returns whether rows may run a second time.
        observe: Told how many rows each call has.
        answered: Told the answers of each call.
    """

    def __init__(
        self,
        server: ModelServer,
        *,
        served: Callable[[], ServedModel | None],
        gate: Gate,
        breaker: Breaker,
        lost: Callable[[], None],
        retry_rows: Callable[[], bool],
        observe: Callable[[float], None],
        answered: Callable[[Sequence[Answer]], None],
    ) -> None:
        self._server = server
        self._served = served
        self._gate = gate
        self._breaker = breaker
        self._lost = lost
        self._retry_rows = retry_rows
        self._observe = observe
        self._on_answered = answered
        self._calls: set[asyncio.Task[None]] = set()

    def run(self, slot: Slot, works: Sequence[Work]) -> None:
        """Start a call with these rows; the slot is free when its work has ended, whoever still waits for it."""
        model = self._served()
        if model is None:  # the server lost it in the moment that the slot was given
            self._gate.put_back(works)
            slot.release()
            return
        now = time.monotonic()
        for work in works:
            work.started_at = now
            if work.body is not None:
                slot.keep(work.body)
        call = asyncio.create_task(self._call(slot, model, works), name="predict")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, slot: Slot, model: ServedModel, works: Sequence[Work]) -> None:
        try:
            if works[0].alone:
                (work,) = works
                _tell(works, [await self._alone(model, work, row) for row in work.rows])
            else:
                rows = [row for work in works for row in work.rows]
                self._answered(works, await self._ask(model, works, rows))
            self._breaker.ended(None)
        except NotLoaded as exc:
            self._breaker.ended(exc)
            self._lost()
            self._again(works, exc)
        except asyncio.CancelledError as exc:
            self._breaker.ended(exc)
            _fail(works, RuntimeDown("the model server was let go of during the call", model=model.name))
            raise
        except (RuntimeDown, Overloaded, DeadlineExceeded) as exc:
            self._breaker.ended(exc)
            if isinstance(exc, NotSent) and not (works[0].alone and len(works[0].rows) > 1):
                for work in works:
                    work.started_at = None  # nobody started on it, so it may go elsewhere at no cost
                _fail(works, exc)
            else:
                _fail(works, self._final(model, exc))
        except Exception as exc:
            self._breaker.ended(exc)
            if works[0].alone or sum(len(work.rows) for work in works) == 1 or not self._retry_rows():
                _fail(works, self._final(model, exc))
            else:
                self._one_by_one(works)  # which row made it go wrong, nobody knows
        finally:
            slot.release()

    async def _alone(self, model: ServedModel, work: Work, row: Row) -> Answer:
        """Send one row by itself; among others of its request, one that fails is an answer like theirs."""
        try:
            (answer,) = await self._ask(model, [work], [row])
        except ModelError as exc:
            if len(work.rows) == 1:
                raise
            return Answer(exc.status, exc.message.encode(), "error")
        return answer

    async def _ask(self, model: ServedModel, works: Sequence[Work], rows: Sequence[Row]) -> list[Answer]:
        self._observe(len(rows))
        last = Deadline(max(work.deadline.at for work in works))
        answers = await self._server.predict(model, rows, own_deadline(last, model))
        self._on_answered(answers)
        return answers

    def _answered(self, works: Sequence[Work], answers: list[Answer]) -> None:
        if len(answers) > 1 and self._retry_rows() and all(answer.kind == "error" for answer in answers):
            self._one_by_one(works)  # the handler raised: which row made it, it does not say
        else:
            _tell(works, answers)

    def _final(self, model: ServedModel, error: Exception) -> Exception:
        """Return what callers are told: an error that nobody tries again where rows may have run, and may not twice."""
        if self._retry_rows() or not isinstance(error, (RuntimeDown, WorkerDied)):
            return error
        return ModelError(
            f"{error.message}; the call may have run, and may not run twice (`retry_rows`)",
            model=model.name,
            version=model.version,
        )

    def _one_by_one(self, works: Sequence[Work]) -> None:
        for work in works:
            work.alone = True
        self._gate.put_back(works)

    def _again(self, works: Sequence[Work], error: MarwayError) -> None:
        """Have work wait for another load: the server ran nothing of it."""
        for work in works:
            work.lost += 1
            work.started_at = None
        _fail([work for work in works if work.lost >= _LOST_MAX], error)
        self._gate.put_back([work for work in works if work.lost < _LOST_MAX])


def own_deadline(deadline: Deadline, model: ServedModel) -> Deadline:
    """Return the deadline of a call itself, which its work cannot outlive: later than its caller's."""
    return Deadline.after(max(deadline.remaining(), model.predict_timeout_s) + _GRACE_S)


def was_slow(since: float, usual_s: float | None) -> bool:
    """Whether a call that began at ``since`` takes far longer than its version's calls do: it may hang."""
    return time.monotonic() - since > (usual_s * _SLOW_FACTOR if usual_s is not None else _SLOW_S)


def _tell(works: Sequence[Work], answers: Sequence[Answer]) -> None:
    start = 0
    for work in works:
        end = start + len(work.rows)
        if not work.future.done():
            work.future.set_result(list(answers[start:end]))
        start = end


def _fail(works: Sequence[Work], error: Exception) -> None:
    for work in works:
        if not work.future.done():
            work.future.set_exception(again(error) if isinstance(error, MarwayError) else error)
