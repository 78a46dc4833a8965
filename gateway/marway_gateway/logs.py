"""Logging that never makes the event loop wait: records go through a queue to a thread that writes JSON lines."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import sys
import threading
import time
from typing import Final, TextIO, TypeAlias

from marway.telemetry import JsonFormatter

__all__ = ["AccessLog", "LogSink"]

_Waiting: TypeAlias = "queue.SimpleQueue[logging.LogRecord | None]"
_QUEUE_MAX: Final = 10_000
"""Lines that wait to be written; further ones are dropped and counted, because requests matter more than their log."""
_CLOSE_S: Final = 2.0
_GATHER_S: Final = 0.02


class LogSink:
    """Writes log records as JSON lines from a thread of its own.

    Args:
        stream: Where to; stderr when None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        waiting: _Waiting = queue.SimpleQueue()
        self.handler = _DroppingQueueHandler(waiting)
        """Attach this to loggers."""
        self._waiting = waiting
        self._writer = threading.Thread(
            target=_write, args=(waiting, stream or sys.stderr), name="write-log", daemon=True
        )
        self._writer.start()

    def close(self) -> None:
        """Write what waits and end the thread, as far as that takes 2 s at most; a second call does nothing."""
        self._waiting.put(None)
        self._writer.join(_CLOSE_S)  # a stream that is stuck must not keep the process from ending


def _write(waiting: _Waiting, stream: TextIO) -> None:
    """Write records until None comes.

    Lines are gathered for a moment: a thread that woke up for each would take the interpreter from the event loop as
    often as there are requests.
    """
    formatter = JsonFormatter()
    ended = False
    while not ended:
        records = [waiting.get()]
        time.sleep(_GATHER_S)
        with contextlib.suppress(queue.Empty):
            while True:
                records.append(waiting.get_nowait())
        ended = None in records
        try:
            stream.write("".join(f"{formatter.format(record)}\n" for record in records if record is not None))
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more, or it is closed: requests matter more
            continue


class AccessLog:
    """Writes one line a request.

    Args:
        sink: Where to. The logger is this object's own, so that several gateways in one process do not mix.
    """

    def __init__(self, sink: LogSink) -> None:
        self._logger = logging.Logger("marway_gateway.access", logging.INFO)
        self._logger.addHandler(sink.handler)

    def write(self, fields: dict[str, object]) -> None:
        """Queue a line; fields without a value are left out."""
        self._logger.info("request", extra={"fields": fields})


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """Puts records into a queue, but no more than fit; `dropped` counts those that did not since the last that did."""

    def __init__(self, waiting: _Waiting) -> None:
        super().__init__(waiting)
        self.dropped = 0
        self._waiting = waiting

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # The queue stays in this process, so there is nothing to make picklable; the thread does the formatting.
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        # Bounded here and not by the queue, so that the word to stop always finds room in it.
        if self._waiting.qsize() >= _QUEUE_MAX:
            self.dropped += 1
            return
        record.dropped, self.dropped = self.dropped, 0
        self._waiting.put(record)
