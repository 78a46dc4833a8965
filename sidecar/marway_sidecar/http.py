"""What every route of the sidecar needs of HTTP: problem documents, clients that go away, answers to half a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from marway.errors import MarwayError
from marway.wire import headers, problems

__all__ = ["Channel", "ClientGone", "problem_response"]

_LINGER_S: Final = 1.0
_WATCH_AFTER_S: Final = 0.02


class ClientGone(Exception):
    """The client closed its connection: nobody waits for the answer."""


def problem_response(error: MarwayError, *, request_id: str | None = None, outcome: str | None = None) -> Response:
    """Return the problem document for ``error``."""
    problem, extra = problems.problem_of(error, request_id=request_id)
    if request_id is not None:
        extra[headers.REQUEST_ID] = request_id
    if outcome is not None:
        extra[headers.OUTCOME] = outcome
    return Response(problem.body(), problem.status, extra, media_type=problems.CONTENT_TYPE)


class Channel:
    """One request's way to its client and back.

    Args:
        receive, send: As ASGI gives them.

    Attributes:
        received: Whether the whole body came.
        started: Whether the answer has begun, so that no other can be given.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self.received = False
        self.started = False
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """Return the next message of the client."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self.received = True
        return message

    async def send(self, message: Message) -> None:
        """Send a message to the client; returns when the connection takes more."""
        self.started = True
        await self._send(message)

    @contextlib.contextmanager
    def cancelled_when_gone(self) -> Iterator[None]:
        """End what is done in the context when the client leaves; the whole body must have come.

        Raises:
            ClientGone: It left.
        """
        request = asyncio.current_task()
        assert request is not None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await self._receive())["type"] != "http.disconnect":
                pass
            gone = True
            request.cancel()

        watching: asyncio.Task[None] | None = None

        def start() -> None:
            nonlocal watching
            watching = asyncio.create_task(watch(), name="client-watch")

        # Most requests are answered before it begins to look, and spared a task of their own.
        timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, start)
        try:
            yield
        except asyncio.CancelledError:
            if not gone:
                raise
            request.uncancel()
            raise ClientGone from None
        finally:
            timer.cancel()
            if watching is not None:
                watching.cancel()

    async def respond(self, scope: Scope, response: Response, *, close: bool) -> None:
        """Send a whole answer.

        Args:
            scope: The request's.
            response: The answer.
            close: Close the connection after it.
        """
        send = self.send
        if close:
            response.headers["connection"] = "close"
            if not self.received and not _expects_continue(scope):
                send = self._lingering
        await response(scope, self._receive, send)

    async def _lingering(self, message: Message) -> None:
        """Close only after the client had time to read the answer.

        Closing while it still sends makes its kernel throw the answer away (RFC 9112 §9.6), so what it sends is read
        for a short while and dropped.
        """
        if message["type"] != "http.response.body":
            await self.send(message)
            return
        await self.send({**message, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while (await self._receive()).get("more_body", False):
                    pass
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def _expects_continue(scope: Scope) -> bool:
    """Return whether the client waits to be asked for its body, and so sends none after an answer."""
    return any(name == b"expect" for name, _ in scope["headers"])
