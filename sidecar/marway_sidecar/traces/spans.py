"""Spans of a pod: of each prediction, of its time in the queue and in a worker, and of loads.

`TracedPredictor` takes the place of `Predictor` and `TracedServer` stands before the model server: while traces are off
neither is there, and nothing of this runs. Workers have no OpenTelemetry. For a row that is traced (`TIMED`) one sends
back how long the handler's steps took, as measurements of the kind `span`, and this makes spans of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, cast

from opentelemetry.trace import Span, Status, StatusCode

from marway.deadline import Deadline
from marway.errors import MarwayError
from marway.wire.envelope import Answer, Row
from marway.wire.headers import TIMED, TRACEPARENT, TRACESTATE, Outcome
from marway.wire.measurements import SPAN, Measurement
from marway_http.traces import Traces, fail, sampled
from marway_sidecar.api.call import Call
from marway_sidecar.api.failures import outcome_of
from marway_sidecar.api.predict import Predictor
from marway_sidecar.backends.base import ModelServer, ServedModel
from marway_sidecar.lifecycle.entry import Entry

__all__ = ["LoadTraces", "TracedPredictor", "traced_server"]

_CALLERS: Final = frozenset({Outcome.REFUSED, Outcome.NOT_ACCEPTED})


@dataclass(eq=False, kw_only=True)
class TracedPredictor(Predictor):
    """Tells of each prediction."""

    traces: Traces
    _spans: dict[Call, Span] = field(default_factory=dict)

    async def answer(self, call: Call) -> None:
        model, _ = call.named
        span = self._spans[call] = self.traces.begin(
            "pod",
            call.ids,
            kind="SERVER",
            attributes={"marway.pod": self.settings.name, "marway.request_id": call.ids.request_id},
        )
        call.ids = self.traces.within(call.ids, span)
        try:
            await super().answer(call)
        finally:
            del self._spans[call]
            if call.accepted:
                run, now = call.run(), time.time()
                began = now - (run.model_s or 0.0)
                self.traces.past("queue", span, began - (run.queue_s or 0.0), began)
                span.set_attributes({"marway.model": model, "marway.batch_rows": run.batch_rows or 0})
            span.end()

    async def _refuse(self, call: Call, error: MarwayError) -> None:
        span = self._spans[call]
        outcome = outcome_of(error, accepted=call.accepted)
        span.set_attribute("marway.outcome", outcome)
        if outcome in _CALLERS:
            span.set_attribute("error.type", error.code)
        else:
            fail(span, error)
        await super()._refuse(call, error)


def traced_server(server: ModelServer, traces: Traces, *, steps: bool) -> ModelServer:
    """Return a model server that tells of each call of each row; ``steps`` says whether its workers know `TIMED`."""
    return cast("ModelServer", _TracedServer(server, traces, steps=steps))


class _TracedServer:
    """A model server whose calls are told of; everything else is its own."""

    def __init__(self, server: ModelServer, traces: Traces, *, steps: bool) -> None:
        self._server = server
        self._traces = traces
        self._timed = {TIMED: "1"} if steps else {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        if not any(sampled(row.headers) for row in rows):
            return await self._server.predict(model, rows, deadline)
        spans, sent = self._begun(model, rows)
        answers: list[Answer] = []
        try:
            answers = self._steps_of(spans, await self._server.predict(model, sent, deadline))
            return answers
        except BaseException as exc:
            _failed(spans, exc)
            raise
        finally:
            _end(spans, answers)

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        spans, (sent,) = self._begun(model, [row])
        last: list[Answer] = []
        try:
            async with aclosing(self._server.predict_stream(model, sent, deadline)) as pieces:
                async for piece in pieces:
                    last = self._steps_of(spans, [piece])
                    yield last[0]
        except BaseException as exc:
            _failed(spans, exc)
            raise
        finally:
            _end(spans, last)

    def _begun(self, model: ServedModel, rows: Sequence[Row]) -> tuple[list[Span], list[Row]]:
        """Return a span for each row, and the rows whose handlers find it as their parent."""
        spans, sent = [], []
        for row in rows:
            about = {"marway.model": model.name, "marway.version": model.version}
            span = self._traces.begin("worker", row.headers, attributes={**about, "marway.batch_rows": len(rows)})
            spans.append(span)
            if sampled(row.headers):
                row = replace(row, headers={**row.headers, **self._traces.headers(span), **self._timed})
            sent.append(row)
        return spans, sent

    def _steps_of(self, spans: Sequence[Span], answers: Sequence[Answer]) -> list[Answer]:
        """Return answers without what their workers timed, of which spans are made: all rows of a call shared it."""
        kept = []
        for answer in answers:
            steps = [each for each in answer.measured if each.kind == SPAN]
            if steps:
                answer = replace(answer, measured=[each for each in answer.measured if each.kind != SPAN])
            for each in steps:
                began = _began(each)
                for span in spans:
                    self._traces.past(each.name, span, began, began + each.value)
            kept.append(answer)
        return kept


def _began(step: Measurement) -> float:
    """Return when a step began, in seconds since 1970."""
    try:
        return float(dict(step.dimensions)["began"])
    except (KeyError, ValueError):  # of a handler that makes up its own
        return time.time() - step.value


def _failed(spans: Iterable[Span], error: BaseException) -> None:
    if not isinstance(error, (asyncio.CancelledError, GeneratorExit)):  # callers that left are no fault of the worker
        for span in spans:
            fail(span, error)


def _end(spans: Sequence[Span], answers: Sequence[Answer]) -> None:
    for index, span in enumerate(spans):
        if index < len(answers):
            answer = answers[index]
            span.set_attribute("marway.status", answer.status)
            if answer.kind == "error" and answer.status >= 500:
                span.set_status(Status(StatusCode.ERROR, f"the handler failed with status {answer.status}"))
        span.end()


class LoadTraces:
    """Tells of loads: within the trace of a request that waits for one, where there is such, else in its own.

    Args:
        traces: Begins spans.
        pod: This pod's name.
    """

    def __init__(self, traces: Traces, pod: str) -> None:
        self._traces = traces
        self._pod = pod

    def ended(self, entry: Entry, ends: Mapping[str, float], outcome: str, error: BaseException | None) -> None:
        """Tell of a load that is over.

        Args:
            entry: The version's.
            ends: When it began and when each phase ended, on the monotonic clock, in their order.
            outcome: As metrics count it.
            error: Why there is no version.
        """
        offset = time.time() - time.monotonic()
        record = entry.record
        span = self._traces.begin(
            "load",
            _parent_of(entry),
            at=offset + ends["began"],
            attributes={
                "marway.pod": self._pod,
                "marway.model": record.name,
                "marway.version": record.version,
                "marway.outcome": outcome,
            },
        )
        times = [*ends.items()]
        for (_, began), (phase, end) in pairwise(times):
            self._traces.past(f"load {phase}", span, offset + began, offset + end)
        if error is not None:
            fail(span, error)
        span.end()


def _parent_of(entry: Entry) -> Mapping[str, str]:
    """Return the trace context of a request that waits for a version, and whose spans are kept; empty without one."""
    for job in entry.scheduler.jobs:
        headers = job.rows[0].headers
        if sampled(headers):
            return {name: headers[name] for name in (TRACEPARENT, TRACESTATE) if name in headers}
    return {}
