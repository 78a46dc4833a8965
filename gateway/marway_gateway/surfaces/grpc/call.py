"""What predict calls over gRPC share: ids and deadline in, ids and timings out, errors as status codes, one report."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import grpc.aio

from marway.errors import MarwayError, ModelError, clip, forget_frames
from marway.wire import headers as wire
from marway.wire.problems import problem_of
from marway.wire.request import RequestIds, correlation_id, read_ids, timeout_of
from marway_gateway.gateway import Gateway
from marway_gateway.http.body import RequestBody
from marway_gateway.http.requests import model_headers
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.predict.cache import forbids_cache
from marway_gateway.predict.call import Answer, PredictCall
from marway_gateway.surfaces.grpc.status import code_of
from marway_gateway.surfaces.row_calls import RowCall

__all__ = ["DETAILS_MAX", "GrpcCall", "predict_rpc"]

DETAILS_MAX: Final = 1000
"""Characters of an error's message that travel: they go as a header, and clients bound those."""
_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class GrpcCall:
    """One predict call over gRPC, as `predict_rpc` opens it.

    Attributes:
        info: What is known of it.
    """

    def __init__(
        self,
        gateway: Gateway,
        context: Context,
        info: RequestInfo,
        headers: dict[str, str],
        *,
        fresh: bool,
        timeout_ms: str | None,
    ) -> None:
        self.info = info
        self._fresh = fresh
        self._timeout_ms = timeout_ms
        self._gateway = gateway
        self._context = context
        self._headers = headers

    async def predict(self, name: str, selector: str | None, body: bytes, *, content_type: str) -> Answer:
        """Make the predict call within the caller's deadline; the caller of this closes the answer.

        Raises:
            InvalidRequest: The metadata names no deadline that can be one.
            ModelError: The model answered with an error status.
            MarwayError: As `Predictor.predict`.
        """
        settings = self._gateway.settings
        timeout_s = self._timeout_s()
        call = PredictCall(
            name=name,
            selector=selector,
            body=RequestBody.of(body, max_bytes=settings.max_body_bytes),
            headers={**self._headers, "content-type": content_type},
            deadline=time.monotonic() + timeout_s,
            timeout_s=timeout_s,
            info=self.info,
            fresh=self._fresh,
        )
        answer = await self._gateway.predictor.predict(call)
        if answer.status < 400:
            return answer
        try:
            said = clip((await self.whole(answer)).decode(errors="replace"), DETAILS_MAX)
        finally:
            answer.close()
        raise ModelError(said, status=answer.status, model=self.info.model, version=self.info.version)

    def rows(self, name: str, selector: str | None) -> RowCall:
        """Return the call for a prediction of several rows, within the caller's deadline.

        Raises:
            InvalidRequest: The metadata names no deadline that can be one.
        """
        timeout_s = self._timeout_s()
        return RowCall(
            gateway=self._gateway,
            name=name,
            selector=selector,
            headers=self._headers,
            deadline=time.monotonic() + timeout_s,
            timeout_s=timeout_s,
            info=self.info,
            fresh=self._fresh,
        )

    def _timeout_s(self) -> float:
        """Return the seconds until the caller's deadline: gRPC's own, or the metadata's where that is earlier."""
        settings = self._gateway.settings
        left = cast("float | None", self._context.time_remaining())  # None without a deadline, whatever the stubs say
        asked = timeout_of(
            self._timeout_ms,
            default_s=settings.default_timeout_s if left is None else left,
            max_s=settings.max_timeout_s,
        )
        return asked if left is None else min(left, asked)

    async def whole(self, answer: Answer) -> bytes:
        """Return all of an answer.

        Raises:
            MarwayError: It is larger than a message may be, or broke off.
        """
        limit = self._gateway.settings.max_body_bytes
        return await answer.whole(
            max_bytes=limit,
            too_large=f"the model's answer has more than {limit} bytes: call it over HTTP, where answers stream",
        )


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
        gateway: The gateway's parts, open.
        context: gRPC's.
        method: Full name, for the access log.
        surface: The predict protocol, for metrics.
        details: Gives an error's words to the caller.
        within: Whether it is one of several predictions within one call, which an error does not end: it is raised.
    """
    metadata = {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    said = read_ids(metadata.get)
    info = RequestInfo(method="POST", path=method, request_id=said.request_id, group_id=said.group_id)
    gateway.telemetry.predicting(info, surface)
    failure: MarwayError | None = None
    try:
        fresh = forbids_cache(metadata.get("cache-control"))
        to_pod = _to_pod(said, context.peer())
        timeout_ms = metadata.get(wire.REQUEST_TIMEOUT_MS)
        yield GrpcCall(gateway, context, info, to_pod, fresh=fresh, timeout_ms=timeout_ms)
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


def _to_pod(said: RequestIds, peer: str) -> dict[str, str]:
    """Return the headers of ids and trace, and who asks: ``peer`` is gRPC's, as `ipv4:10.0.0.1:4242`."""
    headers = said.headers()
    client = peer.partition(":")[2].rpartition(":")[0]
    if said.group_id is None and correlation_id(client):
        headers[wire.CLIENT] = client
    return headers


def _trailers(info: RequestInfo) -> tuple[tuple[str, str], ...]:
    ids = [(wire.REQUEST_ID, info.request_id)]
    if info.group_id is not None:
        ids.append((wire.REQUEST_GROUP_ID, info.group_id))
    return (*ids, *model_headers(info))
