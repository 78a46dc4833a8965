"""Large bodies of requests pass uvicorn's parser by, and come to the application in one piece: `marway.body_pieces`.

Until the application asks for such a body, a connection takes in `LARGE_BODY_BYTES` of it, or what one read brings, and
is then read no further. Once it has asked, memory is set aside (`bodies`), and nothing holds the client up any more.
"""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from marway.allocator import keep_freed_memory
from marway.body_pieces import LARGE_BODY_BYTES, BodyPieces
from marway.wire.http1 import new_parser
from marway_sidecar.request_reader import RequestReader

__all__ = ["LargeBodies"]

_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Free memory that the process keeps for the next large body."""


class LargeBodies(RequestReader):
    """Takes the rest of a large body off the connection as it comes, and gives it to the request when it is whole."""

    _large: BodyPieces | None = None

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
        elif large.held > LARGE_BODY_BYTES and not cycle.wanted:
            self.flow.pause_reading()
        if large.left:
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
    """A request whose body is given as a whole.

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
        if not self.wanted:
            self.wanted = True
            self.pieces.gather()
        while not (self.disconnected or self.response_complete):
            if not self.more_body and not self._told:
                self._told = True
                return {"type": "http.request", "body": self.pieces.take_all(), "more_body": False}
            self.flow.resume_reading()
            self.message_event.clear()
            await self.message_event.wait()
        return {"type": "http.disconnect"}
