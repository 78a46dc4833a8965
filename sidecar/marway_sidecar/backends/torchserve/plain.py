"""Predictions by TorchServe's own workers: each row a request of its own, over gRPC or REST.

gRPC carries bytes by name and brings bytes back: no content type, so no parsed JSON and no text; no headers, no status.
What needs one of those goes over REST, if the version leaves the choice to us (`ServingSettings.protocol`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

from marway.deadline import Deadline
from marway.wire.envelope import Answer, Part, Row, mime_type
from marway.wire.headers import HOP_BY_HOP, JSON_NONFINITE, TIMED, is_incidental
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.calls import each_alone, whole_answer
from marway_sidecar.backends.rest_rows import answer_of, request_of
from marway_sidecar.backends.torchserve.calls import Calls
from marway_sidecar.backends.torchserve.classify import classify_rest
from marway_sidecar.backends.torchserve.proto import inference_pb2

__all__ = ["PlainCalls"]

_COMMON: Final = frozenset(
    {
        "accept",
        "accept-language",
        "content-length",
        "content-type",
        "host",
        "traceparent",
        "tracestate",
        "x-request-group-id",
        "x-request-id",
        "x-request-timeout-ms",
        JSON_NONFINITE,
        TIMED,
    }
)
"""Headers that nearly every request has: no reason to leave gRPC."""


class PlainCalls(Calls):
    """Predictions without envelopes. TorchServe makes batches of concurrent requests itself."""

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        if model.streaming:
            return [await whole_answer(self.predict_stream(model, row, deadline)) for row in rows]
        return await each_alone(lambda row: self._one(model, row, deadline), rows)

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        timeout_s = deadline.time_left_s(model=model.name)
        async with aclosing(self.stream_over_grpc(model, _request(model, row), timeout_s)) as predictions:
            async for prediction in predictions:
                yield answer_of(200, prediction, {}, piece=True)

    async def _one(self, model: ServedModel, row: Row, deadline: Deadline) -> Answer:
        timeout_s = deadline.time_left_s(model=model.name)
        if model.protocol == "rest" or (model.protocol == "auto" and _needs_rest(row)) or row.explains:
            route = "explanations" if row.explains else "predictions"
            response = await self.over_rest(model, timeout_s, route=route, **_rest_request(row))
            error = classify_rest(response.status_code, response.content, model)
            if error is not None:
                raise error
            return answer_of(response.status_code, response.content, response.headers)
        return answer_of(200, await self.over_grpc(model, _request(model, row), timeout_s), {})


def _request(model: ServedModel, row: Row) -> bytes:
    return inference_pb2.PredictionsRequest(
        model_name=model.server_name,
        model_version=model.version,
        input={part.name: bytes(part.value) for part in row.parts},
    ).SerializeToString()


def _needs_rest(row: Row) -> bool:
    """Return whether the handler would miss something if ``row`` came over gRPC, which carries bytes by name only."""
    if any(_is_parsed(part) for part in row.parts):
        return True
    return any(name not in _COMMON and name not in HOP_BY_HOP and not is_incidental(name) for name in row.headers)


def _rest_request(row: Row) -> dict[str, Any]:
    request = request_of(row)
    # TorchServe takes any request with "/token" in it, even in a header, for a call of its token API.
    request["headers"] = {name: value for name, value in request["headers"].items() if "/token" not in name + value}
    return request


def _is_parsed(part: Part) -> bool:
    mime = mime_type(part.content_type)
    return mime == "application/json" or mime.startswith("text")
