"""Marway's own surface: any body in, the model's own answer out.

Its routes are served as bare ASGI: validation and dependency machinery would cost more than all else that the gateway
does for a small request. `native_routes` has them documented by FastAPI.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from marway.wire.headers import EXPLAIN, NOTHING
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import request_info, send_whole
from marway_gateway.surfaces.answers import stream_answer
from marway_gateway.surfaces.http_call import http_call
from marway_http.channel import CHANNEL, Channel

__all__ = ["NATIVE_PATHS", "NativePredict", "now_or_later"]

NATIVE_PATHS: Final = ("/predict/{model}", "/predict/{model}/{selector}")


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


def now_or_later(now: ASGIApp, later: ASGIApp) -> ASGIApp:
    """Return what has requests with the header `Prefer` served by ``later``, and all others by ``now``."""

    def chosen(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (later if b"prefer" in request_info(scope).headers else now)(scope, receive, send)

    return chosen
