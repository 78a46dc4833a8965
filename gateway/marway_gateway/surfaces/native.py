"""The native predict routes: any body in, the model's own answer out.

They are documented by FastAPI and served as bare ASGI: validation and dependency machinery would cost more than all
else that the gateway does for a small request. One that came whole is begun without a task where that can be
(`surfaces/direct.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from marway.errors import InvalidRequest, MarwayError
from marway.wire.headers import EXPLAIN, NOTHING
from marway.wire.request import timeout_of
from marway_gateway.gateway import Gateway
from marway_gateway.http.body import RequestBody
from marway_gateway.http.client_watch import Watches, body_reader
from marway_gateway.http.content_coding import coding_of, decoded
from marway_gateway.http.requests import request_info
from marway_gateway.http.sync_request import Exchange
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.predict.cache import forbids_cache
from marway_gateway.predict.call import PredictCall
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.answers import answer_in_time
from marway_gateway.surfaces.direct import DIRECT_S, DirectPrediction
from marway_gateway.transport.request_headers import headers_to_pod, url_path_header

__all__ = ["NativePredict", "length_of"]


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
        gateway: Callable[[], Gateway],
        *,
        surface: str = "native",
        explain: bool = False,
        may_be_empty: bool = False,
    ) -> None:
        self._gateway = gateway
        self._surface = surface
        self._watches = Watches()
        self._lasting = Watches(after_s=DIRECT_S)
        self._may_be_empty = may_be_empty
        self._more_headers = {EXPLAIN: "1"} if explain else {}
        if may_be_empty:
            self._more_headers[NOTHING] = "1"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway()
        info = request_info(scope)
        gateway.telemetry.predicting(info, self._surface)
        settings = gateway.settings
        timeout_s = _timeout_of(info, settings)
        coding = coding_of(info.headers.get(b"content-encoding"))
        read, length = body_reader(receive), length_of(info.headers.get(b"content-length"))
        body = RequestBody(
            read if coding is None else decoded(read, coding),
            content_length=length if coding is None else None,
            buffered_bytes=settings.buffered_body_bytes,
            max_bytes=settings.max_body_bytes,
            may_be_empty=self._may_be_empty,
        )
        call = self._call_of(scope, info, body, timeout_s)
        await answer_in_time(gateway.predictor.predict_watched(call), call, self._watches, receive, send)

    def begin(self, exchange: Exchange) -> bool:
        """Begin a request whose body is here, without a task."""
        gateway, scope, data = self._gateway(), exchange.scope, exchange.data
        info, settings = request_info(scope), gateway.settings
        if not 0 < len(data) <= min(settings.buffered_body_bytes, settings.max_body_bytes):
            return False
        if b"content-encoding" in info.headers:
            return False
        try:
            timeout_s = _timeout_of(info, settings)
            if timeout_s < 2 * DIRECT_S:
                return False
            body = RequestBody.opened(data, max_bytes=settings.max_body_bytes)
            call = self._call_of(scope, info, body, timeout_s)
        except MarwayError:
            return False
        prediction = DirectPrediction(gateway, exchange, call, lasting=self._lasting, watches=self._watches)
        return prediction.send(self._surface)

    def _call_of(self, scope: Scope, info: RequestInfo, body: RequestBody, timeout_s: float) -> PredictCall:
        headers, params = info.headers, scope["path_params"]
        passed = headers_to_pod(headers, info) | self._more_headers
        behind = params.get("url_path")
        if behind:
            passed |= url_path_header(behind)
        return PredictCall(
            name=params["model"],
            selector=params.get("selector"),
            body=body,
            headers=passed,
            deadline=time.monotonic() + timeout_s,
            timeout_s=timeout_s,
            info=info,
            fresh=forbids_cache(_text(headers.get(b"cache-control"))),
        )


def length_of(raw: bytes | None) -> int | None:
    """Return a Content-Length in bytes; None without one.

    Raises:
        InvalidRequest: It is no number.
    """
    if raw is None:
        return None
    if not raw.isdigit():
        raise InvalidRequest("Content-Length is not a number")
    return int(raw)


def _timeout_of(info: RequestInfo, settings: GatewaySettings) -> float:
    return timeout_of(
        _text(info.headers.get(b"x-request-timeout-ms")),
        default_s=settings.default_timeout_s,
        max_s=settings.max_timeout_s,
    )


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("latin-1")
