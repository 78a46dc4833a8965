"""The calls that a graph makes: each a prediction of its own, through the one pipeline, with a report of its own."""

from __future__ import annotations

import asyncio
import copy
from typing import Final

from marway.deadline import Deadline
from marway.errors import (
    DeadlineExceeded,
    MarwayError,
    ModelError,
    ModelLoading,
    NoPodAvailable,
    Overloaded,
    RegistryUnavailable,
    Unavailable,
)
from marway.wire import headers as wire
from marway.wire.envelope import ROWS_CONTENT_TYPE, decode_answers, mime_type
from marway_gateway.graph.messages import Message, failure_of, message_of_answer, message_of_reply
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.graph_report import GraphReport, Step
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_gateway.predict.call import Answer, PredictCall, Predicts
from marway_http.tensors.v2_to_message import HEADER_LENGTH

__all__ = ["NOT_BEGUN", "StepFailed", "Steps", "named"]

_OF_BODIES: Final = frozenset({"content-type", HEADER_LENGTH})
NOT_BEGUN: Final = (NoPodAvailable, ModelLoading, Overloaded, RegistryUnavailable)
"""After these nobody has begun on the work, so that asking again cannot do it twice."""


class StepFailed(Exception):
    """A node failed.

    Attributes:
        error: Its error, which names the node.
        again: Whether another try may help, and does no harm.
    """

    def __init__(self, error: MarwayError, *, again: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again


def named(error: MarwayError, node: str, asked: str | None = None) -> MarwayError:
    """Return an error as one of a node: of the same kind, and its message names the node and who was asked."""
    new = copy.copy(error)
    if error.node is not None:
        new.node = f"{node}/{error.node}"
        message = error.message.replace(f"node {error.node}", f"node {new.node}", 1)
    else:
        new.node = node
        if error.model is not None and error.version is not None:
            asked = f"{error.model} {error.version}"
        message = f"node {node}{'' if asked is None else f' ({asked})'}: {error.message}"
    new.message = message
    new.args = (message,)
    return new


class Steps:
    """Makes the calls of one call of a graph.

    Args:
        predictor: Makes predict calls.
        telemetry: Told of each.
        call: The graph's own.
        report: What became of nodes.
        max_bytes: Most bytes of a body.

    Attributes:
        depth: How many graphs its calls are within.
        path: What stands in front of a node's name, from the graph that was called first.
    """

    def __init__(
        self, predictor: Predicts, telemetry: Telemetry, call: PredictCall, report: GraphReport, *, max_bytes: int
    ) -> None:
        step = call.step
        self.depth = 1 if step is None else step.depth + 1
        self.path = "" if step is None else f"{step.node}/"
        self.report = report
        self._predictor = predictor
        self._telemetry = telemetry
        self._call = call
        self._max_bytes = max_bytes
        self._headers = {name: value for name, value in call.headers.items() if name not in _OF_BODIES}

    async def ask(self, node: str, model: str, selector: str, given: Message, deadline: Deadline) -> Message:
        """Return what a version answers.

        Raises:
            StepFailed: It did not, or with an error's status.
        """
        path, info = self.path + node, self._info(node, model, selector)
        self.report.began(path)
        self._telemetry.predicting(info, "graph", observed=self._call.info.prediction_id is not None)
        try:
            return await self._ask(info, path, model, selector, given, deadline)
        except MarwayError as exc:
            info.failed(exc)
            raise StepFailed(named(exc, node), again=_may_help(exc, info)) from exc
        except asyncio.CancelledError:
            info.outcome = "timeout" if deadline.passed else "cancelled"
            raise
        finally:
            self._telemetry.finish(info)
            asked = None if info.model is None else f"{info.model} {info.version}"
            self.report.ended(path, asked)

    def _info(self, node: str, model: str, selector: str) -> RequestInfo:
        """Return what is known of a call at its beginning: it has the ids of the request, and its caller's headers."""
        parent = self._call.info
        info = RequestInfo(method=parent.method, path=f"/predict/{model}/{selector}", ids=parent.ids)
        info.client, info.headers, info.metadata = parent.client, parent.headers, parent.metadata
        info.graph, info.node = parent.prediction_id, node
        if parent.role in wire.PRIORITIES:
            info.role = parent.role
        return info

    async def _ask(
        self, info: RequestInfo, path: str, model: str, selector: str, given: Message, deadline: Deadline
    ) -> Message:
        data, parent = given.data, self._call
        said = given.headers
        info.input_media = said.get("content-type")
        info.request_bytes = len(data)
        call = PredictCall(
            model,
            selector,
            {**self._headers, **said},
            deadline,
            info,
            RequestBody.opened(data, max_bytes=self._max_bytes),
            fresh=parent.fresh,
            divides=parent.divides and wire.PRIORITY not in self._headers,
            step=Step(self.depth, path, self.report),
        )
        answer = await self._predictor.predict(call)
        return await self._message(answer, info, rows=given.row is not None)

    async def _message(self, answer: Answer, info: RequestInfo, *, rows: bool) -> Message:
        """Return an answer as a message.

        Raises:
            ModelError: It has an error's status.
            MarwayError: It is too large, or broke off.
        """
        data = await answer.whole(
            max_bytes=self._max_bytes, too_large=f"the answer has more than {self._max_bytes} bytes"
        )
        reply = answer.reply
        info.status, info.response_bytes = reply.status, len(data)
        if info.observe == "bodies":
            info.output, info.output_headers = data, reply.header_block.text
        message = message_of_reply(reply, data)
        if rows and mime_type(message.content_type) == ROWS_CONTENT_TYPE:
            try:
                (one,) = decode_answers(data)
            except ValueError as exc:
                raise MarwayError(f"the pod's answer to a row cannot be read: {exc}") from exc
            message = message_of_answer(one)
        failure = failure_of(message, model=info.model, version=info.version)
        if failure is not None:
            raise failure
        return message


def _may_help(error: MarwayError, info: RequestInfo) -> bool:
    """Return whether a node that failed so may be tried again: not where it is its caller's fault, nor work twice."""
    if info.serving is not None and not info.serving.retry_rows and not isinstance(error, NOT_BEGUN):
        return False
    if isinstance(error, ModelError):
        return error.status >= 500
    return isinstance(error, (Unavailable, DeadlineExceeded)) or type(error) is MarwayError
