"""The calls of a worker whose archive says `continuousBatching`: each call of the handler has all rows under way."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from marway.wire.envelope import Answer
from marway.worker.requests import request_of
from marway_http.frames import Kind
from marway_runtime.engines.native.worker import Calls, Connection, send_answers
from marway_runtime.worker.service import MarwayService

__all__ = ["ContinuousCalls"]

_ONE_ROW = Answer(400, b"a call of a continuousBatching archive has one row", "error")


class ContinuousCalls(Calls):
    """Takes calls of one row each; a row joins those under way as soon as there is room for it.

    Between two calls of the handler everything that has come is read: new rows, and who gave theirs up.

    Args:
        service, listener, pulse: As `Calls` has them.
        at_once: Most rows under way.
    """

    def __init__(self, service: MarwayService, listener: socket.socket, pulse: Path, *, at_once: int) -> None:
        super().__init__(service, listener, pulse)
        self._steps = service
        self._at_once = at_once
        self._rows = service.continuous_batch()

    def serve(self) -> None:
        while True:
            self.look(wait=not self.waiting and not len(self._rows))
            while self.waiting and len(self._rows) < self._at_once:
                connection, number, rows = self.waiting.popleft()
                if len(rows) == 1:
                    self._rows.add((connection, number), request_of(rows[0]))
                else:
                    send_answers(connection, Kind.ANSWER, number, [_ONE_ROW] * len(rows))
            if len(self._rows):
                self._step()

    def drop(self, connection: Connection, number: int | None) -> None:
        """Forget a call, or all of a connection: also one that is under way is not gone on with."""
        super().drop(connection, number)
        for key in self._rows.keys:
            if key[0] is connection and number in (None, key[1]):
                self._rows.remove(key)

    def _step(self) -> None:
        self.beat(time.monotonic())
        try:
            steps = self._steps.step(self._rows)
        finally:
            self.beat(0.0)
        for step in steps:
            connection, number = step.key
            send_answers(connection, Kind.ANSWER if step.last else Kind.PART, number, [step.answer])
