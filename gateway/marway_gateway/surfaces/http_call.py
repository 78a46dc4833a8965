"""The predict call that an HTTP request asks for, whatever its surface, and what of its headers the handler gets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from starlette.types import Receive, Scope

from marway.deadline import Deadline
from marway.errors import InvalidRequest
from marway.refs import check_label
from marway.wire import headers as wire
from marway.wire.envelope import ROWS_CONTENT_TYPE, mime_type
from marway.wire.request import correlation_id, timeout_of
from marway_gateway.http.body import RequestBody, body_reader
from marway_gateway.http.content_coding import coding_of, decoded
from marway_gateway.http.requests import request_info
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.predict.cache import forbids_cache
from marway_gateway.predict.call import PredictCall
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.priority import gives_way
from marway_http.channel import CHANNEL, Channel

__all__ = ["body_of", "http_call"]

_PASSED_MAX: Final = 64
"""Most headers that are passed on: a pod's connection takes 100, with those that the gateway adds."""
_PASSED_BYTES_MAX: Final = 16 * 1024
"""Most bytes of their names and values: they travel with each row of a request."""
_URL_PATH_MAX: Final = 8 * 1024

_STAYS: Final = frozenset(
    name.encode()
    for name in (
        *wire.HOP_BY_HOP,
        *wire.CREDENTIALS,
        *wire.FRONT_ENDS_OWN,
        # Said anew to the pod, about this gateway's own request to it.
        *("host", "content-length", "content-encoding", "expect", wire.REQUEST_TIMEOUT_MS),
        # Of one connection too, though no standard says so, or only an older one.
        *("proxy-connection", "http2-settings"),
        # Checked, and set below.
        *("x-request-id", "x-request-group-id", "traceparent", "tracestate"),
        # What a browser says to the front door, which answers it there.
        *("origin", "access-control-request-method", "access-control-request-headers"),
    )
)
_OWN_PREFIX: Final = wire.OWN_PREFIX.encode()
_PRIORITY: Final = wire.PRIORITY.encode()
_CONNECTION: Final = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


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

    Where the body names the model, the call has no name until that was read. The body is held in memory up to
    ``buffered_bytes``; ``more_headers`` go to the pod beside the request's own.

    Raises:
        InvalidReference: The label cannot be one.
        InvalidRequest: A header says what cannot be.
        UnsupportedMedia: The body is coded in a way that is not taken.
    """
    info, params = request_info(scope), scope["path_params"]
    headers = info.headers
    asked, cache_control = headers.get(b"x-request-timeout-ms"), headers.get(b"cache-control")
    timeout_s = timeout_of(
        None if asked is None else asked.decode("latin-1"),
        default_s=settings.default_timeout_s,
        max_s=settings.max_timeout_s,
    )
    to_pod = _headers_to_pod(headers, info)
    if more_headers:
        to_pod |= more_headers
    priority = headers.get(_PRIORITY)
    if priority is not None:
        gives_way(info, priority.decode("latin-1"), to_pod)
    behind = params.get("url_path")
    if behind:
        to_pod[wire.URL_PATH] = _url_path(behind)
    return PredictCall(
        params.get("model", ""),
        check_label(params["label"]) if "label" in params else params.get("selector"),
        to_pod,
        Deadline.after(timeout_s),
        info,
        body_of(scope, receive, headers, buffered_bytes, settings.max_body_bytes, may_be_empty=may_be_empty),
        cache_control is not None and forbids_cache(cache_control.decode("latin-1")),
        divides=priority is None,
    )


def body_of(
    scope: Scope,
    receive: Receive,
    headers: Mapping[bytes, bytes],
    buffered_bytes: int,
    max_bytes: int,
    *,
    may_be_empty: bool,
) -> RequestBody:
    """Return a request's body, decoded where it comes coded, as it is held in memory up to ``buffered_bytes``.

    Raises:
        InvalidRequest: Its length is no number.
        UnsupportedMedia: It is coded in a way that is not taken.
    """
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


def _headers_to_pod(headers: Mapping[bytes, bytes], info: RequestInfo) -> dict[str, str]:
    """Return what of a request's headers a pod gets: all but those that are for the front door.

    Raises:
        InvalidRequest: They are too many or too large, or the content type is kept for what gateways send.
    """
    content_type = headers.get(b"content-type")
    if content_type is not None and _holds_rows(content_type):
        # Harmless, for a pod checks such rows as it checks any request; but no protocol that callers may rely on.
        raise InvalidRequest(f"the content type {ROWS_CONTENT_TYPE} is kept for Marway: choose another")
    passed = info.ids.headers()
    if info.group_id is None and info.client is not None and _can_be_told(info.client):
        passed[wire.CLIENT] = info.client
    connection = headers.get(b"connection")
    named = _named(connection) if connection is not None and connection not in _CONNECTION else ()
    before, size = len(passed), 0
    for name, value in headers.items():
        text = _name_passed(name)
        if text is None or name in named:
            continue
        size += len(name) + len(value)
        passed[text] = value.decode("latin-1")
    if size > _PASSED_BYTES_MAX or len(passed) - before > _PASSED_MAX:
        raise InvalidRequest(
            f"the request has {len(passed) - before} headers of {size} bytes for the model; at most {_PASSED_MAX} of "
            f"{_PASSED_BYTES_MAX} bytes are passed on: send what is larger in the body"
        )
    return passed


def _url_path(path: str) -> str:
    """Return how a pod is told what stands behind the model's version in the caller's path.

    Raises:
        InvalidRequest: It is too long.
    """
    value = quote(path, safe="/")
    if len(value) > _URL_PATH_MAX:
        raise InvalidRequest(f"the path behind the model has more than {_URL_PATH_MAX} characters: send it in the body")
    return value


@lru_cache(maxsize=256)
def _holds_rows(content_type: bytes) -> bool:
    return mime_type(content_type.decode("latin-1")).lower() == ROWS_CONTENT_TYPE


@lru_cache(maxsize=1024)
def _can_be_told(client: str) -> bool:
    return correlation_id(client) is not None


@lru_cache(maxsize=1024)
def _name_passed(name: bytes) -> str | None:
    """Return the name of a header that is passed on; None when it is not. Nearly all requests have the same few."""
    return None if name in _STAYS or name.startswith(_OWN_PREFIX) else name.decode("latin-1")


def _named(connection: bytes) -> frozenset[bytes]:
    """Return the headers that a `Connection` header says belong to the connection alone (RFC 9110 §7.6.1)."""
    return frozenset(each.strip().lower() for each in connection.split(b","))
