"""HTTP routes of requests that hold several rows: the part of v1 and of Open Inference v2 that is the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from starlette.types import Receive, Scope, Send

from marway.refs import check_label
from marway.wire.headers import EXPLAIN
from marway.wire.request import timeout_of
from marway_gateway.gateway import Gateway
from marway_gateway.http.body import RequestBody
from marway_gateway.http.client_watch import ClientWatch, Watches, body_reader
from marway_gateway.http.content_coding import coding_of, decoded
from marway_gateway.http.requests import model_headers, request_info
from marway_gateway.predict.cache import forbids_cache
from marway_gateway.surfaces.native import length_of
from marway_gateway.surfaces.row_calls import RowCall
from marway_gateway.tensors.requests import ReadRequest, Rendered
from marway_gateway.transport.request_headers import headers_to_pod

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
        self._watches = Watches()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway()
        info = request_info(scope)
        gateway.telemetry.predicting(info, self._surface)
        raw = info.headers
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw.items()}
        settings = gateway.settings
        timeout_s = timeout_of(
            headers.get("x-request-timeout-ms"), default_s=settings.default_timeout_s, max_s=settings.max_timeout_s
        )
        coding = coding_of(raw.get(b"content-encoding"))
        params = scope["path_params"]
        selector = check_label(params["label"]) if "label" in params else params.get("selector")
        call = RowCall(
            gateway=gateway,
            name=params["model"],
            selector=selector,
            headers=headers_to_pod(raw, info) | self._more_headers,
            deadline=time.monotonic() + timeout_s,
            timeout_s=timeout_s,
            info=info,
            fresh=forbids_cache(headers.get("cache-control")),
        )
        read, length = body_reader(receive), length_of(raw.get(b"content-length"))
        body = RequestBody(
            read if coding is None else decoded(read, coding),
            content_length=length if coding is None else None,
            buffered_bytes=settings.max_body_bytes,
            max_bytes=settings.max_body_bytes,
        )
        with ClientWatch(self._watches, receive, body):
            data, content = await self._answer(call, body, headers)
        answered = [*content, ("content-length", str(len(data))), *model_headers(info)]
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(name.encode(), value.encode()) for name, value in answered],
            }
        )
        await send({"type": "http.response.body", "body": data, "more_body": False})

    async def _answer(self, call: RowCall, body: RequestBody, headers: Mapping[str, str]) -> Rendered:
        resolved = await call.resolve()
        try:
            async with asyncio.timeout(call.deadline - time.monotonic()):
                await body.open()
        except TimeoutError as exc:
            raise call.too_late("its body had not come whole") from exc
        finally:
            call.info.request_bytes = body.size
        whole = body.whole or b""
        return await call.predict(resolved, self._read, whole, headers, received_bytes=len(whole))
