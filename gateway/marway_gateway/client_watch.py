"""The client of one HTTP request: reads what it sends, and notices when it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from starlette.types import Receive

from marway_gateway.body import ClientGone, RequestBody

__all__ = ["ClientWatch", "body_reader"]

_WATCH_AFTER_S: Final = 0.02


class ClientWatch:
    """Ends the task that enters it when the client goes away after it has sent the whole body: it raises `ClientGone`.

    It begins to look after a moment: most requests are answered by then and spared a task of their own.

    Args:
        receive: The request's ASGI channel. Until the body was received it belongs to the body, which tells a lost
            client itself.
        body: The request's body.
    """

    def __init__(self, receive: Receive, body: RequestBody) -> None:
        self._gone = False
        self._receive = receive
        self._body = body
        self._request = asyncio.current_task()
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._gone and kind is asyncio.CancelledError:
            if self._request is not None:
                self._request.uncancel()
            raise ClientGone from None

    def stop(self) -> None:
        """Stop watching; a second call does nothing."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="client-watch")

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
