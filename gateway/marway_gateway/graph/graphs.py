"""Answers calls of graphs, in the place of a pod: what the gateway's one pipeline does with records that are graphs."""

from __future__ import annotations

import asyncio
import copy
import time
from functools import partial
from typing import Final

from marway.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidGraph,
    MarwayError,
    ModelError,
    Unavailable,
    Unimplemented,
)
from marway.graphs.checking import DEPTH_MAX
from marway.records import VersionRecord
from marway.resolve.resolved import Resolved
from marway.wire.envelope import ROWS_CONTENT_TYPE, decode_rows, encode_answers, mime_type
from marway.wire.headers import DESCRIBE, EXPLAIN, GRAPH, Outcome
from marway.wire.model_run import ModelRun
from marway_gateway.graph.documents import Documents, Plan
from marway_gateway.graph.messages import Message, Unreadable, answer_of
from marway_gateway.graph.running import Run
from marway_gateway.graph.side_by_side import settled
from marway_gateway.graph.steps import NOT_BEGUN, Means, StepFailed, Steps
from marway_gateway.graph.tables.lookups import Lookups
from marway_gateway.observe.graph_report import GraphReport
from marway_gateway.predict.call import CandidateLost, PredictCall, Predicts
from marway_gateway.transport.reply import Reply
from marway_http.eager import in_task
from marway_http.tensors.rows import JSON, OCTETS
from marway_http.tensors.v2_to_message import HEADER_LENGTH
from marway_http.tensors.v2_to_rest import with_names

__all__ = ["Graphs"]

_ROWS_AT_ONCE: Final = 16
"""Rows of one request that a graph runs for side by side: what its models take at once is theirs to say."""


class Graphs:
    """Runs graphs.

    Args:
        documents: Gives their documents.
        means: What the calls that they make share.
        lookups: Reads tables for them.
    """

    def __init__(self, documents: Documents, means: Means, lookups: Lookups) -> None:
        self.documents = documents
        self._means = means
        self._lookups = lookups

    async def answer(self, predictor: Predicts, call: PredictCall, resolved: Resolved) -> Reply:
        """Return a graph's answer; nothing of it runs on when this ends, however it does.

        Raises:
            InvalidGraph: It is in more graphs than may be, or its archive holds none.
            Unimplemented: It was to explain or describe.
            DeadlineExceeded: The deadline passed; the message says which nodes had not answered.
            CandidateLost: It is for a candidate, of which a node found nobody to answer; the base may.
            MarwayError: A node failed; the message and the error's `node` name it.
        """
        await in_task()  # nodes have time-outs, and run side by side
        step, info, record = call.step, call.info, resolved.record
        report = step.report if step is not None else self._report(call)
        began = time.perf_counter()
        try:
            reply = await self._answer(predictor, call, resolved, report)
            # All of it is the model's work to whoever compares two versions by how long they take.
            info.run = ModelRun(None, time.perf_counter() - began, None, None).header().encode()
            return reply
        except StepFailed as exc:
            if call.base is not None and info.assignment is not None and isinstance(exc.error, Unavailable):
                info.assignment.failed = not isinstance(exc.error, NOT_BEGUN)
                raise CandidateLost from exc
            raise exc.error from exc.__cause__
        except asyncio.CancelledError:
            late = ", ".join(report.late)
            if step is not None or not late:
                raise
            # The scope around lets this pass in the place of its own, which knows of no nodes.
            error = DeadlineExceeded(
                f"the request's deadline of {call.deadline.timeout_s:g} s passed: node {late} had not answered",
                model=record.name,
                version=record.version,
            )
            error.node = next(iter(report.late))
            raise error from None
        finally:
            if step is None:
                info.steps = report.timings()
                notes = report.notes()
                if notes:
                    info.notes = (*info.notes, (GRAPH, notes))

    def _report(self, call: PredictCall) -> GraphReport:
        telemetry, info = self._means.telemetry, call.info
        span = None if info.span is None or telemetry.traces is None else partial(telemetry.traces.node, info)
        return GraphReport(telemetry.metrics.graph_node_duration, call.deadline, span)

    async def _answer(self, predictor: Predicts, call: PredictCall, resolved: Resolved, report: GraphReport) -> Reply:
        record = resolved.record
        steps = Steps(predictor, self._means, call, record.name, report)
        if steps.depth > DEPTH_MAX:
            raise InvalidGraph(
                f"{record.name} {record.version} lies {steps.depth} graphs deep; {DEPTH_MAX} is most: does a label "
                "lead back to a graph that asks for it?",
                model=record.name,
                version=record.version,
            )
        for header, what in ((EXPLAIN, "explanations"), (DESCRIBE, "description of its own")):
            if header in call.headers:
                raise Unimplemented(
                    f"{record.name} {record.version} is a graph, which has no {what}: ask the models of its nodes",
                    model=record.name,
                    version=record.version,
                )
        plan = await self.documents.plan(record)
        data = await self._whole(call)
        try:
            answer = await self._run(plan, call, resolved, steps, data)
            body = answer.data
            if plan.graph.protocol == "open-inference" and answer.block is not None:
                answer, body = await self._named(answer, body, record)
        except Unreadable as exc:
            raise ModelError(f"a node's answer {exc}, and so cannot be a part of the graph's") from exc
        return Reply(answer.status, Outcome.ANSWERED, None, answer.reply_block(), body, len(body))

    async def _run(self, plan: Plan, call: PredictCall, resolved: Resolved, steps: Steps, data: bytes) -> Message:
        """Return what a graph answers to a request, of which each row is one of its own where it is of rows."""
        record = resolved.record
        graph, lookups, deadline = (record.name, record.version), self._lookups, call.deadline
        content_type = call.headers.get("content-type")
        if mime_type(content_type) != ROWS_CONTENT_TYPE:
            length = call.headers.get(HEADER_LENGTH)
            header_length = int(length) if length is not None and length.isdigit() else None
            request = Message(data, content_type=content_type, header_length=header_length)
            return await Run(plan, graph, request, steps, lookups, deadline).answer()
        rows = decode_rows(data)
        answers: dict[int, Message] = {}

        def take(index: int, came: Message | StepFailed) -> bool:
            if isinstance(came, StepFailed):
                raise came if len(rows) == 1 else _of_row(came, index)
            answers[index] = came
            return False

        running = {
            index: Run(plan, graph, Message(row=row), steps, lookups, deadline).answer()
            for index, row in enumerate(rows)
        }
        await settled(running, take, at_once=_ROWS_AT_ONCE)
        envelope = encode_answers([answer_of(answers[index]) for index in range(len(rows))])
        return Message(envelope, content_type=ROWS_CONTENT_TYPE)

    async def _named(self, answer: Message, body: bytes, record: VersionRecord) -> tuple[Message, bytes]:
        """Return an answer of tensors under the graph's name, in the place of the model's that made it."""
        length = answer.header_length
        try:
            named = await self._means.convert(
                len(body) if length is None else length,
                with_names,
                body,
                length,
                name=record.name,
                version=record.version,
            )
        except MarwayError:
            return answer, body  # a model's own, which is none of the protocol
        kind = JSON if named.header_length is None else OCTETS
        message = Message(named.body, content_type=kind, header_length=named.header_length, status=answer.status)
        return message, named.body

    async def _whole(self, call: PredictCall) -> bytes:
        """Return the request's body: nodes are given it more than once, so it is held in memory, within the limit."""
        body = call.body
        if body.whole is not None:
            return body.whole
        data = b"".join([piece async for piece in body.stream()])
        if len(data) > self._means.max_bytes:
            raise BodyTooLarge(f"the body has more than {self._means.max_bytes} bytes")
        return data


def _of_row(failed: StepFailed, index: int) -> StepFailed:
    """Return a failure that says which row of the request it was."""
    error = copy.copy(failed.error)
    error.message = f"row {index}: {error.message}"
    error.args = (error.message,)
    return StepFailed(error, again=failed.again)
