"""The predict call that an HTTP request asks for, whatever its surface."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Receive, Scope

from marway.deadline import Deadline
from marway.errors import InvalidRequest
from marway.refs import check_label
from marway.wire.request import timeout_of
from marway_gateway.http.body import RequestBody, body_reader
from marway_gateway.http.content_coding import coding_of, decoded
from marway_gateway.http.requests import request_info
from marway_gateway.predict.cache import forbids_cache
from marway_gateway.predict.call import PredictCall
from marway_gateway.settings import GatewaySettings
from marway_gateway.transport.request_headers import headers_to_pod, url_path_header
from marway_http.channel import CHANNEL, Channel

__all__ = ["http_call"]


def http_call(
    scope: Scope,
    receive: Receive,
    settings: GatewaySettings,
    *,
    more_headers: dict[str, str],
    buffered_bytes: int,
    may_be_empty: bool = False,
) -> PredictCall:
    """Return the call that a request asks for; its path names `model` and perhaps `selector`, `label` or `url_path`.

    Args:
        scope: The request's.
        receive: Where its body comes from, unless it is here.
        settings: The gateway's.
        more_headers: What goes to the pod beside the request's own.
        buffered_bytes: The largest body that is held in memory.
        may_be_empty: Whether a request without a body is one.

    Raises:
        InvalidReference: The label cannot be one.
        InvalidRequest: A header says what cannot be.
        UnsupportedMedia: The body is coded in a way that is not taken.
    """
    info, params = request_info(scope), scope["path_params"]
    headers = info.headers
    timeout_s = timeout_of(
        _text(headers.get(b"x-request-timeout-ms")), default_s=settings.default_timeout_s, max_s=settings.max_timeout_s
    )
    to_pod = headers_to_pod(headers, info)
    if more_headers:
        to_pod |= more_headers
    behind = params.get("url_path")
    if behind:
        to_pod |= url_path_header(behind)
    return PredictCall(
        params["model"],
        check_label(params["label"]) if "label" in params else params.get("selector"),
        to_pod,
        Deadline.after(timeout_s),
        info,
        _body(scope, receive, headers, buffered_bytes, settings.max_body_bytes, may_be_empty=may_be_empty),
        forbids_cache(_text(headers.get(b"cache-control"))),
    )


def _body(
    scope: Scope,
    receive: Receive,
    headers: Mapping[bytes, bytes],
    buffered_bytes: int,
    max_bytes: int,
    *,
    may_be_empty: bool,
) -> RequestBody:
    coded = headers.get(b"content-encoding")
    coding = None if coded is None else coding_of(coded)
    if coding is None:
        channel: Channel = scope[CHANNEL]
        data = channel.body
        if data and len(data) <= buffered_bytes and len(data) <= max_bytes:
            return RequestBody.opened(data, max_bytes=max_bytes)
    length = headers.get(b"content-length")
    if length is not None and not length.isdigit():
        raise InvalidRequest("Content-Length is not a number")
    read = body_reader(receive)
    return RequestBody(
        read if coding is None else decoded(read, coding),
        content_length=int(length) if length is not None and coding is None else None,
        buffered_bytes=buffered_bytes,
        max_bytes=max_bytes,
        may_be_empty=may_be_empty,
    )


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("latin-1")
