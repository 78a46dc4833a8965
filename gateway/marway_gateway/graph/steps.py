"""The calls that a graph makes: each a prediction of its own, through the one pipeline, with a report of its own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol, TypeVar

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
from marway.graphs import takes_tensors
from marway.refs import TENSOR_BACKENDS
from marway.wire import headers as wire
from marway.wire.envelope import ROWS_CONTENT_TYPE, decode_answers, mime_type
from marway_gateway.graph.messages import Message, Unreadable, failure_of, message_of_answer, message_of_reply
from marway_gateway.graph.tensors import Body, asks_for_some, request_of
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.graph_report import EARLY_S, GraphReport, Step
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_gateway.predict.call import Answer, PredictCall, Predicts, shaped
from marway_gateway.traffic.assignment import sticky_key
from marway_http.tensors.requests import prepare, rendered
from marway_http.tensors.rows import JSON, OCTETS
from marway_http.tensors.v2_json import read_infer
from marway_http.tensors.v2_to_message import HEADER_LENGTH

__all__ = ["NOT_BEGUN", "Convert", "Means", "StepFailed", "Steps", "named"]

T = TypeVar("T")

_CONTENT_TYPE: Final = "content-type"
_NOT_PASSED: Final = frozenset({_CONTENT_TYPE, HEADER_LENGTH, wire.STREAM})
"""Headers of a graph's call that are not its nodes': what its body is, and in which form its answer is wanted."""
_BYTES: Final = 8
NOT_BEGUN: Final = (NoPodAvailable, ModelLoading, Overloaded, RegistryUnavailable)
"""After these nobody has begun on the work, so that asking again cannot do it twice."""


class Convert(Protocol):
    """Runs a function on a body: `marway_gateway.conversion.converters.Converters.run`."""

    async def __call__(self, size: int, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Return what a function, which works on ``size`` bytes, returns."""


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


class Means(NamedTuple):
    """What the calls of all graphs share.

    Attributes:
        telemetry: Told of each.
        convert: Reads and writes bodies, large ones elsewhere.
        max_bytes: Most bytes of a body.
    """

    telemetry: Telemetry
    convert: Convert
    max_bytes: int


class Steps:
    """Makes the calls of one call of a graph.

    Args:
        predictor: Makes predict calls.
        means: What the calls of all graphs share.
        call: The graph's own.
        graph: Its name.
        report: What became of nodes.

    Attributes:
        depth: How many graphs its calls are within.
        path: What stands in front of a node's name, from the graph that was called first.
    """

    def __init__(self, predictor: Predicts, means: Means, call: PredictCall, graph: str, report: GraphReport) -> None:
        step = call.step
        self.depth = 1 if step is None else step.depth + 1
        self.path = "" if step is None else f"{step.node}/"
        self.report = report
        self._predictor = predictor
        self._telemetry, self._convert, self._max_bytes = means
        self._call = call
        self._graph = graph
        self._headers = {name: value for name, value in call.headers.items() if name not in _NOT_PASSED}

    async def ask(self, node: str, model: str, selector: str, given: Message, deadline: Deadline) -> Message:
        """Return what a version answers.

        Raises:
            StepFailed: It did not, or with an error's status.
        """
        path, info = self.path + node, self._info(node, model, selector)
        self._telemetry.predicting(info, "graph", observed=self._call.info.prediction_id is not None)
        try:
            return await self._ask(info, path, model, selector, given, deadline)
        except MarwayError as exc:
            info.failed(exc)
            asked = f"{model}/{selector}" if info.model is None else f"{info.model} {info.version}"
            raise StepFailed(named(exc, node, asked), again=_may_help(exc, info)) from exc
        except Unreadable as exc:
            error = ModelError(f"a part of what it is given {exc}")
            info.failed(error)
            raise StepFailed(named(error, node, f"{model}/{selector}")) from exc
        except asyncio.CancelledError:
            info.outcome = "timeout" if deadline.left_s() < EARLY_S else "cancelled"
            self.report.cancelled(path)
            raise
        finally:
            self._telemetry.finish(info)
            if info.model is not None:
                self.report.asked(path, f"{info.model} {info.version}")

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
        data, own_headers, parent = given.data, given.headers, self._call
        info.input_media = own_headers.get("content-type")
        info.request_bytes = len(data)
        call = PredictCall(
            model,
            selector,
            {**self._headers_of(info), **own_headers},
            deadline,
            info,
            RequestBody.opened(data, max_bytes=self._max_bytes),
            fresh=parent.fresh,
            divides=parent.divides and wire.PRIORITY not in self._headers,
            step=Step(self.depth, path, self.report),
        )
        if given.tensors:
            return await shaped(lambda: self._ask_tensors(call, given, data))
        return await self._message(await self._predictor.predict(call), info, rows=given.row is not None)

    def _headers_of(self, info: RequestInfo) -> dict[str, str]:
        """Return the headers of a call: the graph's, and where it is traced its own trace context."""
        return self._headers if info.span is None else {**self._headers, **info.ids.headers()}

    async def _ask_tensors(self, call: PredictCall, given: Message, data: bytes) -> Message:
        """Return the answer to a request of tensors: whole to a server that takes them, else as rows."""
        resolved = call.resolved or await self._predictor.resolve(call)
        record, length = resolved.record, given.header_length
        if record.backend in TENSOR_BACKENDS or takes_tensors(record):
            of_json = len(data) if length is None else length
            call.headers = {**call.headers, _CONTENT_TYPE: JSON if length is None else OCTETS}
            call.headers[HEADER_LENGTH] = str(of_json)
            call.sequence = self._call.sequence
            return await self._message(await self._predictor.predict(call), call.info, rows=False)
        text = None if length is None else str(length)
        envelope, count, reading = await self._convert(len(data), prepare, read_infer, data, text, resolved)
        call.body = RequestBody.opened(envelope, max_bytes=self._max_bytes)
        call.headers = {**self._headers_of(call.info), _CONTENT_TYPE: ROWS_CONTENT_TYPE}
        call.rendering = reading.render, count
        answer = await self._predictor.predict(call)
        came = await self._whole(answer, call.info)
        body, content = await self._convert(len(came), rendered, reading.render, came, count, record)
        kinds = dict(content)
        length_text = kinds.get(HEADER_LENGTH)
        return Message(
            body,
            content_type=kinds.get(_CONTENT_TYPE),
            header_length=None if length_text is None else int(length_text),
        )

    async def tensors(
        self, before: Message, names: Mapping[str, str] | None, request: Message, *, whole: bool, last: bool
    ) -> Message:
        """Return what a node without an expression is given: the message before it, or tensors of that.

        Args:
            before: What was answered before, or the graph's request.
            names: Which tensors become which inputs; None: the message goes on as it is.
            request: The graph's request.
            whole: Whether that is a message of the Open Inference Protocol.
            last: Whether what is answered is the graph's answer.

        Raises:
            InvalidRequest, ModelError: As `request_of`.
        """
        own = whole and before is request
        if names is None and not own:
            return before
        body: Body = before.data, before.header_length
        text = body[0] if body[1] is None else body[0][: body[1]]
        if names is not None or (not last and asks_for_some(text)):
            asked = (request.data, request.header_length) if whole else None
            body = await self._convert(len(text), request_of, None if own else body, names, asked, last=last)
        message = Message(body[0], content_type=JSON if body[1] is None else OCTETS, header_length=body[1])
        message.tensors = True
        return message

    def side(self, node: str, weights: Mapping[str, float], sticky: str) -> str:
        """Return which of several nodes a splitter takes for this request: the same on every gateway."""
        info = self._call.info
        key = sticky_key(sticky, request_id=info.request_id, group_id=info.group_id, header=info.header_or_metadata)
        digest = blake2b(f"{self._graph}\0{node}\0{key}".encode(), digest_size=_BYTES).digest()
        point = int.from_bytes(digest, "big") / (1 << 8 * _BYTES) * sum(weights.values())
        for name in sorted(weights):  # however the document writes them
            point -= weights[name]
            if point < 0:
                return name
        return max(weights)  # what adding floats has lost

    async def _whole(self, answer: Answer, info: RequestInfo) -> bytes:
        """Return all of an answer, and note it."""
        data = await answer.whole(
            max_bytes=self._max_bytes, too_large=f"the answer has more than {self._max_bytes} bytes"
        )
        reply = answer.reply
        info.status, info.response_bytes = reply.status, len(data)
        if info.observe == "bodies":
            info.output, info.output_headers = data, reply.header_block.text
        return data

    async def _message(self, answer: Answer, info: RequestInfo, *, rows: bool) -> Message:
        """Return an answer as a message.

        Raises:
            ModelError: It has an error's status.
            MarwayError: It is too large, or broke off.
        """
        data = await self._whole(answer, info)
        message = message_of_reply(answer.reply, data)
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
