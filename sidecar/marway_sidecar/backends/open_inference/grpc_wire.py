"""Over gRPC. Predictions are bytes both ways: a request is written from its REST form with its tensors copied once, and
a response is read without parsing them (`marway_http.tensors.v2_to_message`, `v2_to_rest`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, NoReturn

import grpc

from marway.deadline import Deadline
from marway.errors import MarwayError, ModelError, RuntimeDown, clip
from marway_http.message_fields import parted
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.v2_parameters import OutputForms
from marway_http.tensors.v2_to_message import message_of_request
from marway_http.tensors.v2_to_rest import RestBody, error_piece, piece_of_response, rest_of_response
from marway_sidecar.backends.base import NotSent, ServedModel
from marway_sidecar.backends.open_inference.classify import HTTP_OF, classify
from marway_sidecar.backends.open_inference.proto import repository_pb2 as rb
from marway_sidecar.backends.open_inference.stacking import StackedCalls
from marway_sidecar.backends.open_inference.wire import (
    MANAGEMENT_TIMEOUT_S,
    Body,
    Configured,
    Indexed,
    Known,
    Refused,
    ServerFacts,
    Wire,
)
from marway_sidecar.errors import about

__all__ = ["GrpcWire"]

_SERVICE: Final = "/inference.GRPCInferenceService/"
_STREAMED: Final = pb.ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number
_NO_CONNECTION: Final = ("failed to connect to all addresses", "Failed to connect to remote host")
_CONNECTION: Final = ("Socket closed", "Connection reset", "recvmsg:", "GOAWAY", "Broken pipe", "keepalive")
"""In the details of a call whose connection broke, as gRPC's own client says it."""
_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),  # the server's limits count, and it says so
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_reconnect_backoff_ms", 1000),  # one that is back is to be seen soon
    ("grpc.enable_retries", 0),  # what may be tried again is decided by the gateway
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),
)


class GrpcWire(Wire):
    """Calls over one channel.

    Args:
        address: Host and port.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._infer = self._channel.unary_unary(f"{_SERVICE}ModelInfer", None, None)
        self._stream = self._channel.stream_stream(f"{_SERVICE}ModelStreamInfer", None, None)
        self.wrapped = True
        """Whether pieces come in Triton's `ModelStreamInferResponse`; MLServer sends them as they are."""
        self._left: set[asyncio.Task[None]] = set()
        self._stacks: dict[str, StackedCalls] = {}

    async def facts(self, *, timeout_s: float) -> ServerFacts:
        answer = await self._ask("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse, timeout_s)
        self.wrapped = answer.name != "mlserver"
        return ServerFacts(answer.name, answer.version, frozenset(answer.extensions))

    async def index(self, *, timeout_s: float = MANAGEMENT_TIMEOUT_S) -> Mapping[str, Sequence[Indexed]]:
        request = rb.RepositoryIndexRequest()
        answer = await self._ask("RepositoryIndex", request, rb.RepositoryIndexResponse, timeout_s)
        found: dict[str, list[Indexed]] = defaultdict(list)
        for each in answer.models:
            # MLServer says `State.READY`.
            found[each.name].append(Indexed(each.version, each.state.rpartition(".")[2], each.reason))
        return found

    async def load(self, called: str, *, timeout_s: float) -> None:
        request = rb.RepositoryModelLoadRequest(model_name=called)
        await self._ask("RepositoryModelLoad", request, rb.RepositoryModelLoadResponse, timeout_s)

    async def unload(self, called: str) -> None:
        request = rb.RepositoryModelUnloadRequest(model_name=called)
        await self._ask("RepositoryModelUnload", request, rb.RepositoryModelUnloadResponse)

    async def metadata(self, called: str, number: str) -> Mapping[str, Any] | None:
        request = pb.ModelMetadataRequest(name=called, version=number)
        try:
            answer = await self._ask("ModelMetadata", request, pb.ModelMetadataResponse)
        except Refused as exc:
            if exc.status in (400, 404, 503):
                return None
            raise
        return {
            "name": answer.name,
            "versions": list(answer.versions),
            "platform": answer.platform,
            "inputs": [_tensor(each) for each in answer.inputs],
            "outputs": [_tensor(each) for each in answer.outputs],
        }

    async def configured(self, called: str, number: str) -> Configured:
        request = rb.ModelConfigRequest(name=called, version=number)
        try:
            answer = await self._ask("ModelConfig", request, rb.ModelConfigResponse)
        except Refused:
            return Configured()
        config = answer.config
        instances = sum(max(1, each.count) for each in config.instance_group)
        return Configured(config.model_transaction_policy.decoupled, max(1, config.max_batch_size), max(1, instances))

    async def infer(self, known: Known, request: Body, deadline: Deadline) -> RestBody:
        message, forms = _message(known, request)
        rows = None
        try:
            if known.rows_max > 1:
                stacks = self._stacks.get(known.called)
                if stacks is None or stacks.known is not known:
                    stacks = self._stacks[known.called] = StackedCalls(known, self._call)
                answer, rows = await stacks.infer(message, deadline)
            else:
                answer = await self._call(message, deadline.time_left_s(model=known.model.name))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError) as exc:
            _fail(exc, known)
        response = rest_of_response(answer, forms, name=known.model.name, version=known.model.version)
        return response if rows is None else response._replace(rows=rows)

    async def _call(self, message: bytes, timeout_s: float) -> bytes:
        answer: bytes = await self._infer(message, timeout=timeout_s)
        return answer

    async def stream(self, known: Known, request: Body, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        message, forms = _message(known, request)
        call, begun, ended = None, False, False
        try:
            call = self._stream(iter((message,)), timeout=deadline.time_left_s(model=known.model.name))
            async for answer in call:
                try:
                    piece = self._piece(known, answer, forms)
                except ModelError as exc:
                    if not begun:
                        raise
                    piece = error_piece(exc.message)  # its status has been sent, and more responses may follow
                begun = True
                yield piece
            ended = True
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError) as exc:
            ended = isinstance(exc, grpc.aio.AioRpcError)
            _fail(exc, known)
        finally:
            if call is not None and not ended:
                self._leave(call)

    async def aclose(self) -> None:
        left = list(self._left)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, *(each.aclose() for each in self._stacks.values()), return_exceptions=True)
        await self._channel.close(None)

    def _leave(self, call: Any) -> None:
        """Let go of a stream that nobody reads any more.

        Triton 2.51 now and then never gives back a model of which a stream was cancelled (1 of 10 measured): there its
        pieces are read to their end, or to the call's deadline, and dropped.
        """
        if not self.wrapped:
            call.cancel()
            return
        task = asyncio.create_task(_drain(call), name="drain a stream")
        self._left.add(task)
        task.add_done_callback(self._left.discard)

    def _piece(self, known: Known, answer: bytes, forms: OutputForms) -> bytes:
        if self.wrapped:
            head, responses = parted(answer, _STREAMED)
            error = pb.ModelStreamInferResponse.FromString(head).error_message
            if error:
                raise classify(500, error, known.model, called=known.called)
            answer = bytes(responses[0]) if responses else b""
        return piece_of_response(answer, forms, name=known.model.name, version=known.model.version)

    async def _ask(self, method: str, request: Any, kind: Any, timeout_s: float = MANAGEMENT_TIMEOUT_S) -> Any:
        call = self._channel.unary_unary(f"{_SERVICE}{method}", None, None)
        try:
            return kind.FromString(await call(request.SerializeToString(), timeout=timeout_s))
        except grpc.aio.AioRpcError as exc:
            down = _down(exc)
            if down is not None:
                raise down from exc
            raise Refused(HTTP_OF.get(exc.code(), 500), exc.details() or exc.code().name) from exc
        except (grpc.aio.UsageError, asyncio.CancelledError) as exc:
            _closed(exc)


async def _drain(call: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError):
        async for _ in call:
            pass


def _message(known: Known, request: Body) -> tuple[bytes, OutputForms]:
    return message_of_request(
        request.body, request.header_length, name=known.called, version=known.number, signature=known.signature
    )


def _down(error: grpc.aio.AioRpcError) -> MarwayError | None:
    """Return the error that a call stands for which the server did not answer; None when it did."""
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RuntimeDown(f"the model server does not answer: {clip(text, 200)}")
    if code is grpc.StatusCode.UNAVAILABLE:
        if any(marker in text for marker in _NO_CONNECTION):
            return NotSent(f"the model server does not answer: {clip(text, 200)}")
        if not text or any(marker in text for marker in _CONNECTION):
            return RuntimeDown(f"the model server does not answer: {clip(text, 200)}")
    return None


def _fail(exc: BaseException, known: Known) -> NoReturn:
    """Raise the error of ours that a failed prediction stands for."""
    if isinstance(exc, grpc.aio.AioRpcError):
        code = exc.code()
        down = _down(exc) if code is grpc.StatusCode.UNAVAILABLE else None
        if down is not None:
            raise about(known.model, down) from exc
        text = exc.details() or code.name
        raise classify(HTTP_OF.get(code, 500), text, known.model, called=known.called) from exc
    _closed(exc, known.model)


def _closed(exc: BaseException, model: ServedModel | None = None) -> NoReturn:
    """Raise what it means that a call was cancelled, or its channel closed under it."""
    task = asyncio.current_task()
    if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
        raise exc  # it was the task that was cancelled, not the call that it waited for
    down = RuntimeDown("the model server went down during the call")
    raise (about(model, down) if model is not None else down) from exc


def _tensor(each: Any) -> dict[str, Any]:
    return {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
