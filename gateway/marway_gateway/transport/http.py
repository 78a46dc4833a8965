"""One HTTP/1.1 connection to a sidecar, with one request on it at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

import httptools

from marway_gateway.transport.base import AttemptFailed, Headers, PodLost, PodUnreachable
from marway_gateway.transport.response import Response, Waiter, answer_to
from marway_gateway.transport.response_headers import said_of

__all__ = ["Connection", "HttpRequest"]

_HEADER_BYTES_MAX: Final = 64 * 1024
_HEADERS_MAX: Final = 200
_INTERIM_MAX: Final = 16
"""Answers such as `100 Continue` before the one that counts; a sidecar sends one at most."""
_ONE_WRITE_BYTES: Final = 16 * 1024
"""Copying so little behind the head costs less than a second buffer to send."""
_NO_BODY: Final = frozenset({204, 304})


class _Unconnected(asyncio.Transport):
    """Stands for the transport until there is one."""

    def is_closing(self) -> bool:
        return True

    def abort(self) -> None:
        """Do nothing."""


_UNCONNECTED: Final = _Unconnected()


class HttpRequest:
    """One request on a connection, for whoever waits for its answer: what it gives up late is never another's.

    A connection is free for the next request in the moment that an answer has come. Whoever was cancelled in that
    same turn of the event loop runs only later, when the connection may have another request on it.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def answer(self, waiter: asyncio.Future[Response]) -> Response:
        """Return the response to the request, as ``waiter`` has it; who is cancelled wants none.

        Raises:
            PodUnreachable: Nothing was sent: the connection had ended.
            PodLost: There is no response; the request may have been running.
        """
        return await answer_to(waiter, self.give_up)

    def give_up(self) -> None:
        """Want no answer: its connection ends with it, unless the request is over already."""
        self._connection.give_up(self)


class Connection(asyncio.Protocol):
    """Sends requests and gives their responses.

    Args:
        buffered_bytes: The largest body, of a size that was said, that is read before the response is given.
        on_free: Told when the next request may be sent; a connection that ends in another way says nothing.

    Attributes:
        idle_since: By the loop's clock, when it was free last; for whoever keeps it.
    """

    def __init__(self, *, buffered_bytes: int, on_free: Callable[[Connection], None]) -> None:
        self.idle_since = 0.0
        self._buffered_bytes = buffered_bytes
        self._on_free = on_free
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = _UNCONNECTED
        self._parser = httptools.HttpResponseParser(self)
        # The request under way: whoever gives up another one changes nothing here.
        self._request: HttpRequest | None = None
        self._waiter: Waiter | None = None
        self._response: Response | None = None
        self._sending: asyncio.Task[None] | None = None
        self._go_on: asyncio.Future[None] | None = None
        # The response as far as it was parsed.
        self._headers: Headers = []
        self._header_bytes = 0
        self._interim = 0
        self._whole: list[bytes] | None = None
        self._ends_with_connection = False
        self._complete = False
        self._reusable = False
        # Flow control, of what comes and of what we send.
        self._paused = False
        self._writable: asyncio.Future[None] | None = None

    @property
    def open(self) -> bool:
        """Whether a request may be sent."""
        return not self._transport.is_closing()

    async def ask(self, head: bytes, body: bytes) -> Response:
        """Send a request whose body is in memory; return the response as soon as its body is whole, or streams.

        Args:
            head: Request line and headers, with the empty line at their end.
            body: All of the body.

        Raises:
            PodUnreachable: Nothing was sent: the connection had ended.
            PodLost: There is no response; the request may have been running.
        """
        waiter: asyncio.Future[Response] = self._loop.create_future()
        return await self.send(head, body, waiter).answer(waiter)

    def send(self, head: bytes, body: bytes, waiter: Waiter) -> HttpRequest:
        """Send a request whose body is in memory; ``waiter`` is given what `ask` returns or raises.

        Args:
            head: Request line and headers, with the empty line at their end.
            body: All of the body.
            waiter: Must not raise anything.
        """
        request = HttpRequest(self)
        if not self._begin(request, waiter):
            return request
        if len(body) < _ONE_WRITE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return request

    async def ask_streaming(self, head: bytes, pieces: AsyncIterator[bytes], *, chunked: bool) -> Response:
        """Send a request whose body comes in pieces, after the pod said that it wants it; return the response.

        The head must say `Expect: 100-continue`. A response that comes before the body was sent ends the sending.

        Args:
            head: Request line and headers, with the empty line at their end.
            pieces: The body.
            chunked: Whether it is sent in HTTP chunks, as its size is not known.

        Raises:
            PodUnreachable: Nothing was sent: the connection had ended.
            PodLost: There is no response; the request may have been running.
            Exception: Whatever ``pieces`` raises.
        """
        waiter: asyncio.Future[Response] = self._loop.create_future()
        request = HttpRequest(self)
        if self._begin(request, waiter):
            self._go_on = self._loop.create_future()
            self._transport.write(head)
            self._sending = self._loop.create_task(self._send(self._go_on, pieces, chunked=chunked))
        return await request.answer(waiter)

    def give_up(self, request: HttpRequest) -> None:
        """Have nobody wait for a request; one that is over already changes nothing."""
        if self._request is request:
            self._request = self._waiter = self._response = None
            self._stop_sending()
            self.close()

    def close(self) -> None:
        """Close it, whatever is under way."""
        self._transport.abort()

    # -- what a response asks of its source ----------------------------------------------------------------

    def pause(self) -> None:
        """Read no more for now."""
        if self.open and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.open and self._paused:
            self._paused = False
            self._transport.resume_reading()

    def abandon(self) -> None:
        """Nobody wants the rest of the response."""
        self._request = self._response = None
        self._stop_sending()
        self.close()

    # -- the request ---------------------------------------------------------------------------------------

    def _begin(self, request: HttpRequest, waiter: Waiter) -> bool:
        """Take a request on; return whether it can be sent."""
        if not self.open:  # it ended since it was taken, and may have told so already: nobody would tell this waiter
            self._loop.call_soon(_tell_unsent, waiter)
            return False
        self._request, self._waiter = request, waiter
        return True

    async def _send(self, go_on: asyncio.Future[None], pieces: AsyncIterator[bytes], *, chunked: bool) -> None:
        try:
            await go_on
            async for piece in pieces:
                if not self.open:
                    return
                if not piece:
                    continue  # an empty chunk would end the body
                if chunked:
                    self._transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
                else:
                    self._transport.write(piece)
                if self._writable is not None:
                    await self._writable
            if chunked:
                self._transport.write(b"0\r\n\r\n")
        except Exception as exc:
            self._sending = None
            self._fail(exc)
            return
        self._sending = None
        if self._complete:
            self._finish()

    def _fail(self, error: Exception) -> None:
        """End the request under way with an error, and the connection with it."""
        waiter, response = self._waiter, self._response
        self._request = self._waiter = self._response = None
        self._stop_sending()  # before whoever is told sends the body elsewhere
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        elif response is not None:
            response.end(error)
        self.close()

    def _finish(self) -> None:
        """Give the response, or its end, and be free again if the connection allows that."""
        waiter, response = self._waiter, self._response
        self._request = self._waiter = self._response = None
        if response is not None:
            if waiter is not None:
                response.data = b"".join(self._whole or ())
            response.end()
        if self._sending is not None:
            self._stop_sending()  # it has its answer, and takes no more of the body
            self._reusable = False
        if self._reusable and self.open:
            self.resume()  # the last part may have been one too many for its reader
            self._complete = False
            self._on_free(self)
        else:
            self.close()
        # Last, for it may send the next request at once.
        if waiter is not None and response is not None and not waiter.done():
            waiter.set_result(response)

    def _stop_sending(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()

    # -- the transport -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_sending()
        self.resume_writing()
        if self._response is not None and self._waiter is None and self._ends_with_connection and exc is None:
            response = self._response
            self._request = self._response = None
            response.end()
            return
        self._fail(PodLost("closed the connection before it had answered", reason="connection_lost"))

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None and self._response is None:
            self.close()  # nothing was asked: whatever this is, the next request must not be answered with it
            return
        if self._waiter is not None and self._response is None:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if self._complete:  # what came behind the answer takes nothing from it
                self._reusable = False
                self._finish()
                return
            cause = exc.__context__
            self._fail(
                cause
                if isinstance(cause, AttemptFailed)
                else PodLost("answered with something else than HTTP", reason="bad_answer")
            )
            return
        if self._complete:
            self._finish()
        elif self._response is None and self._header_bytes > _HEADER_BYTES_MAX:
            self._fail(_too_many_headers())

    # -- the parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._reusable = False  # it goes on after the end of its answer
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is not None:
            return  # a trailer
        self._headers.append((name.lower(), value))
        if len(self._headers) > _HEADERS_MAX:
            raise _too_many_headers()

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > _INTERIM_MAX:
                raise PodLost(f"answered with status {status}", reason="bad_answer")
            if status == 100 and self._go_on is not None and not self._go_on.done():
                self._go_on.set_result(None)
            return
        length: int | None = 0 if status in _NO_BODY else None
        chunked = False
        for name, value in self._headers:
            if name == b"content-length" and length is None:
                length = int(value)  # the parser has checked it
            elif name == b"transfer-encoding":
                chunked = True
        response = self._response = Response(status, said_of(self._headers), length, self)
        self._interim = 0
        if length is not None and length <= self._buffered_bytes:
            self._whole = []
            return
        self._whole = None
        self._ends_with_connection = length is None and not chunked
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(response)

    def on_body(self, data: bytes) -> None:
        if self._complete:
            return  # of something that goes on after the end of the answer
        if self._whole is not None:
            self._whole.append(data)
        elif self._response is not None:
            self._response.feed(data)

    def on_chunk_complete(self) -> None:
        if self._whole is None and self._response is not None and not self._complete:
            self._response.end_chunk()

    def on_message_complete(self) -> None:
        if self._response is None:
            return  # an interim answer
        self._reusable = not self._complete and self._parser.should_keep_alive()
        self._complete = True
        self._header_bytes = 0


def _too_many_headers() -> PodLost:
    return PodLost(f"sent more than {_HEADERS_MAX} headers or {_HEADER_BYTES_MAX} bytes of them", reason="bad_answer")


def _tell_unsent(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_exception(PodUnreachable("closed the connection before anything was sent", reason="closed"))
