"""HTTP/1.1 connections of the sidecar: uvicorn's fast protocol, with limits on headers, which it has none of.

Predictions find their connection in their ASGI scope (`CONNECTION`). It tells them when their client leaves, with no
task that listens for it, and writes an answer at once that ASGI would have in two messages, checked header by header.
The application is called at once, and without a task (`EagerTask`).
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from marway.body_pieces import LARGE_BODY_BYTES
from marway.errors import Draining, RequestTooSlow
from marway.wire import frames
from marway.wire.http1 import Fault
from marway_http.channel import HeaderBlock
from marway_http.eager import EagerTask
from marway_sidecar.api.framed import FramedConnection
from marway_sidecar.api.large_bodies import LargeBodies

__all__ = ["CONNECTION", "UNCOUNTED_BYTES", "BoundedConnection"]

CONNECTION: Final = "marway.connection"
"""The connection's key in the scope of a request."""
UNCOUNTED_BYTES: Final = LARGE_BODY_BYTES
"""A connection holds as much of a body by itself, before it is read no further."""
_FRAMES: Final = frames.UPGRADE.encode()
_FRAMES_PATH: Final = frames.PATH.encode()
_SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: %b\r\n\r\n" % _FRAMES
_PACE_LOOK_S: Final = 0.5
_OF_A_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})
_HEADERS_S: Final = 10.0
"""How long a connection may take from its first byte, or from its opening, to the end of a request's headers."""
_JOINED_BYTES: Final = 64 * 1024
"""A larger body is not copied to stand beside its headers."""
_LOOK_S: Final = 0.1
"""How often a connection that is not read is looked at for its client's leaving."""
_LEFT: Final = select.POLLERR | select.POLLHUP | getattr(select, "POLLRDHUP", 0)  # the last is Linux's


class BoundedConnection(LargeBodies):
    """Refuses headers that are too many, too long or too slow, and bodies that are too slow; answers bad requests with
    problems.

    Attributes:
        body_timeout_s: What a body may lag behind ``body_min_rate``, seconds. Time in which it is not read is not
            counted.
        body_min_rate: Bytes a second.
    """

    body_timeout_s = 10.0
    body_min_rate = 1024
    _guard: Callable[[Iterable[tuple[bytes, bytes]]], Response | None] | None = None
    _too_slow: asyncio.TimerHandle | None = None
    _idle_since = 0.0
    _pace: asyncio.TimerHandle | None = None
    _body_due = 0.0
    _gone: Callable[[], None] | None = None
    _parsing = False
    _to_start: tuple[RequestResponseCycle, Any] | None = None

    @classmethod
    def with_pace(cls, *, body_timeout_s: float, body_min_rate: int) -> type[BoundedConnection]:
        """Return the same with other bounds on bodies."""
        bounds = {"body_timeout_s": body_timeout_s, "body_min_rate": body_min_rate}
        return type("BoundedConnection", (cls,), bounds)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._guard = getattr(self.app, "guard", None)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_headers()
        self._stop_pace()
        super().connection_lost(exc)
        self._unset_keepalive()
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._parsing = True
        super().data_received(data)
        self._parsing = False
        if self._to_start is not None:
            (cycle, app), self._to_start = self._to_start, None
            self._start(cycle, app)
        # Most requests come in one piece, and need no timer.
        expected = self._in_headers and self.reads_on()
        if expected != (self._too_slow is not None):
            if expected:
                self._expect_headers()
            else:
                self._have_headers()
        if not self._in_headers and self._body_comes(self.cycle):
            self._watch_pace(len(data))
        elif self._pace is not None:
            self._stop_pace()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._parsing:
            self._to_start = cycle, app  # what came may have the whole body: that is known when it is parsed
        else:
            self.loop.call_soon(self._start, cycle, app)  # the request before may have been answered within a task

    def _start(self, cycle: RequestResponseCycle, app: Any) -> None:
        request = _Request()
        tasks: set[Any] = self.tasks
        tasks.add(request)
        request.task = EagerTask(cycle.run_asgi(self._guarded(cycle, app)), partial(tasks.discard, request))

    def _guarded(self, cycle: RequestResponseCycle, app: Any) -> Any:
        """Return what answers a request: the app, or a refusal."""
        refusal = self._guard(cycle.scope["headers"]) if self._guard is not None else None
        return app if refusal is None else refusal

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self.scope[CONNECTION] = self  # type: ignore[typeddict-unknown-key]  # an extension of ASGI's scope

    # -- frames --------------------------------------------------------------------------------------------

    def takes_upgrade(self) -> bool:
        """Whether this is a gateway that asks for frames, and nothing of it waits for an answer."""
        cycle: Any = self.cycle
        waits = cycle is not None and not cycle.response_complete
        path = self.url.partition(b"?")[0]
        asks = self.parser.get_method() == b"GET" and path == _FRAMES_PATH and self._get_upgrade() == _FRAMES
        if not asks or waits or self.parser.get_http_version() != "1.1" or not hasattr(self.app, "answer_framed"):
            return False
        has_body = any(name in _OF_A_BODY for name, _ in self.headers)
        return not has_body and (self._guard is None or self._guard(self.headers) is None)

    def upgraded(self, came: bytes) -> None:
        """Change to frames."""
        self._have_headers()
        self._unset_keepalive()
        self.connections.discard(self)
        framed = FramedConnection(self.app, self.connections)
        self.transport.set_protocol(framed)
        framed.connection_made(self.transport)
        self.transport.write(_SWITCHING)
        if came:
            framed.data_received(came)

    # -- for the request that is being answered ------------------------------------------------------------

    def take_whole_body(self, scope: Scope) -> bytes | None:
        """Return the body of the request with this scope if it is here to its end; else it has to be received."""
        cycle = self.cycle
        if cycle.scope is not scope or cycle.more_body or cycle.disconnected or len(cycle.body) > UNCOUNTED_BYTES:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        return body

    def when_gone(self, gone: Callable[[], None] | None) -> None:
        """Have ``gone`` called when the client leaves, once; None takes that back. The whole body must have come."""
        self._gone = gone
        if gone is not None:
            self.flow.resume_reading()  # who does not read is not told
            if self.transport.is_closing():
                self._gone = None
                gone()

    @contextlib.contextmanager
    def unread(self, gone: Callable[[], None]) -> Iterator[None]:
        """Read nothing while the context is open, and have ``gone`` called when the client leaves all the same.

        What it sent stays in the kernel, which then makes the client wait. A connection that is not read tells
        nobody of its end, so it is looked at now and then.
        """
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), _LEFT)
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            if self.transport.is_closing() or poll.poll(0):
                gone()
            else:
                timer = self.loop.call_later(_LOOK_S, look)

        self.flow.pause_reading()
        look()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            self.flow.resume_reading()

    def answer(self, scope: Scope, status: int, headers: HeaderBlock, body: bytes, *, close: bool) -> bool:
        """Send a whole answer and return True; False when that has to be done by ASGI's messages.

        Args:
            scope: Of the request that it answers.
            status: Its status.
            headers: Its headers.
            body: Its body.
            close: Whether the connection is closed after it.
        """
        cycle = self.cycle
        if cycle.scope is not scope or cycle.response_started or self.flow.write_paused:
            return False  # another request has come behind it, or the client reads too slowly
        if cycle.disconnected:
            return True
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        keep = cycle.keep_alive and not close
        lines = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:  # the date
            lines += (name, b": ", value, b"\r\n")
        lines += (headers.text, b"\r\n" if keep else b"connection: close\r\n\r\n")
        if len(body) <= _JOINED_BYTES:
            lines.append(body)
            self.transport.write(b"".join(lines))
        else:
            self.transport.write(b"".join(lines))
            self.transport.write(body)
        cycle.message_event.set()
        cycle.keep_alive = keep
        if not keep:
            self.transport.close()
        self.on_response_complete()
        return True

    # -- time ----------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Go on as uvicorn does, with one timer for idle connections that is not set anew for each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._large is not None:
            self._drop_body()
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        if self._refused:
            self.transport.close()
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_if_idle(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        """Leave the timer, where uvicorn cancels it with each piece that comes: it looks when it is due."""

    def _unset_keepalive(self) -> None:
        super()._unset_keepalive_if_required()

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        # There is a request: the timer is first set after an answer.
        if self.transport.is_closing() or self._in_headers or not self.cycle.response_complete:
            return  # set again when it is answered
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_if_idle(left)
        else:
            self.transport.close()

    def _look_if_idle(self, within_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(within_s, self.timeout_keep_alive_handler)

    def _expect_headers(self) -> None:
        if self._too_slow is None:
            self._too_slow = self.loop.call_later(_HEADERS_S, self._headers_late)

    def _have_headers(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _headers_late(self) -> None:
        self._too_slow = None
        if self.reads_on():
            detail = f"the headers had not come within {_HEADERS_S:g} seconds"
            self.refuse(Fault(408, "Request Timeout", RequestTooSlow.code, detail))

    def _body_comes(self, cycle: RequestResponseCycle | None) -> bool:
        """Return whether the body of the request that came last is not whole; before frames there is none."""
        return cycle is not None and cycle.more_body

    def _watch_pace(self, came: int) -> None:
        """Take in that so many bytes came of a request whose body is not whole."""
        now = self.loop.time()
        if self._pace is None:
            self._body_due = now + self.body_timeout_s
            self._pace = self.loop.call_later(_PACE_LOOK_S, self._look_at_pace)
        else:
            self._body_due = min(self._body_due + came / self.body_min_rate, now + self.body_timeout_s)

    def _stop_pace(self) -> None:
        if self._pace is not None:
            self._pace.cancel()
            self._pace = None

    def _look_at_pace(self) -> None:
        self._pace = None
        cycle: Any = self.cycle
        if not self.reads_on() or not cycle.more_body:
            return
        if self.flow.read_paused or (cycle.waiting_for_100_continue and not cycle.response_complete):
            self._body_due += _PACE_LOOK_S  # it is us who keep the client waiting
        elif self.loop.time() >= self._body_due:
            if cycle.response_started:
                self.transport.abort()  # it has its answer already: nothing can be said any more
                return
            self._drop_body()
            self.refuse(Fault(408, "Request Timeout", RequestTooSlow.code, "the request's body did not arrive in time"))
            return
        self._pace = self.loop.call_later(_PACE_LOOK_S, self._look_at_pace)


class _Request:
    """A request among uvicorn's tasks, which it cancels when the time to drain is over."""

    task: EagerTask

    def cancel(self, msg: object = None) -> None:
        """End it."""
        self.task.interrupt(Draining("this pod stopped before it had the answer: send the request again"))
