"""The client of one HTTP request: reads what it sends, and ends the request when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Protocol, Self

from starlette.types import Receive

from marway_gateway.http.body import ClientGone, RequestBody
from marway_gateway.predict.call import PredictCall, too_late

__all__ = ["ClientWatch", "Watches", "body_reader"]

_WATCH_AFTER_S: Final = 0.02


class Watch(Protocol):
    """What begins after a while."""

    def begin(self) -> None:
        """Do so."""


class Watches:
    """Begins the watches of requests that take a while, all of them with one timer.

    Most requests are answered before that, and spared a timer and a task of their own.

    Args:
        after_s: How long a while is, give or take a half.
    """

    def __init__(self, *, after_s: float = _WATCH_AFTER_S) -> None:
        self._after_s = after_s
        self._waiting: dict[Watch, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watch: Watch, loop: asyncio.AbstractEventLoop) -> None:
        """Have a watch begin in a moment."""
        self._waiting[watch] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._after_s, self._look, loop)

    def remove(self, watch: Watch) -> None:
        """Have it not begin any more."""
        self._waiting.pop(watch, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        until = loop.time() - self._after_s / 2
        for watch, since in list(self._waiting.items()):
            if since > until:
                break
            del self._waiting[watch]
            watch.begin()
        if self._waiting:
            self._timer = loop.call_later(self._after_s, self._look, loop)


class ClientWatch:
    """Ends the task that enters it when the client goes away after it has sent the whole body, or when it is too late.

    Leaving it raises `ClientGone`, or the error of a call whose deadline passed.

    Args:
        watches: Begin it after a moment.
        receive: The request's ASGI channel. Until the body was received it belongs to the body, which tells a lost
            client itself.
        body: The request's body.
        call: Whose deadline counts until `in_time`; None watches the client alone.
    """

    __slots__ = ("_body", "_call", "_gone", "_late", "_loop", "_receive", "_request", "_task", "_timer", "_watches")

    def __init__(self, watches: Watches, receive: Receive, body: RequestBody, call: PredictCall | None = None) -> None:
        self._gone = self._late = False
        self._watches = watches
        self._receive = receive
        self._body = body
        self._call = call
        self._request = asyncio.current_task()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        if call is not None and call.timeout_s < 2 * _WATCH_AFTER_S:
            self.begin()
        else:
            watches.add(self, self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is not asyncio.CancelledError or not (self._gone or self._late):
            return
        if self._request is not None:
            self._request.uncancel()
        if self._gone or self._call is None:
            raise ClientGone from None
        raise too_late(self._call) from None

    def in_time(self) -> None:
        """Say that the deadline was met; the client is watched on."""
        if self._timer is not None:
            self._timer.cancel()
        self._call = None

    def stop(self) -> None:
        """Stop watching; a second call does nothing."""
        self._watches.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def begin(self) -> None:
        """Look from now on."""
        self._task = self._loop.create_task(self._watch(), name="client-watch")
        if self._call is not None:
            self._timer = self._loop.call_later(max(0.0, self._call.deadline - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._late = True
        if self._request is not None:
            self._request.cancel()

    async def _watch(self) -> None:
        await self._body.received()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._request is not None:
            self._request.cancel()


def body_reader(receive: Receive) -> Callable[[], Awaitable[bytes]]:
    """Return what gives a request's body piece by piece; it raises `ClientGone` when the client goes away."""
    ended = False

    async def read() -> bytes:
        nonlocal ended
        while not ended:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            ended = not message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            if piece:
                return piece
        return b""

    return read
