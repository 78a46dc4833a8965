"""One HTTP/1.1 connection to a sidecar, with one request on it at a time.

A body that is in memory goes out in one write. A larger one is sent with `Expect: 100-continue` (RFC 9110 §10.1.1): a
sidecar that cannot take the request says so before the first byte of the body, so that it can still go to another pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

import httptools

from marway_gateway.http.body import RequestBody
from marway_gateway.transport.base import AttemptFailed, BodyStream, PodLost, PodUnreachable
from marway_gateway.transport.reply import NO_BODY, Reply, parse_response_headers

__all__ = ["HttpClientConnection"]

_WRITE_ONCE_BYTES: Final = 1024 * 1024
_HEADER_BYTES_MAX: Final = 64 * 1024
_HEADERS_MAX: Final = 200
_INTERIM_MAX: Final = 16
"""Answers such as `100 Continue` before the one that counts; a sidecar sends one at most."""


class HttpClientConnection(asyncio.Protocol):
    """Sends requests and gives their replies.

    Args:
        buffered_bytes: The largest body, of a size that was said, that is read before the reply is given.
        on_free: Told when the next request may be sent; a connection that ends in another way says nothing.
    """

    def __init__(self, *, buffered_bytes: int, on_free: Callable[[HttpClientConnection], None]) -> None:
        self._buffered_bytes = buffered_bytes
        self._on_free = on_free
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._closing = False
        # The request under way: its caller's future until it is over, and its reply from the head on.
        self._caller: asyncio.Future[Reply] | None = None
        self._reply: Reply | None = None
        self._upload: asyncio.Task[None] | None = None
        self._continue: asyncio.Future[None] | None = None
        # The response as far as it was parsed.
        self._headers: list[bytes] = []
        self._header_bytes = 0
        self._interim = 0
        self._chunked = False
        self._whole: list[bytes] = []
        self._complete = False
        self._reusable = False
        # Flow control, of what comes and of what we send.
        self._paused = False
        self._writable: asyncio.Future[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether a request may be sent."""
        return self._caller is None and not self._closing and not self._transport.is_closing()

    async def request(self, head: bytes, body: RequestBody) -> Reply:
        """Do as `Connection.request` says."""
        if not self.ready:
            raise PodUnreachable("closed the connection before anything was sent", reason="closed")
        path, end, headers = head.partition(b"\r\n")
        head = b"POST %b HTTP/1.1%b%b" % (path, end, headers)
        caller: asyncio.Future[Reply] = self._loop.create_future()
        self._caller = caller
        whole = body.whole
        if whole is not None and len(whole) <= _WRITE_ONCE_BYTES:
            self._transport.writelines((head, b"\r\n", whole))
        else:
            self._transport.write(head + b"expect: 100-continue\r\n\r\n")
            self._continue = self._loop.create_future()
            self._upload = self._loop.create_task(self._send(body, self._continue), name="upload")
        try:
            return await caller
        except asyncio.CancelledError:
            # The connection is free in the moment in which the answer has come, and may have another's request by now.
            if self._caller is caller:
                self.abandon()
            raise

    def close(self) -> None:
        """Send no more requests, and close when the one under way has ended."""
        self._closing = True
        if self._caller is None:
            self._transport.abort()

    # -- what a body asks of its source --------------------------------------------------------------------

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def abandon(self) -> None:
        """Nobody waits for the answer or its rest."""
        self._end()
        self._transport.abort()

    # -- the request ---------------------------------------------------------------------------------------

    async def _send(self, body: RequestBody, go_on: asyncio.Future[None]) -> None:
        """Send a body after the pod said that it wants it, in HTTP chunks where its size is not known."""
        chunked = body.content_length is None
        try:
            await go_on
            async for piece in body.stream():
                if self._transport.is_closing():
                    return
                if not piece:
                    continue  # an empty chunk would end the body
                self._transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n") if chunked else (piece,))
                if self._writable is not None:
                    await self._writable
            if chunked:
                self._transport.write(b"0\r\n\r\n")
        except Exception as exc:
            self._upload = None
            self._fail(exc)
        self._upload = None

    def _end(self) -> tuple[asyncio.Future[Reply] | None, Reply | None]:
        """Forget the request under way; return whose it was, and its reply."""
        caller, self._caller = self._caller, None
        reply, self._reply = self._reply, None
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.cancel()
        return caller, reply

    def _fail(self, error: Exception) -> None:
        """End the request under way with an error, and the connection with it."""
        caller, reply = self._end()  # first: its caller may send the body elsewhere
        if caller is not None and not caller.done():
            caller.set_exception(error)
        elif reply is not None and reply.stream is not None:
            reply.stream.end(error)
        self._transport.abort()

    def _finish(self) -> None:
        """Give the reply, or its end, and be free again if the connection allows that."""
        reusable = self._reusable and self._upload is None  # it has its answer, and takes no more of the body
        caller, reply = self._end()
        if caller is not None and reply is not None:
            if reply.stream is not None:
                reply.stream.end()
            elif not caller.done():
                reply.data = b"".join(self._whole)
                caller.set_result(reply)
        self._whole = []
        self._complete = False
        if reusable and self.ready:
            self.resume()  # the last part may have been one too many for its reader
            self._on_free(self)
        else:
            self._transport.abort()

    # -- the transport -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        reply = self._reply
        if exc is None and reply is not None and reply.content_length is None and not self._chunked:
            self._finish()  # the end of the connection is that of the body
        else:
            self._fail(PodLost("closed the connection before it had answered", reason="connection_lost"))

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._caller is None:
            self._transport.abort()  # whatever this is, the next request must not be answered with it
            return
        if self._reply is None:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._reusable = False
            if not self._complete:  # what comes behind an answer takes nothing from it
                cause = exc.__context__
                odd = PodLost("answered with something else than HTTP", reason="bad_answer")
                self._fail(cause if isinstance(cause, AttemptFailed) else odd)
                return
        if self._complete:
            self._finish()
        elif self._reply is None and self._header_bytes > _HEADER_BYTES_MAX:
            self._fail(_too_many_headers())

    # -- the parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._reusable = False  # it goes on after the end of its answer
        self._headers = []
        self._chunked = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reply is not None:
            return  # a trailer
        name = name.lower()
        self._headers.append(b"%b: %b\r\n" % (name, value))
        if name == b"transfer-encoding":
            self._chunked = True
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
            if status == 100 and self._continue is not None and not self._continue.done():
                self._continue.set_result(None)
            return
        self._interim = self._header_bytes = 0
        outcome, retry_after_s, block, length, run = parse_response_headers(b"".join(self._headers))
        if status in NO_BODY:
            length = 0
        stream = BodyStream(self) if length is None or length > self._buffered_bytes else None
        self._reply = Reply(status, outcome, retry_after_s, block, None, length, run, stream)
        if stream is not None and self._caller is not None and not self._caller.done():
            self._caller.set_result(self._reply)

    def on_body(self, data: bytes) -> None:
        if self._reply is None or self._complete:
            return  # of something that goes on after the end of the answer
        if self._reply.stream is not None:
            self._reply.stream.feed(data)
        else:
            self._whole.append(data)

    def on_chunk_complete(self) -> None:
        if self._reply is not None and self._reply.stream is not None and not self._complete:
            self._reply.stream.end_chunk()

    def on_message_complete(self) -> None:
        if self._reply is None:
            return  # an interim answer
        self._reusable = not self._complete and self._parser.should_keep_alive()
        self._complete = True


def _too_many_headers() -> PodLost:
    return PodLost(f"sent more than {_HEADERS_MAX} headers or {_HEADER_BYTES_MAX} bytes of them", reason="bad_answer")
