"""When a call is sent again: one decision, for both clients."""

from __future__ import annotations

import random
from typing import Final

import httpx

from marway.client.answers import named
from marway.client.calls import Call
from marway.errors import DeadlineExceeded, InvalidInput, MarwayError, OutcomeUnknown, Unavailable
from marway.wire import headers as wire

__all__ = ["CONNECT_S", "GRACE_S", "Attempts", "failure_of"]

CONNECT_S: Final = 5.0
GRACE_S: Final = 0.5
"""How much longer than the deadline an answer is waited for: the gateway's own says more than our giving up."""
_FIRST_PAUSE_S: Final = 0.1
_PAUSE_MAX_S: Final = 2.0
_SPREAD: Final = 0.2
"""Of `Retry-After`, added by chance: those who were refused together do not come back together."""


class Attempts:
    """The tries of one call.

    Again is tried what says nothing about the request: no gateway, a lost connection, 429 and 503 (`Unavailable`),
    after the pause that `Retry-After` asks for, or a random one that doubles. Never what the model or the gateway
    found wrong with it, and never when the pause would end after the deadline: then the caller has the error at once.

    Args:
        call: The call.
        retries: Further tries at most.
    """

    def __init__(self, call: Call, retries: int) -> None:
        self.call = call
        self.number = 0
        self._retries = retries

    def begin(self) -> tuple[dict[str, str], httpx.Timeout]:
        """Begin the next try: return its headers and how long it may take.

        Raises:
            DeadlineExceeded: No time is left for it.
        """
        left_s = self.call.deadline.left_s()
        if left_s <= 0:
            raise named(DeadlineExceeded("the deadline passed before the gateway was asked"), self.call)
        self.number += 1
        waited_s = left_s + GRACE_S
        timeout = httpx.Timeout(waited_s, connect=min(CONNECT_S, left_s), pool=left_s)
        return {**self.call.headers, wire.REQUEST_TIMEOUT_MS: str(max(1, int(left_s * 1000)))}, timeout

    def pause_s(self, error: MarwayError) -> float:
        """Return how long to wait before the try after one that failed, in seconds.

        Raises:
            MarwayError: ``error``, where there is no further try.
        """
        if not isinstance(error, Unavailable) or self.number > self._retries:
            raise error
        if error.retry_after_s is not None:
            pause_s = error.retry_after_s * (1 + random.random() * _SPREAD)
        else:
            pause_s = random.uniform(0.5, 1) * min(_PAUSE_MAX_S, _FIRST_PAUSE_S * 2 ** (self.number - 1))
        if pause_s >= self.call.deadline.left_s():
            raise error
        return pause_s


def failure_of(exc: Exception, call: Call) -> MarwayError:
    """Return what a failure of the connection stands for."""
    where = str(call.shown_url.copy_with(path="", query=None)).rstrip("/")
    error: MarwayError
    if isinstance(exc, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        error = Unavailable(f"no gateway answers at {where}: {str(exc) or 'it took too long'}; is `marway up` running?")
    elif isinstance(exc, (httpx.TimeoutException, TimeoutError)):
        error = DeadlineExceeded(f"no answer from {where} within {call.deadline.timeout_s:g} s")
    elif isinstance(exc, (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL)):
        error = InvalidInput(f"the request cannot be sent: {exc}")
    elif isinstance(exc, httpx.DecodingError):
        error = MarwayError(f"the answer from {where} cannot be decoded: {exc}")
    elif call.repeatable:
        error = Unavailable(f"the connection to {where} was lost before the answer was whole: {exc}")
    else:
        error = OutcomeUnknown(
            f"the connection to {where} was lost: {exc}; whether the sequence got the request is not known"
        )
    return named(error, call)
