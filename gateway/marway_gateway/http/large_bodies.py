"""Large bodies of requests pass uvicorn's parser by: see `marway.body_pieces`."""

from __future__ import annotations

from typing import Any, Final

from marway.body_pieces import BodyPieces
from marway.process.allocator import keep_freed_memory
from marway.wire.http1 import new_parser
from marway_gateway.http.connection import HttpConnection
from marway_gateway.http.cycle import Cycle

__all__ = ["LargeBodies"]

_HELD_BYTES_MAX: Final = 512 * 1024
"""From here on a client is not read until the application has caught up. uvloop reads half as much, twice at once."""
_KEPT_BYTES: Final = 8 * 1024 * 1024
"""Free memory that the process keeps for the next pieces."""


class LargeBodies(HttpConnection):
    """Takes the rest of a large body off the connection as it comes, and gives it to the request in these pieces."""

    _large: BodyPieces | None = None

    def data_received(self, data: bytes) -> None:
        large = self._large
        if large is None:
            super().data_received(data)
            self._pass_parser_by(self.cycle)
            return
        rest = large.feed(data)
        cycle = self.cycle
        if cycle.response_complete:
            large.drop()  # nobody wants it any more
        elif large.held >= _HELD_BYTES_MAX:
            self.flow.pause_reading()
        if large.left:
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


class _LargeCycle(Cycle):
    """A request whose body comes in pieces."""

    pieces: BodyPieces
    _told = False

    async def receive(self) -> Any:
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        while not (self.disconnected or self.response_complete):
            piece = self.pieces.take()
            ended = not self.more_body and not self.pieces.held
            if piece or (ended and not self._told):
                self._told = ended
                return {"type": "http.request", "body": piece, "more_body": not ended}
            self.flow.resume_reading()
            self.message_event.clear()
            await self.message_event.wait()
        return {"type": "http.disconnect"}
