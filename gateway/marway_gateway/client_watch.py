"""The client of one HTTP request: reads what it sends, and ends the request when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from starlette.types import Receive

from marway_gateway.body import ClientGone, RequestBody
from marway_gateway.call import PredictCall, too_late

__all__ = ["ClientWatch", "body_reader"]

_WATCH_AFTER_S: Final = 0.02


class ClientWatch:
    """Ends the task that enters it when the client goes away after it has sent the whole body, or when it is too late.

    It begins to look after a moment: most requests are answered by then, and spared a task and a second timer.
    Leaving it raises `ClientGone`, or the error of a call whose deadline passed.

    Args:
        receive: The request's ASGI channel. Until the body was received it belongs to the body, which tells a lost
            client itself.
        body: The request's body.
        call: Whose deadline counts until `in_time`; None watches the client alone.
    """

    __slots__ = ("_body", "_call", "_gone", "_late", "_loop", "_receive", "_request", "_task", "_timer")

    def __init__(self, receive: Receive, body: RequestBody, call: PredictCall | None = None) -> None:
        self._gone = self._late = False
        self._receive = receive
        self._body = body
        self._call = call
        self._request = asyncio.current_task()
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        after_s = _WATCH_AFTER_S if call is None else min(_WATCH_AFTER_S, call.timeout_s)
        self._timer = self._loop.call_later(after_s, self._start)

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
        if self._task is not None:
            self._timer.cancel()
        self._call = None

    def stop(self) -> None:
        """Stop watching; a second call does nothing."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
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
