"""What a caller says about its request: ids, trace and deadline. Gateway and sidecar read them here and nowhere else.

Whatever cannot be passed on safely is treated as absent, save the deadline: a caller that means one must not be served
without it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from marway.errors import InvalidRequest, clip
from marway.wire.headers import REQUEST_GROUP_ID, REQUEST_ID, TRACEPARENT, TRACESTATE

__all__ = [
    "RequestIds",
    "correlation_id",
    "ids_of",
    "new_request_id",
    "read_ids",
    "timeout_of",
    "trace_context",
    "trace_state",
]

_REQUEST_ID, _GROUP_ID = REQUEST_ID.encode(), REQUEST_GROUP_ID.encode()
_TRACEPARENT, _TRACESTATE = TRACEPARENT.encode(), TRACESTATE.encode()
_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
# W3C Trace Context §3.2: version 00 has four fields, later ones may have more; version ff and ids of zeros are none.
_IS_TRACEPARENT: Final = re.compile(
    r"(?:00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"|(?!00|ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[ -~]{0,200})?)"
)
_TRACE_MEMBER: Final = r"[a-z0-9][a-z0-9_*/@-]{0,255}=[!-+\--<>-~ ]{0,255}[!-+\--<>-~]"
_IS_TRACESTATE: Final = re.compile(rf"{_TRACE_MEMBER}(?:[ \t]*,[ \t]*{_TRACE_MEMBER}){{0,31}}")
_TRACESTATE_MAX: Final = 2048
_TIMEOUT_DIGITS_MAX: Final = 12
_IDS_AT_ONCE: Final = 256

_fresh_ids: list[str] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_ids.clear)  # two processes must not give the same ids


class RequestIds(NamedTuple):
    """Which request this is.

    Attributes:
        request_id: The caller's, or made here.
        group_id: The caller's, or None.
        traceparent, tracestate: W3C Trace Context as the caller sent it, or None where it is not valid.
    """

    request_id: str
    group_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers that pass the request's ids and trace on."""
        headers = {REQUEST_ID: self.request_id}
        if self.group_id is not None:
            headers[REQUEST_GROUP_ID] = self.group_id
        if self.traceparent is not None:
            headers[TRACEPARENT] = self.traceparent
        if self.tracestate is not None:
            headers[TRACESTATE] = self.tracestate
        return headers


def read_ids(header: Callable[[str], str | None]) -> RequestIds:
    """Return a request's ids; ``header`` gives the value of a header by its lower-case name, None without it."""
    return _checked(header(REQUEST_ID), header(REQUEST_GROUP_ID), header(TRACEPARENT), header(TRACESTATE))


def ids_of(headers: Mapping[bytes, bytes]) -> RequestIds:
    """Return a request's ids, from headers as ASGI has them, names in lower case."""
    get = headers.get
    request_id, group_id, traceparent = get(_REQUEST_ID), get(_GROUP_ID), get(_TRACEPARENT)
    if request_id is group_id is traceparent is None:
        return RequestIds(new_request_id())  # as most requests are; all this is done for every one
    return _checked(_text(request_id), _text(group_id), _text(traceparent), _text(get(_TRACESTATE)))


def _checked(
    request_id: str | None, group_id: str | None, traceparent: str | None, tracestate: str | None
) -> RequestIds:
    traceparent = trace_context(traceparent)
    # A state without the trace that it belongs to means nothing, and must not be passed on (W3C Trace Context §3.3).
    tracestate = None if traceparent is None else trace_state(tracestate)
    return RequestIds(correlation_id(request_id) or new_request_id(), correlation_id(group_id), traceparent, tracestate)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def correlation_id(text: str | None) -> str | None:
    """Return a caller's id if it is safe to log and to pass on (1 to 128 plain characters), else None."""
    return text if text is not None and _ID.fullmatch(text) else None


def new_request_id() -> str:
    """Return a new request id, 32 random hex digits like a W3C trace id."""
    try:
        return _fresh_ids.pop()
    except IndexError:
        # Randomness for many at once: a system call each would cost more than all else about an id.
        digits = os.urandom(16 * _IDS_AT_ONCE).hex()
        _fresh_ids.extend(digits[start : start + 32] for start in range(32, len(digits), 32))
        return digits[:32]


def trace_context(text: str | None) -> str | None:
    """Return a `traceparent` if it is one (W3C Trace Context), else None."""
    return text if text is not None and _IS_TRACEPARENT.fullmatch(text) else None


def trace_state(text: str | None) -> str | None:
    """Return a `tracestate` if it is one (W3C Trace Context §3.3) of at most 2048 characters, else None."""
    if text is None or len(text) > _TRACESTATE_MAX:
        return None
    return text if _IS_TRACESTATE.fullmatch(text) else None


def timeout_of(text: str | None, *, default_s: float, max_s: float) -> float:
    """Return the deadline in seconds that `X-Request-Timeout-Ms` asks for, at most ``max_s``.

    Raises:
        InvalidRequest: It is no positive number of milliseconds.
    """
    if text is None:
        return min(default_s, max_s)
    if not (text.isascii() and text.isdigit() and len(text) <= _TIMEOUT_DIGITS_MAX and int(text) > 0):
        raise InvalidRequest(
            f"X-Request-Timeout-Ms is {clip(text, 40)!r}: give a whole number of milliseconds, 1 or more"
        )
    return min(int(text) / 1000, max_s)
