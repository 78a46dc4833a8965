"""Which of a caller's headers go to the pod, and so to the handler."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from marway.errors import InvalidRequest
from marway.wire.envelope import ROWS_CONTENT_TYPE, mime_type
from marway.wire.headers import (
    CLIENT,
    CREDENTIALS,
    FRONT_ENDS_OWN,
    HOP_BY_HOP,
    OWN_PREFIX,
    REQUEST_TIMEOUT_MS,
    URL_PATH,
)
from marway.wire.request import correlation_id
from marway_gateway.observe.telemetry import RequestInfo

__all__ = ["PASSED_BYTES_MAX", "PASSED_MAX", "URL_PATH_MAX", "headers_to_pod", "url_path_header"]

PASSED_MAX: Final = 64
"""Most headers that are passed on: a pod's connection takes 100, with those that the gateway adds."""
PASSED_BYTES_MAX: Final = 16 * 1024
"""Most bytes of their names and values: they travel with each row of a request."""
URL_PATH_MAX: Final = 8 * 1024

_STAYS: Final = frozenset(
    name.encode()
    for name in (
        *HOP_BY_HOP,
        *CREDENTIALS,
        *FRONT_ENDS_OWN,
        # Said anew to the pod, about this gateway's own request to it.
        *("host", "content-length", "content-encoding", "expect", REQUEST_TIMEOUT_MS),
        # Of one connection too, though no standard says so, or only an older one.
        *("proxy-connection", "http2-settings"),
        # Checked, and set below.
        *("x-request-id", "x-request-group-id", "traceparent", "tracestate"),
        # What a browser says to the front door, which answers it there.
        *("origin", "access-control-request-method", "access-control-request-headers"),
    )
)
_OWN_PREFIX: Final = OWN_PREFIX.encode()
_CONNECTION: Final = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


def headers_to_pod(headers: Mapping[bytes, bytes], info: RequestInfo) -> dict[str, str]:
    """Return what of a request's headers a pod gets: all but those that are for the front door.

    Raises:
        InvalidRequest: They are too many or too large, or the content type is kept for what gateways send.
    """
    content_type = headers.get(b"content-type")
    if content_type is not None and mime_type(content_type.decode("latin-1")).lower() == ROWS_CONTENT_TYPE:
        # Harmless, for a pod checks such rows as it checks any request; but no protocol that callers may rely on.
        raise InvalidRequest(f"the content type {ROWS_CONTENT_TYPE} is kept for Marway: choose another")
    passed = info.ids.headers()
    if info.group_id is None and info.client is not None and correlation_id(info.client):
        passed[CLIENT] = info.client
    connection = headers.get(b"connection")
    named = _named(connection) if connection is not None and connection not in _CONNECTION else ()
    before, size = len(passed), 0
    for name, value in headers.items():
        text = _name_passed(name)
        if text is None or name in named:
            continue
        size += len(name) + len(value)
        passed[text] = value.decode("latin-1")
    if size > PASSED_BYTES_MAX or len(passed) - before > PASSED_MAX:
        raise InvalidRequest(
            f"the request has {len(passed) - before} headers of {size} bytes for the model; at most {PASSED_MAX} of "
            f"{PASSED_BYTES_MAX} bytes are passed on: send what is larger in the body"
        )
    return passed


def url_path_header(path: str) -> dict[str, str]:
    """Return the header by which a pod is told what stands behind the model's version in the caller's path.

    Raises:
        InvalidRequest: It is too long.
    """
    value = quote(path, safe="/")
    if len(value) > URL_PATH_MAX:
        raise InvalidRequest(f"the path behind the model has more than {URL_PATH_MAX} characters: send it in the body")
    return {URL_PATH: value}


@lru_cache(maxsize=1024)
def _name_passed(name: bytes) -> str | None:
    """Return the name of a header that is passed on; None when it is not. Nearly all requests have the same few."""
    return None if name in _STAYS or name.startswith(_OWN_PREFIX) else name.decode("latin-1")


def _named(connection: bytes) -> frozenset[bytes]:
    """Return the headers that a `Connection` header says belong to the connection alone (RFC 9110 §7.6.1)."""
    return frozenset(each.strip().lower() for each in connection.split(b","))
