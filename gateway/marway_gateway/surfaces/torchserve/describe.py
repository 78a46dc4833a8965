"""`GET /models/{model}/{version}?customized=true`: what a version's handler says of its model (`describe_handle`).

The one call of TorchServe's management API that asks the model, and not its server. Of TorchServe's answer it has the
list with one object, the names and `customizedMetadata`; workers and queues are shown by `marway pods`.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from marway.wire.headers import DESCRIBE, NOTHING
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import request_info, send_whole
from marway_gateway.surfaces.http_call import http_call
from marway_http.channel import CHANNEL, Channel, HeaderBlock

__all__ = ["CustomizedDescription"]

_HEADERS: Final = {DESCRIBE: "1", NOTHING: "1"}
_METADATA_BYTES_MAX: Final = 1024 * 1024
_TYPE: Final = HeaderBlock(b"content-type: application/json\r\n", 1)


class CustomizedDescription:
    """ASGI app that has a version's handler describe its model.

    Args:
        gateway: Gives the gateway.
        surface: The surface whose errors it has.
        other: Answers when nothing customized is asked for.
    """

    def __init__(self, gateway: CurrentGateway, *, surface: str, other: ASGIApp) -> None:
        self._gateway = gateway
        self._surface = surface
        self._other = other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=100).get("customized", [])
        if asked[-1:] != ["true"]:
            await self._other(scope, receive, send)
            return
        named = scope["path_params"]
        scope["path_params"] = {"model": named["model"], "selector": named["version"]}
        gateway, info = self._gateway(), request_info(scope)
        channel: Channel = scope[CHANNEL]
        gateway.telemetry.predicting(info, self._surface, observed=False)
        settings = gateway.settings
        buffered = settings.buffered_body_bytes
        call = http_call(scope, receive, settings, more_headers=_HEADERS, buffered_bytes=buffered, may_be_empty=True)
        call.fresh = True
        with gateway.predictor.scope(call, channel):
            answer = await gateway.predictor.predict(call)
            said = await answer.whole(max_bytes=_METADATA_BYTES_MAX, too_large="the description is too large")
        if answer.reply.status >= 400:
            await send_whole(channel, info, answer.reply.status, answer.reply.header_block, said)
            return
        document = [{"modelName": info.model, "modelVersion": info.version, "customizedMetadata": _metadata(said)}]
        await send_whole(channel, info, 200, _TYPE, json.dumps(document, indent=2).encode())


def _metadata(said: bytes) -> Any:
    """Return what the handler said as JSON: parsed where it is JSON, else as a text."""
    text = said.decode(errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
