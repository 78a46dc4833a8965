"""Marway's own surface: any body in, the model's own answer out.

They are documented by FastAPI and served as bare ASGI: validation and dependency machinery would cost more than all
else that the gateway does for a small request.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from marway.wire.headers import EXPLAIN, NOTHING
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import FastPathApp, request_info, send_whole
from marway_gateway.openapi import PREDICTION_ERRORS, REQUEST_HEADERS, add_served, problems
from marway_gateway.surfaces.answers import stream_answer
from marway_gateway.surfaces.http_call import http_call
from marway_gateway.surfaces.later import PREFER, RespondsLater, add_async_routes
from marway_gateway.surfaces.surface import Surface
from marway_http.channel import CHANNEL, Channel
from marway_http.pages.openapi import ANSWERS, BODIES

__all__ = ["NATIVE", "NATIVE_PATHS", "NativePredict"]

NATIVE_PATHS: Final = ("/predict/{model}", "/predict/{model}/{selector}")

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The model's input, of any content type: these are the usual ones. The fields of forms reach "
        "the handler under their names, anything else under `data`.",
        "content": BODIES,
    }
}
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The model's own answer: its body, status and content type. A version that streams answers in "
        "pieces as they come: with `Accept: text/event-stream` each is an event, and the last one is `end` or `error`.",
        "content": ANSWERS,
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in (
                ("X-Request-Id", "The caller's, or made here."),
                ("X-Model-Name", "The model that answered."),
                ("X-Model-Version", "The version that answered."),
                ("X-Model-Id", "The same version's id."),
                ("Server-Timing", "Milliseconds of resolving, of the pod and in all; what the cache did."),
                ("X-Cache", "`hit`, `miss` or `bypass`, for models whose answers may be given again."),
            )
        },
    },
    202: {
        "description": "With `Prefer: respond-async`: it is taken in, and answered where `Location` says.",
        "headers": {"Location": {"description": "`/predictions/async/ID`.", "schema": {"type": "string"}}},
    },
}


class NativePredict:
    """ASGI app for `POST /predict/{model}` and `POST /predict/{model}/{selector}`, and what other surfaces call them.

    Args:
        gateway: Gives the gateway; asked at each request, because it exists only while the app runs.
        surface: The predict protocol it speaks, which decides the form of its errors.
        explain: Whether handlers are asked to explain their predictions, as TorchServe's `/explanations` does.
        may_be_empty: Whether a request without a body is one, as TorchServe has it.
    """

    def __init__(
        self,
        gateway: CurrentGateway,
        *,
        surface: str = "native",
        explain: bool = False,
        may_be_empty: bool = False,
    ) -> None:
        self._gateway = gateway
        self._surface = surface
        self._observed = not explain
        self._may_be_empty = may_be_empty
        self._more_headers = {EXPLAIN: "1"} if explain else {}
        if may_be_empty:
            self._more_headers[NOTHING] = "1"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, info = self._gateway(), request_info(scope)
        channel: Channel = scope[CHANNEL]
        gateway.telemetry.predicting(info, self._surface, observed=self._observed)
        call = http_call(
            scope,
            receive,
            gateway.settings,
            more_headers=self._more_headers,
            buffered_bytes=gateway.settings.buffered_body_bytes,
            may_be_empty=self._may_be_empty,
        )
        try:
            with gateway.predictor.scope(call, channel) as cancel_scope:
                answer = await gateway.predictor.predict(call)
                data = answer.reply.data
                if data is None:
                    await stream_answer(answer, cancel_scope, send)
                    return
        finally:
            info.request_bytes = call.body.size
        await send_whole(channel, info, answer.reply.status, answer.reply.header_block, data)


def _add_routes(app: FastPathApp, gateway: CurrentGateway) -> None:
    now = NativePredict(gateway)
    later = RespondsLater(gateway, now)

    def now_or_later(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (later if b"prefer" in request_info(scope).headers else now)(scope, receive, send)

    model, version = NATIVE_PATHS
    add_served(
        app,
        now_or_later,
        ((model, "predict", "Predict with a model"), (version, "predict_version", "Predict with a version or a label")),
        headers={**REQUEST_HEADERS, "prefer": PREFER},
        tags=["predict"],
        responses={**_ANSWER, **problems(*PREDICTION_ERRORS)},
        openapi_extra=_BODY,
    )
    add_async_routes(app, gateway)


NATIVE: Final = Surface(
    name="native",
    tag="predict",
    about="Ask a model: any body in, the model's own answer out.",
    add_routes=_add_routes,
)
