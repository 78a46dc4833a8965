"""Answers calls of graphs, in the place of a pod: what the gateway's one pipeline does with records that are graphs."""

from __future__ import annotations

import asyncio
import time

from marway.errors import BodyTooLarge, DeadlineExceeded, InvalidGraph, ModelError, Unavailable, Unimplemented
from marway.graphs.checking import DEPTH_MAX
from marway.resolve.resolved import Resolved
from marway.wire.headers import DESCRIBE, EXPLAIN, GRAPH, Outcome
from marway.wire.model_run import ModelRun
from marway_gateway.graph.documents import Documents, Plan
from marway_gateway.graph.messages import Message, Unreadable
from marway_gateway.graph.running import Run
from marway_gateway.graph.steps import NOT_BEGUN, StepFailed, Steps
from marway_gateway.observe.graph_report import GraphReport
from marway_gateway.observe.telemetry import Telemetry
from marway_gateway.predict.call import CandidateLost, PredictCall, Predicts
from marway_gateway.transport.reply import Reply
from marway_http.eager import in_task
from marway_http.tensors.v2_to_message import HEADER_LENGTH

__all__ = ["Graphs"]


class Graphs:
    """Runs graphs.

    Args:
        documents: Gives their documents.
        telemetry: Told of each call that a graph makes.
        max_bytes: Most bytes of a request, and of an answer.
    """

    def __init__(self, documents: Documents, telemetry: Telemetry, *, max_bytes: int) -> None:
        self.documents = documents
        self._telemetry = telemetry
        self._max_bytes = max_bytes

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
        report = GraphReport(self._telemetry.metrics.graph_node_duration) if step is None else step.report
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
            if step is not None or not call.deadline.passed or not report.running:
                raise
            # The scope around lets this pass in the place of its own, which knows of no nodes.
            error = DeadlineExceeded(
                f"the request's deadline of {call.deadline.timeout_s:g} s passed: node {report.running} had not "
                "answered",
                model=record.name,
                version=record.version,
            )
            error.node = report.running.partition(",")[0]
            raise error from None
        finally:
            if step is None:
                info.steps = report.timings()
                notes = report.notes()
                if notes:
                    info.notes = (*info.notes, (GRAPH, notes))

    async def _answer(self, predictor: Predicts, call: PredictCall, resolved: Resolved, report: GraphReport) -> Reply:
        record = resolved.record
        steps = Steps(predictor, self._telemetry, call, report, max_bytes=self._max_bytes)
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
        answer = await self._run(plan, call, resolved, steps, data)
        try:
            body = answer.data
        except Unreadable as exc:
            raise ModelError(f"a node's answer {exc}, and so cannot be a part of the graph's") from exc
        return Reply(answer.status, Outcome.ANSWERED, None, answer.reply_block(), body, len(body))

    async def _run(self, plan: Plan, call: PredictCall, resolved: Resolved, steps: Steps, data: bytes) -> Message:
        length = call.headers.get(HEADER_LENGTH)
        request = Message(
            data,
            content_type=call.headers.get("content-type"),
            header_length=int(length) if length is not None and length.isdigit() else None,
        )
        graph = resolved.record.name, resolved.record.version
        return await Run(plan, graph, request, steps, call.deadline).answer()

    async def _whole(self, call: PredictCall) -> bytes:
        """Return the request's body: nodes are given it more than once, so it is held in memory, within the limit."""
        body = call.body
        if body.whole is not None:
            return body.whole
        data = b"".join([piece async for piece in body.stream()])
        if len(data) > self._max_bytes:
            raise BodyTooLarge(f"the body has more than {self._max_bytes} bytes")
        return data
