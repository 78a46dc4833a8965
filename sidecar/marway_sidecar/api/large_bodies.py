"""Large bodies of requests pass uvicorn's parser by: `marway.body_pieces`.

Until the application asks for such a body, a connection takes in `LARGE_BODY_BYTES` of it, or what one read brings, and
is then read no further. Once it has asked, it is given pieces of about that size, and takes memory for each (`bodies`).
"""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from marway.body_pieces import LARGE_BODY_BYTES, BodyPieces
from marway.process.allocator import keep_freed_memory
from marway.wire.http1 import new_parser
from marway_sidecar.api.request_reader import RequestReader

__all__ = ["LargeBodies"]

_HELD_BYTES_MAX: Final = 512 * 1024
"""From here on a client is not read until the application, which wants its body, has caught up."""
_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Free memory that the process keeps for the next large body."""


class LargeBodies(RequestReader):
    """Takes the rest of a large body off the connection as it comes, and gives it to the request in pieces."""

    _large: BodyPieces | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._drop_body()

    def _drop_body(self) -> None:
        """Let go of what came of a body that nobody wants any more: connections are in cycles, which stay for long."""
        if self._large is not None:
            self._large.drop()
        if self.cycle is not None:
            self.cycle.body = bytearray()

    def data_received(self, data: bytes) -> None:
        large = self._large
        if large is None:
            self.parse(data)
            self._pass_parser_by(self.cycle)
            return
        cycle: Any = self.cycle
        rest = large.feed(data)
        if cycle.response_started:
            large.drop()  # it was refused: nobody wants it any more
        elif large.held > (_HELD_BYTES_MAX if cycle.wanted else LARGE_BODY_BYTES):
            self.flow.pause_reading()
        if large.left:
            if large.held >= LARGE_BODY_BYTES:
                cycle.message_event.set()
            return
        self._large = None
        self.parser = new_parser(self)  # the old one waits for the body
        self.on_message_complete()
        if rest:
            self.data_received(rest)

    def _pass_parser_by(self, cycle: Any) -> None:
        """Do so from here on, if this is a request with a large body that has not come whole."""
        if cycle is None or not cycle.more_body or cycle.response_complete:
            return
        if self.pipeline or self.parser.should_upgrade() or self.transport.is_closing():
            return
        large = BodyPieces.after(cycle.body, self.headers)
        if large is not None:
            self._large = large
            cycle.body = bytearray()
            cycle.__class__ = _LargeCycle  # it has the same attributes, and the pieces
            cycle.pieces = large
            keep_freed_memory(_KEPT_BYTES)


class _LargeCycle(RequestResponseCycle):
    """A request whose body is given in pieces.

    Attributes:
        wanted: Whether the application asked for it.
    """

    pieces: BodyPieces
    wanted = False
    _told = False

    async def receive(self) -> Any:
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        self.wanted = True
        while not (self.disconnected or self.response_complete):
            pieces = self.pieces
            if pieces.held >= LARGE_BODY_BYTES or not (self.more_body or self._told):
                piece = pieces.take()
                self._told = not self.more_body and not pieces.held
                return {"type": "http.request", "body": piece, "more_body": not self._told}
            self.flow.resume_reading()
            self.message_event.clear()
            await self.message_event.wait()
        return {"type": "http.disconnect"}
