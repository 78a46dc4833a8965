"""`GET /models/{model}/{version}?customized=true`: what a version's handler says of its model (`describe_handle`).

The one call of TorchServe's management API that asks the model, and not its server. Of TorchServe's answer it has the
list with one object, the names and `customizedMetadata`; workers and queues are shown by `marway pods`.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from marway.deadline import Deadline
from marway.errors import MarwayError, ModelError, clip
from marway.records import VersionRecord
from marway.wire.headers import DESCRIBE, NOTHING
from marway.wire.request import read_ids
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.http.body import RequestBody
from marway_gateway.http.requests import request_info, send_whole
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.predict.call import PredictCall
from marway_gateway.surfaces.http_call import http_call
from marway_http.channel import CHANNEL, Channel, HeaderBlock

__all__ = ["CustomizedDescription", "customized_metadata"]

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


async def customized_metadata(gateway: Gateway, record: VersionRecord) -> Any:
    """Return what a version's handler says of its model, parsed where it is JSON; asked as a prediction of its own.

    Raises:
        ModelError: The handler does not describe it.
        MarwayError: As `Predictor.predict`.
    """
    info = RequestInfo(method="GET", path=f"/models/{record.name}/{record.version}", ids=read_ids(lambda name: None))
    gateway.telemetry.predicting(info, "torchserve", observed=False)
    call = PredictCall(
        name=record.name,
        selector=record.version,
        headers={**info.ids.headers(), **_HEADERS},
        deadline=Deadline.after(gateway.settings.default_timeout_s),
        info=info,
        body=RequestBody.opened(b"", max_bytes=0),
        fresh=True,
    )
    try:
        with gateway.predictor.scope(call):
            answer = await gateway.predictor.predict(call)
            said = await answer.whole(max_bytes=_METADATA_BYTES_MAX, too_large="the description is too large")
        info.status = answer.reply.status
        if answer.reply.status >= 400:
            message = clip(said.decode(errors="replace"), 1000)
            raise ModelError(message, status=answer.reply.status, model=record.name, version=record.version)
    except MarwayError as exc:
        info.failed(exc)
        raise
    finally:
        gateway.telemetry.finish(info)
    return _metadata(said)


def _metadata(said: bytes) -> Any:
    """Return what the handler said as JSON: parsed where it is JSON, else as a text."""
    text = said.decode(errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
