"""The book's gRPC service, `prediction.PredictionService/Predict`: one text in, one text out."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NoReturn, cast

import grpc.aio

from marway.errors import InvalidRequest, MarwayError, ModelError, clip
from marway.refs import parse_reference
from marway.wire import headers as wire
from marway.wire.problems import problem_of
from marway.wire.request import RequestIds, read_ids
from marway_gateway.body import RequestBody
from marway_gateway.gateway import Gateway
from marway_gateway.http import model_headers
from marway_gateway.predict import Answer, PredictCall
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from marway_gateway.surfaces.grpc_status import code_of
from marway_gateway.telemetry import RequestInfo

__all__ = ["SERVICE", "PredictionService"]

SERVICE = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
_METHOD = f"/{SERVICE}/Predict"
_DETAILS_MAX = 1000
_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[prediction_pb2.PredictRequest, prediction_pb2.PredictResponse]


class PredictionService(prediction_pb2_grpc.PredictionServiceServicer):
    """Serves the book's service over the one predict call.

    `runId` is a model id, or a model name, which means its PROD version. Request ids, group ids and `traceparent` come
    in as metadata under their HTTP names; ids, model and timings go out as trailing metadata.

    Args:
        gateway: The gateway's parts, open.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def Predict(  # noqa: N802  # the name in the .proto
        self, request: prediction_pb2.PredictRequest, context: Context
    ) -> prediction_pb2.PredictResponse:
        metadata = {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        said = read_ids(metadata.get)
        info = RequestInfo(
            method="POST",
            path=_METHOD,
            request_id=said.request_id,
            group_id=said.group_id,
        )
        telemetry = self._gateway.telemetry
        telemetry.predicting(info, "prediction_grpc")
        try:
            text = await self._predict(request, context, info, said)
            info.status = grpc.StatusCode.OK.name
            info.response_bytes = len(text)
            context.set_trailing_metadata(_trailers(info))
            return prediction_pb2.PredictResponse(response=text.decode())
        except asyncio.CancelledError:
            info.outcome, info.status = "cancelled", grpc.StatusCode.CANCELLED.name
            raise
        except MarwayError as exc:
            await _refuse(exc, info, context)
        except grpc.aio.AbortError:
            raise
        except Exception:
            _log.exception("request %s failed unexpectedly: %s", info.request_id, _METHOD)
            error = MarwayError(f"something went wrong in the gateway; its log has it under request {info.request_id}")
            await _refuse(error, info, context)
        finally:
            telemetry.finish(info)

    async def _predict(
        self,
        request: prediction_pb2.PredictRequest,
        context: Context,
        info: RequestInfo,
        said: RequestIds,
    ) -> bytes:
        settings = self._gateway.settings
        left = cast("float | None", context.time_remaining())  # None without a deadline, whatever the stubs say
        timeout_s = min(settings.default_timeout_s if left is None else left, settings.max_timeout_s)
        if not request.runId:
            raise InvalidRequest("runId is empty: give a model id or a model name")
        reference = parse_reference(request.runId)
        if reference.selector is not None:
            raise InvalidRequest(
                f"runId {clip(request.runId, 140)!r} has a version or label: give a model id or a model name alone"
            )
        headers = {"content-type": "text/plain; charset=utf-8", wire.REQUEST_ID: info.request_id}
        if info.group_id is not None:
            headers[wire.REQUEST_GROUP_ID] = info.group_id
        if said.traceparent is not None:
            headers[wire.TRACEPARENT] = said.traceparent
        call = PredictCall(
            name=reference.name,
            selector=None,
            body=RequestBody.of(request.document.encode(), max_bytes=settings.max_body_bytes),
            headers=headers,
            deadline=time.monotonic() + timeout_s,
            timeout_s=timeout_s,
            info=info,
        )
        answer = await self._gateway.predictor.predict(call)
        try:
            body = await _whole(answer, limit=settings.max_body_bytes)
        finally:
            answer.close()
        text = body.decode(errors="replace")
        if answer.status >= 400:
            raise ModelError(clip(text, _DETAILS_MAX), status=answer.status, model=info.model, version=info.version)
        return text.encode()


async def _whole(answer: Answer, *, limit: int) -> bytes:
    if answer.data is not None:
        return answer.data
    pieces: list[bytes] = []
    size = 0
    async for piece in answer.chunks():
        size += len(piece)
        if size > limit:
            raise MarwayError(
                f"the model's answer has more than {limit} bytes: call it over HTTP, where answers stream"
            )
        pieces.append(piece)
    return b"".join(pieces)


async def _refuse(error: MarwayError, info: RequestInfo, context: Context) -> NoReturn:
    info.failed(error)
    code = code_of(error)
    info.status = code.name
    _, headers = problem_of(error)
    trailers = (*_trailers(info), *headers.items())
    await context.abort(code, clip(error.message, _DETAILS_MAX), trailers)


def _trailers(info: RequestInfo) -> tuple[tuple[str, str], ...]:
    ids = [(wire.REQUEST_ID, info.request_id)]
    if info.group_id is not None:
        ids.append((wire.REQUEST_GROUP_ID, info.group_id))
    return (*ids, *model_headers(info))
