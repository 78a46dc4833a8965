"""Logging that never makes the event loop wait: records go through a queue to a thread that writes JSON lines."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
import threading
from typing import Final, TextIO

from marway.telemetry import JsonFormatter

__all__ = ["AccessLog", "LogSink"]

_QUEUE_MAX: Final = 10_000
"""Lines that wait to be written; further ones are dropped and counted, because requests matter more than their log."""
_CLOSE_S: Final = 2.0


class LogSink:
    """Writes log records as JSON lines from a thread of its own.

    Args:
        stream: Where to; stderr when None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        writer = logging.StreamHandler(stream or sys.stderr)
        writer.setFormatter(JsonFormatter())
        waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        self.handler = _DroppingQueueHandler(waiting)
        """Attach this to loggers."""
        self._listener: logging.handlers.QueueListener | None = logging.handlers.QueueListener(waiting, writer)
        self._listener.start()

    def close(self) -> None:
        """Write what waits and end the thread, as far as that takes 2 s at most; a second call does nothing."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # Stopping waits for the stream, and a stream that is stuck must not keep the process from ending.
            closer = threading.Thread(target=listener.stop, name="close-log", daemon=True)
            closer.start()
            closer.join(_CLOSE_S)


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

    def __init__(self, waiting: queue.SimpleQueue[logging.LogRecord]) -> None:
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
