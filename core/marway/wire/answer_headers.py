"""What status and response headers a handler may set: what every hop on the way to a client carries.

Checked where an answer is made, in the worker and in the sidecar, so that what cannot be sent is one request's fault:
further on, the headers of many requests share a connection. Standard library only: workers of TorchServe run this too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = [
    "CONTENT_TYPE_CHARS_MAX",
    "HEADERS_MAX",
    "HEADER_BYTES_MAX",
    "content_type_fault",
    "header_fault",
    "status_fault",
]

HEADERS_MAX: Final = 64
"""Most headers of an answer; with our own, fewer than the 100 after which Python's `http.client` reads no answer."""
HEADER_BYTES_MAX: Final = 16 * 1024
"""Most bytes of them, names and values together; proxies take 4 KiB to 16 KiB by default."""
CONTENT_TYPE_CHARS_MAX: Final = 1024
# Tokens, and values that HTTP can carry (RFC 9110 §5.1 and §5.5), without the control characters of Latin-1.
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_SHOWN: Final = 60


def header_fault(headers: Mapping[str, str]) -> str | None:
    """Return why a handler's headers cannot be sent, None when they can."""
    if len(headers) > HEADERS_MAX:
        return f"the handler set {len(headers)} response headers: {HEADERS_MAX} at most can be sent"
    size = 0
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            return f"the handler set a response header whose name HTTP cannot carry: {_shown(name)}"
        if not _VALUE.fullmatch(value):
            return f"the handler set the response header {_shown(name)} to what HTTP cannot carry: {_shown(value)}"
        size += len(name) + len(value)
    if size > HEADER_BYTES_MAX:
        return f"the handler set response headers of {size} bytes: {HEADER_BYTES_MAX} at most can be sent"
    return None


def content_type_fault(content_type: str | None) -> str | None:
    """Return why a handler's content type cannot be sent, None when it can, or when there is none."""
    if content_type and not (len(content_type) <= CONTENT_TYPE_CHARS_MAX and _VALUE.fullmatch(content_type)):
        return f"the handler set a content type that cannot be sent: {_shown(content_type)}"
    return None


def status_fault(status: int) -> str | None:
    """Return why a handler's status cannot be sent, None when it can."""
    if not 200 <= status <= 599:
        return f"the handler set the status {status}: an answer has one from 200 to 599"
    return None


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
