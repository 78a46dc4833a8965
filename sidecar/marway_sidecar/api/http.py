"""What every route of the sidecar needs of HTTP: problem documents, clients that go away, answers to half a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from marway.errors import MarwayError
from marway.wire import headers, problems
from marway_http.channel import CHANNEL, HeaderBlock
from marway_http.http1.request import Request
from marway_sidecar.api.channel import ClientGone, Reply

__all__ = ["HttpChannel", "cancelling", "problem_response"]

_LINGER_S: Final = 1.0


def problem_response(error: MarwayError, *, request_id: str | None = None, outcome: str | None = None) -> Response:
    """Return the problem document for ``error``."""
    problem, extra = problems.problem_of(error, request_id=request_id)
    if request_id is not None:
        extra[headers.REQUEST_ID] = request_id
    if outcome is not None:
        extra[headers.OUTCOME] = outcome
    return Response(problem.body(), problem.status, extra, media_type=problems.CONTENT_TYPE)


class HttpChannel:
    """A request over HTTP: its way to its client and back.

    Args:
        scope, receive, send: As ASGI gives them, on an `HttpConnection`.

    Attributes:
        received: Whether the whole body came.
        started: Whether the answer has begun, so that no other can be given.
    """

    __slots__ = ("_receive", "_request", "_scope", "_send", "received", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.received = False
        self.started = False
        self._request: Request = scope[CHANNEL]
        self._scope = scope
        self._receive = receive
        self._send = send

    @property
    def has_come(self) -> bool:
        """Whether the whole body is here, so that `receive` returns it at once."""
        return self._request.body is not None

    async def receive(self) -> bytes:
        """Return the next piece of the body, b"" perhaps; `received` says whether it was the last.

        Raises:
            ClientGone: No more will come.
        """
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientGone
        self.received = not message["more_body"]
        piece: bytes = message["body"]
        return piece

    async def send(self, message: Message) -> None:
        """Send a message to the client; returns when the connection takes more."""
        self.started = True
        await self._send(message)

    def when_gone(self, gone: Callable[[], None] | None) -> None:
        """Have ``gone`` called when the client leaves, once; None takes that back. The whole body must have come."""
        self._request.when_gone(gone)

    @contextlib.contextmanager
    def cancelled_when_gone(self) -> Iterator[None]:
        """End what is done in the context when the client leaves; the whole body must have come.

        Raises:
            ClientGone: It left.
        """
        with cancelling(ClientGone) as cancel:
            self.when_gone(cancel)
            try:
                yield
            finally:
                self.when_gone(None)

    @contextlib.contextmanager
    def unread(self) -> Iterator[None]:
        """Read nothing of the client while the context is open; end what is done in it when the client leaves.

        Raises:
            ClientGone: It left.
        """
        with cancelling(ClientGone) as cancel, self._request.unread(cancel):
            yield

    def answer_now(self, reply: Reply, *, close: bool) -> bool:
        """Return False: `answer` does it."""
        return False

    async def answer(self, reply: Reply, *, close: bool) -> None:
        """Send a whole answer."""
        self.started = True
        block = HeaderBlock(reply.head, reply.head.count(b"\n"))
        await self._request.answer(reply.status, block, reply.body, close=close)

    async def begin(self, status: int, head: bytes, *, close: bool) -> None:
        """Send the beginning of an answer; ``head`` as a `Reply` has it."""
        raw = [line.split(b": ", 1) for line in head.split(b"\r\n")[:-1]]
        if close:
            raw.append([b"connection", b"close"])
        await self.send({"type": "http.response.start", "status": status, "headers": raw})

    async def respond(self, response: Response, *, close: bool) -> None:
        """Send a whole answer that says nothing of the request's model.

        Args:
            response: The answer.
            close: Close the connection after it.
        """
        send = self.send
        if close:
            response.headers["connection"] = "close"
            if not self.received and not _expects_continue(self._scope):
                send = self._lingering
        await response(self._scope, self._receive, send)

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


@contextlib.contextmanager
def cancelling(error: Callable[[], Exception]) -> Iterator[Callable[[], None]]:
    """Give what ends the context's work from outside, which then raises ``error``."""
    request = asyncio.current_task()
    assert request is not None
    ended = False

    def cancel() -> None:
        nonlocal ended
        if not ended:
            ended = True
            request.cancel()

    try:
        yield cancel
    except asyncio.CancelledError:
        if not ended:
            raise
        request.uncancel()
        raise error() from None


def _expects_continue(scope: Scope) -> bool:
    """Return whether the client waits to be asked for its body, and so sends none after an answer."""
    return any(name == b"expect" for name, _ in scope["headers"])
