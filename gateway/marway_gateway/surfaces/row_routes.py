"""HTTP routes of requests that hold several rows: the part of v1 and of Open Inference v2 that is the same."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from marway.wire.headers import EXPLAIN
from marway_gateway.gateway import Gateway
from marway_gateway.http.requests import request_info, send_whole
from marway_gateway.surfaces.http_call import http_call
from marway_gateway.surfaces.row_calls import predict_rows
from marway_gateway.tensors.requests import ReadRequest
from marway_http.channel import CHANNEL, Channel, header_block

__all__ = ["RowRoute"]


class RowRoute:
    """ASGI app of one protocol's predict routes, whose path names `model` and perhaps `selector` or `label`.

    Args:
        gateway: Gives the gateway; asked at each request, because it exists only while the app runs.
        surface: The protocol's name, which decides the form of errors.
        read: Reads its requests.
        explain: Whether handlers are asked to explain their predictions.
    """

    def __init__(
        self, gateway: Callable[[], Gateway], *, surface: str, read: ReadRequest, explain: bool = False
    ) -> None:
        self._gateway = gateway
        self._surface = surface
        self._read = read
        self._more_headers = {EXPLAIN: "1"} if explain else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, info = self._gateway(), request_info(scope)
        channel: Channel = scope[CHANNEL]
        gateway.telemetry.predicting(info, self._surface)
        limit = gateway.settings.max_body_bytes
        call = http_call(scope, receive, gateway.settings, more_headers=self._more_headers, buffered_bytes=limit)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in info.headers.items()}
        with gateway.predictor.scope(call, channel) as cancel_scope:
            data, content = await predict_rows(gateway, call, cancel_scope, self._read, headers)
        block = header_block([(name.encode(), value.encode()) for name, value in content])
        await send_whole(channel, info, 200, block, data)
