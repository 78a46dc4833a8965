"""HTTP/1.1 on one connection, for gateway and sidecar: llhttp (httptools) reads it, uvicorn's server runs it.

Headers are bounded in number and size (431), and in time, from the connection's first moment or the request's first
byte (408). A body must keep coming, as Apache's mod_reqtimeout demands it (408); time in which we do not read is not
counted. What else clients may do, `marway_http.http1.limits` says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, cast

from marway.process.allocator import keep_freed_memory
from marway.wire.problems import Problem
from marway_http.channel import LARGE_BODY_BYTES, Headers, header_block
from marway_http.http1.heads import refusal, refused
from marway_http.http1.limits import ConnectionLimits, FlowControl, Pace, Part
from marway_http.http1.reader import BadRequest, RequestReader
from marway_http.http1.request import Request

__all__ = ["HttpConnection"]

_HELD_BYTES_MAX: Final = 512 * 1024
"""From here on a client is not read until the application, which wants its body, has caught up."""
_PATIENCE_S: Final = 0.02
"""How long a small body may come behind its head before its request is begun without it."""
_LINGER_S: Final = 1.0


class HttpConnection(asyncio.Protocol):
    """One connection.

    Args:
        config, server_state, app_state: What uvicorn gives to the class in its `http` setting.
        limits: What clients of this port may do.
    """

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None, *, limits: ConnectionLimits
    ) -> None:
        self.limits = limits
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.flow: FlowControl
        self._app = config.loaded_app
        self._server_state = server_state
        self._app_state = app_state
        self.reader = RequestReader(self)
        self._latest: Request | None = None
        self._answering: Request | None = None
        self._held: Request | None = None
        """The request to start once all that came is parsed, and its small body has come."""
        self._waiting: deque[Request] = deque()
        self._ended = False
        """Whether nothing more is read."""
        self._pace = Pace(self, limits, config.timeout_keep_alive)
        self._patience: asyncio.TimerHandle | None = None
        self.tasks: set[Any] = server_state.tasks
        """What uvicorn waits for before it ends, and cancels when the time for that is over."""

    @property
    def default_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Headers of each answer: the date."""
        return tuple(self._server_state.default_headers)

    # -- the transport -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.flow = FlowControl(self.transport, self.loop, self.limits.write_timeout_s)
        connections = self._server_state.connections
        connections.add(self)
        self._client = _address(transport.get_extra_info("peername"))
        self._server = _address(transport.get_extra_info("sockname"))
        most = self.limits.max_connections
        if most is not None and len(connections) > most:
            detail = f"this gateway serves {most} connections already: try again"
            # It does not linger: it would keep the very connection that is one too many.
            self._refuse(refused(503, "overloaded", detail, "Overloaded"), b"retry-after: 1\r\n", linger_s=0)
            return
        self._pace.watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(self)
        self._pace.close()
        if self._patience is not None:
            self._patience.cancel()
        for request in (self._answering, self._latest):
            if request is not None:
                request.lose()
        self.resume_writing()
        if self._held is not None:
            self._start_held()  # for it to be reported
        self.reader.close()

    def shutdown(self) -> None:
        """Close as soon as what came is answered; uvicorn calls it."""
        if self._latest is None or self._latest.complete:
            self.transport.close()
        else:
            self._latest.keep_alive = False

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        reader = self.reader
        try:
            other_protocol = reader.feed(data)
        except BadRequest as exc:
            self._refuse(exc.problem)
        else:
            if other_protocol is not None:
                self._change_protocol(other_protocol)
            elif self._pace.part == "body" and not self._waiting and reader.pass_large_body():
                keep_freed_memory(self.limits.kept_bytes)
        if self._held is not None:
            self._start_or_wait(self._held)
        if self._pace.part is not None and self._patience is None and not self.transport.is_closing():
            self._pace.watch(len(data))

    # -- told by the reader --------------------------------------------------------------------------------

    def begun(self) -> None:
        """Take in that the head of a request comes."""
        pace = self._pace
        pace.part, pace.due, pace.resting_since = "headers", None, None

    def head(self, scope: dict[str, Any], *, keeps: bool, expects: bool) -> None:
        """Take in the head of a request."""
        limits, earlier, headers = self.limits, self._latest, self.reader.headers
        scope |= {"server": self._server, "client": self._client, "state": self._app_state.copy()}
        cors = limits.cors(headers) if limits.cors is not None else None
        keep_alive = keeps and not limits.leaving
        request = self._latest = Request(self, scope, keep_alive=keep_alive, expects=expects, cors=cors)
        self._pace.part, self._pace.due = "body", None
        if earlier is None or earlier.complete:
            self._held = request  # what came may be all of it: that is known when it is parsed
        else:
            self.flow.pause_reading()
            self._waiting.append(request)

    def body(self, data: bytes) -> None:
        """Take in what came of a body."""
        request = self._latest
        assert request is not None
        request.add(data)
        if request.pieces.held > (_HELD_BYTES_MAX if request.wanted else LARGE_BODY_BYTES):
            self.flow.pause_reading()

    def complete(self) -> None:
        """Take in that a request has come whole."""
        assert self._latest is not None
        self._pace.part = None
        self._latest.end()

    def takes_upgrade(self, method: bytes, url: bytes, headers: Headers) -> bool:
        """Return whether a request changes the protocol, with nothing that waits for an answer."""
        upgrade = self.limits.upgrade
        waits = self._latest is not None and not self._latest.complete
        return upgrade is not None and not waits and upgrade.asked(method, url, headers)

    def _change_protocol(self, came: bytes) -> None:
        assert self.limits.upgrade is not None
        self._pace.close()
        self._server_state.connections.discard(self)
        self.limits.upgrade.change(self.transport, self._server_state, came)

    # -- requests ------------------------------------------------------------------------------------------

    def _start_or_wait(self, request: Request) -> None:
        """Start a request, unless its small body is on its way: Python's clients write head and body apart."""
        if request.received or request.expects_continue or self._ended or not self.reader.has_small_body():
            self._start_held()
        elif self._patience is None:
            self._patience = self.loop.call_later(_PATIENCE_S, self._start_without_body)

    def _start_without_body(self) -> None:
        self._start_held()
        if self._pace.part is not None and not self.transport.is_closing():
            self._pace.watch()

    def _start_held(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        request, self._held = self._held, None
        if request is not None:
            self._start(request)

    def _start(self, request: Request) -> None:
        self._answering = request
        request.start(self._app)

    def answered(self) -> None:
        """Go on with the next request; a request calls it when its answer was sent."""
        self._server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self._waiting:
            # Not from within: each answer would begin the next request, however many there are.
            self.loop.call_soon(self._start, self._waiting.popleft())
            return
        if self._ended:
            self.transport.close()
            return
        self._pace.resting_since = self.loop.time()

    def _refuse(self, problem: Problem, headers: bytes = b"", *, linger_s: float = _LINGER_S) -> None:
        """Answer for the request that is being read, and close.

        What comes is read for a while: it would make the kernel drop the answer (RFC 9112 §9.6).
        """
        if self._end_after_earlier():
            return
        self._pace.stop()
        self._ended = True
        latest, self._held = self._latest, None
        if latest is not None and not latest.complete:
            latest.lose()
        if self.limits.cors is not None:
            headers += header_block(self.limits.cors(self.reader.headers)).text
        self.transport.write(refusal(problem, headers + self.limits.refusal_headers))
        if linger_s and self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
            self.loop.call_later(linger_s, self.transport.abort)
        else:
            self.transport.close()

    def _end_after_earlier(self) -> bool:
        """Close without a word on the request that is being read where an answer is due before, or has begun.

        Answers come in the order of requests (RFC 9112 §9.3.2): any other would be taken for the answer to an earlier
        one. Return whether that was so.
        """
        latest = self._latest
        if latest is None or latest.complete:
            return False
        if self._pace.part == "body":
            if latest.started:
                self.transport.abort()
                return True
            if not self._waiting:
                return False  # it is this request that is wrong
            self._waiting.pop()
        else:
            latest.keep_alive = False  # it says so to its client
        self._pace.stop()
        self._ended = True  # what comes is not read any more; `answered` closes
        return True

    # -- asked and told by the pace ------------------------------------------------------------------------

    def excuses(self, part: Part) -> bool:
        """Return whether it is no fault of the client that nothing comes."""
        latest = self._latest
        if self.flow.read_paused or latest is None or latest.complete:
            return self.flow.read_paused
        # It has the beginning of its next request out before it has its answer, or waits to be told to go on.
        return part == "headers" or latest.expects_continue

    def late(self, part: Part) -> None:
        """Refuse a request of which a part did not come in time."""
        if self.transport.is_closing():
            return
        if part == "body" and self._latest is not None and self._latest.started:
            self.transport.abort()  # it has its answer already: nothing can be said any more
            return
        detail = f"the request's {part} did not arrive in time"
        self._refuse(refused(408, "request_too_slow", detail, "Request too slow"))


def _address(name: Any) -> tuple[str, int] | None:
    return (str(name[0]), int(name[1])) if isinstance(name, (list, tuple)) and len(name) >= 2 else None
