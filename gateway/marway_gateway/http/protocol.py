"""HTTP/1.1 on one client connection, with the bounds that uvicorn's lacks.

- Headers are bounded in number and size (431), and in time, from the connection's first moment or the request's first
  byte (408).
- A body must keep coming, at a low rate at least, as Apache's mod_reqtimeout demands it (408). Time in which we do
  not read, because a pod is slow, is not counted.
- A client that reads nothing of its answer for long is cut off.
- There are only so many connections (503).
- While the process stops, each answer tells its client to connect anew, elsewhere.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from marway.wire.http1 import FIELDS_BYTES_MAX, Fault
from marway.wire.problems import CONTENT_TYPE, Problem
from marway_gateway.access.cors import Cors
from marway_gateway.http.cycle import Cycle
from marway_gateway.http.large_bodies import LargeBodies
from marway_http.channel import header_block

__all__ = ["ClientBounds", "protocol_of"]

_HEADERS_MAX: Final = 100
_LOOK_S: Final = 0.5
_LINGER_S: Final = 1.0
_RETRY_AFTER: Final = b"retry-after: 1\r\n"


@dataclass(slots=True)
class ClientBounds:
    """What one port's clients may do; times in seconds.

    Attributes:
        max_connections: How many may be connected.
        header_timeout_s: For a request's headers.
        body_timeout_s: For its body: what it may lag behind ``body_min_rate``.
        body_min_rate: Bytes a second.
        write_timeout_s: For reading on when an answer fills the connection.
        leaving: Whether each answer should be its connection's last.
        cors: Gives the headers by which browsers let other origins' pages read answers; None for none.
    """

    max_connections: int
    header_timeout_s: float
    body_timeout_s: float
    body_min_rate: int
    write_timeout_s: float
    leaving: bool = False
    cors: Cors | None = None


def protocol_of(bounds: ClientBounds) -> type[asyncio.Protocol]:
    """Return what makes the protocol of a new connection, as uvicorn's `http` setting takes it."""

    class Bounded(_BoundedHttp):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, bounds=bounds, **kwargs)

    return Bounded


class _BoundedHttp(LargeBodies):
    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        bounds: ClientBounds,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds = bounds
        self._header_bytes = 0
        """Of the request that is coming; as long as they are coming, with what else came at once."""
        self._fed_bytes = 0
        self._idle_since = 0.0
        self._receiving: str | None = "headers"
        self._deadline = 0.0
        self._ended = False
        self._look: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    # -- the connection ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > self._bounds.max_connections:
            self._end(
                b"503 Service Unavailable",
                Problem(
                    title="Overloaded",
                    status=503,
                    detail=f"this gateway serves {self._bounds.max_connections} connections already: try again",
                    code="overloaded",
                ),
                _RETRY_AFTER,
                linger_s=0,  # it would keep the very connection that is one too many
            )
            return
        self._expect("headers", self._bounds.header_timeout_s)
        self._look = self.loop.call_later(_LOOK_S, self._look_again)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiving = None
        self._stop_looking()
        self.resume_writing()
        super().connection_lost(exc)
        super()._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._fed_bytes = len(data)
        if self._receiving == "headers":
            self._header_bytes += len(data)
        elif self._receiving == "body":
            earned = self._deadline + len(data) / self._bounds.body_min_rate
            self._deadline = min(earned, self.loop.time() + self._bounds.body_timeout_s)
        super().data_received(data)
        if self._receiving is None:
            self._stop_looking()
        elif self._receiving == "headers" and self._too_long() and not self._ended:
            self.send_400_response("headers too large")
        elif self._look is None and not self.transport.is_closing():
            self._look = self.loop.call_later(_LOOK_S, self._look_again)

    @property
    def leaving(self) -> bool:
        return self._bounds.leaving

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self._bounds.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    # -- a request -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._header_bytes = self._fed_bytes
        self._expect("headers", self._bounds.header_timeout_s)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._header_bytes > FIELDS_BYTES_MAX:  # of what came with them, some may be the body
            self._header_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if self._too_long():
            raise httptools.HttpParserError("headers too large")
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self._expect("body", self._bounds.body_timeout_s)
            if self._bounds.cors is not None:
                assert isinstance(self.cycle, Cycle)
                self.cycle.add_cors(self._bounds.cors.answer_headers(self.headers))

    def on_message_complete(self) -> None:
        self._receiving = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._end_after_earlier():
            return
        fault = self._fault or Fault(400, "Bad Request", "invalid_request", msg)
        if self._too_long():
            detail = f"at most {_HEADERS_MAX} headers and {FIELDS_BYTES_MAX} bytes of them are accepted"
            fault = Fault(431, "Request Header Fields Too Large", "headers_too_large", detail)
        problem = Problem(title=fault.reason, status=fault.status, detail=fault.detail, code=fault.code)
        self._end(b"%d %b" % (fault.status, fault.reason.encode()), problem)

    def _too_long(self) -> bool:
        return self._header_bytes > FIELDS_BYTES_MAX or len(self.headers or ()) > _HEADERS_MAX

    # -- time ----------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Go on as uvicorn does, but with one timer for an idle connection that is not set anew for each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        if self._ended:
            self.transport.close()
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_if_idle(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        """Leave the timer, which uvicorn cancels with each piece that comes: it looks when it is due."""

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self.transport.is_closing() or self._receiving is not None or not self.cycle.response_complete:
            return  # a request is under way; its answer sets it again
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._look_if_idle(left_s)
        else:
            self.transport.close()

    def _look_if_idle(self, within_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(within_s, self.timeout_keep_alive_handler)

    def _expect(self, what: str, within_s: float) -> None:
        self._receiving = what
        self._deadline = self.loop.time() + within_s

    def _look_again(self) -> None:
        self._look = None
        if self._receiving is None or self.transport.is_closing():
            return
        if self._waits_for_us():
            self._deadline += _LOOK_S
        elif self.loop.time() >= self._deadline:
            self._too_slow()
            return
        self._look = self.loop.call_later(_LOOK_S, self._look_again)

    def _waits_for_us(self) -> bool:
        """Return whether it is no fault of the client that nothing comes."""
        if self.flow.read_paused:
            return True
        cycle = self._latest()
        if cycle is None or cycle.response_complete:
            return False
        # It has the beginning of its next request out before it has its answer, or waits to be told to go on.
        return self._receiving == "headers" or cycle.waiting_for_100_continue

    def _latest(self) -> RequestResponseCycle | None:
        """Return the request that came last, answered or not."""
        return self.cycle

    def _stop_looking(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _too_slow(self) -> None:
        what = self._receiving
        if what == "body" and self.cycle.response_started:
            self.transport.abort()  # it has its answer already: nothing can be said any more
            return
        self._end(
            b"408 Request Timeout",
            Problem(
                title="Request too slow",
                status=408,
                detail=f"the request's {what} did not arrive in time",
                code="request_too_slow",
            ),
        )

    def _end_after_earlier(self) -> bool:
        """Close without a word on the request that is being read where an answer is due before, or has begun.

        Answers come in the order of requests (RFC 9112 §9.3.2): any other would be taken for the answer to an earlier
        one. Return whether that was so.
        """
        latest = self._latest()
        if latest is None or latest.response_complete:
            return False
        if self._receiving == "body":
            if latest.response_started:
                self.transport.abort()
                return True
            if not self.pipeline:
                return False  # it is this request that is wrong
            self.pipeline.popleft()
        else:
            latest.keep_alive = False  # it says so to its client
        self._receiving = None
        self._ended = True  # what comes is not read any more; `on_response_complete` closes
        return True

    def _end(self, status: bytes, problem: Problem, headers: bytes = b"", *, linger_s: float = _LINGER_S) -> None:
        """Answer and close, but go on reading for a while: what comes meanwhile would make the kernel drop the answer
        (RFC 9112 §9.6).
        """
        body = problem.body()
        self._receiving = None
        self._ended = True
        cycle = self._latest()
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if self._bounds.cors is not None:
            headers += header_block(self._bounds.cors.answer_headers(self.headers)).text
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
            % (status, CONTENT_TYPE.encode(), len(body), headers, body)
        )
        if linger_s and self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
            self.loop.call_later(linger_s, self.transport.abort)
        else:
            self.transport.close()
