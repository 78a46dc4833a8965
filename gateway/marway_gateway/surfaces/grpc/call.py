"""What predict calls over gRPC share: ids and deadline in, ids and timings out, errors as status codes, one report."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final, NoReturn, cast
from urllib.parse import unquote

import grpc
import grpc.aio

from marway.deadline import Deadline
from marway.errors import MarwayError, ModelError, clip
from marway.resolve.resolved import Resolved
from marway.wire import headers as wire
from marway.wire.problems import problem_of
from marway.wire.request import RequestIds, correlation_id, read_ids, timeout_of
from marway_gateway.gateway import Gateway
from marway_gateway.http.body import RequestBody
from marway_gateway.http.requests import model_headers
from marway_gateway.observe.open_inference_json import media_type
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.predict.cache import forbids_cache
from marway_gateway.predict.call import Answer, PredictCall
from marway_gateway.predict.cancel_scope import CancelScope
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.grpc.interceptors import token_owner
from marway_gateway.surfaces.grpc.status import code_of
from marway_gateway.surfaces.priority import gives_way
from marway_gateway.surfaces.row_calls import predict_rows
from marway_http.tensors.requests import ReadRequest, Rendered
from marway_http.tensors.v2_to_message import HEADER_LENGTH
from marway_http.tracebacks import forget_frames

__all__ = ["DETAILS_MAX", "GrpcCall", "predict_rpc", "refused_rpcs"]

DETAILS_MAX: Final = 1000
"""Characters of an error's message that travel: they go as a header, and clients bound those."""
_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class GrpcCall:
    """One predict call over gRPC, as `predict_rpc` opens it.

    Attributes:
        info: What is known of it.
    """

    def __init__(self, gateway: Gateway, call: PredictCall, cancel_scope: CancelScope) -> None:
        self.info = call.info
        self._gateway = gateway
        self._call = call
        self._cancel_scope = cancel_scope

    async def resolve(self, name: str, selector: str | None) -> Resolved:
        """Return what a name and a selector stand for; what is asked then is that.

        Raises:
            InvalidReference, NotFound: There is no such version.
            RegistryUnavailable: The registry does not answer.
        """
        if self.info.fallback is None:  # else it is that one's, which the call names
            self._call.name, self._call.selector = name, selector
        return await self._gateway.predictor.resolve(self._call)

    async def predict(
        self,
        name: str,
        selector: str | None,
        body: bytes,
        *,
        content_type: str,
        more_headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Answer:
        """Make the predict call; the caller of this reads the answer to its end, or closes it.

        ``more_headers`` go to the pod beside its own.

        Raises:
            ModelError: The model answered with an error status.
            MarwayError: As `Predictor.predict`.
        """
        self._call.name, self._call.selector = name, selector
        answer = await self.ask(body, {"content-type": content_type, **more_headers})
        if answer.reply.status < 400:
            return answer
        message = clip((await self.whole(answer)).decode(errors="replace"), DETAILS_MAX)
        raise ModelError(message, status=answer.reply.status, model=self.info.model, version=self.info.version)

    async def ask(self, body: bytes, headers: Mapping[str, str], *, sequence: str | None = None) -> Answer:
        """Make the predict call with further headers, and return the answer whatever its status.

        Args:
            body: What the model is given.
            headers: Names in lower case.
            sequence: As `PredictCall` has it.

        Raises:
            MarwayError: As `Predictor.predict`.
        """
        call = self._with(body)
        call.headers, call.sequence = {**call.headers, **headers}, sequence
        kind, length = headers.get("content-type"), headers.get(HEADER_LENGTH)
        self.info.input_media = kind if kind is None or length is None else media_type(kind, length)
        try:
            return await self._gateway.predictor.predict(call)
        finally:
            self.info.request_bytes = call.body.size

    async def predict_rows(self, body: bytes, read: ReadRequest) -> Rendered:
        """Make the predict call for several rows; as `marway_gateway.surfaces.row_calls.predict_rows`."""
        return await predict_rows(self._gateway, self._with(body), self._cancel_scope, read)

    def _with(self, body: bytes) -> PredictCall:
        self._call.body = RequestBody.of(body, max_bytes=self._gateway.settings.max_body_bytes)
        return self._call

    async def whole(self, answer: Answer) -> bytes:
        """Return all of an answer, and let go of its pod.

        Raises:
            MarwayError: It is larger than a message may be, or broke off.
        """
        limit = self._gateway.settings.max_body_bytes
        data = await answer.whole(
            max_bytes=limit,
            too_large=f"the model's answer has more than {limit} bytes: call it over HTTP, where answers stream",
        )
        self.answered(data, answer.reply.header_block.text)
        return data

    def answered(self, data: bytes, headers: bytes) -> None:
        """Say what the caller gets, and the lines of its headers, where that is to be kept."""
        if self.info.observe == "bodies":
            self.info.output, self.info.output_headers = data, headers


@asynccontextmanager
async def predict_rpc(
    gateway: Gateway,
    context: Context,
    *,
    method: str,
    surface: str,
    details: Callable[[MarwayError], str] = lambda error: clip(error.message, DETAILS_MAX),
    within: bool = False,
) -> AsyncIterator[GrpcCall]:
    """Open one predict call for as long as the context lasts, and report it at its end.

    Request ids, group ids and W3C trace context come in as metadata under their HTTP names; ids, model and timings go
    out as trailing metadata. An error inside ends the call with its status code.

    Args:
        gateway: Its parts.
        context: gRPC's.
        method: Full name, for the access log.
        surface: The predict protocol, for metrics.
        details: Gives an error's words to the caller.
        within: Whether it is one of several predictions within one call, which an error does not end: it is raised.
    """
    metadata = {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    info = RequestInfo(method="POST", path=method, ids=read_ids(metadata.get))
    info.metadata = metadata
    info.client = client = token_owner() or _address(context.peer())
    gateway.telemetry.predicting(info, surface)
    failure: MarwayError | None = None
    try:
        to_pod, priority = _to_pod(info.ids, client), metadata.get(wire.PRIORITY)
        if priority is not None:
            gives_way(info, priority, to_pod)
        call = PredictCall(
            name="",
            selector=None,
            headers=to_pod,
            deadline=Deadline.after(_timeout_s(gateway.settings, context, metadata.get(wire.REQUEST_TIMEOUT_MS))),
            info=info,
            body=RequestBody.opened(b"", max_bytes=0),
            fresh=forbids_cache(metadata.get("cache-control")),
            divides=priority is None,
        )
        with gateway.predictor.scope(call) as cancel_scope:
            yield GrpcCall(gateway, call, cancel_scope)
        info.status = grpc.StatusCode.OK.name
        context.set_trailing_metadata(_trailers(info))
    except asyncio.CancelledError:
        info.outcome, info.status = "cancelled", grpc.StatusCode.CANCELLED.name
        raise
    except MarwayError as exc:
        failure = exc
    except Exception:
        fields = {"request_id": info.request_id, "method": method}
        _log.exception("request %s failed unexpectedly", info.request_id, extra={"fields": fields})
        failure = MarwayError(f"something went wrong in the gateway; its log has it under request {info.request_id}")
    finally:
        if failure is not None:
            info.failed(failure)
            info.status = code_of(failure).name
        gateway.telemetry.finish(info)
    if failure is not None and within:
        raise failure
    if failure is not None:
        forget_frames(failure)
        _, headers = problem_of(failure)
        # Reported above, because this waits for a client that may not read.
        await context.abort(code_of(failure), details(failure), (*_trailers(info), *headers.items()))


def _timeout_s(settings: GatewaySettings, context: Context, timeout_ms: str | None) -> float:
    """Return the seconds until the caller's deadline: gRPC's own, or the metadata's where that is earlier.

    Raises:
        InvalidRequest: The metadata names no deadline that can be one.
    """
    left = cast("float | None", context.time_remaining())  # None without a deadline, whatever the stubs say
    default_s = settings.default_timeout_s if left is None else left
    asked = timeout_of(timeout_ms, default_s=default_s, max_s=settings.max_timeout_s)
    return asked if left is None else min(left, asked)


def _address(peer: str) -> str:
    """Return a caller's address from gRPC's words, as `ipv4:10.0.0.1:4242` or `ipv6:%5B::1%5D:4242`, as HTTP has it."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")


def _to_pod(ids: RequestIds, client: str) -> dict[str, str]:
    """Return the headers of ids and trace, and who asks."""
    headers = ids.headers()
    if ids.group_id is None and correlation_id(client):
        headers[wire.CLIENT] = client
    return headers


def _trailers(info: RequestInfo) -> tuple[tuple[str, str], ...]:
    ids = [(wire.REQUEST_ID, info.request_id)]
    if info.group_id is not None:
        ids.append((wire.REQUEST_GROUP_ID, info.group_id))
    if info.prediction_id is not None:
        ids.append((wire.PREDICTION_ID, info.prediction_id))
    return (*ids, *model_headers(info))


def refused_rpcs(service: str, methods: Mapping[str, str]) -> grpc.GenericRpcHandler[Any, Any]:
    """Return methods of other servers that are refused as not implemented, each with what its callers are told.

    Reflection leaves these methods out: it names what is served.
    """

    def refusing(message: str) -> Callable[[Any, Context], Awaitable[NoReturn]]:
        async def refuse(_: Any, context: Context) -> NoReturn:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, message)

        return refuse

    # As of methods that stream, so that none is read, whatever a call carries.
    handlers = {name: grpc.stream_stream_rpc_method_handler(refusing(message)) for name, message in methods.items()}
    return grpc.method_handlers_generic_handler(service, handlers)
