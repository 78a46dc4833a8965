"""Logging that never makes the event loop wait: records go through a queue to a thread that writes JSON lines."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

__all__ = ["AccessLog", "LogSink"]

_QUEUE_MAX: Final = 10_000
"""Lines that wait to be written; further ones are dropped and counted, because requests matter more than their log."""


class LogSink:
    """Writes log records as JSON lines from a thread of its own.

    Args:
        stream: Where to; stderr when None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        writer = logging.StreamHandler(stream or sys.stderr)
        writer.setFormatter(_JsonFormatter())
        waiting: queue.Queue[Any] = queue.Queue(_QUEUE_MAX)
        self.handler = _DroppingQueueHandler(waiting)
        """Attach this to loggers."""
        self._listener: logging.handlers.QueueListener | None = logging.handlers.QueueListener(waiting, writer)
        self._listener.start()

    def close(self) -> None:
        """Write what waits and end the thread; a second call does nothing."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()


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
    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # The queue stays in this process, so there is nothing to make picklable; the thread does the formatting.
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        record.dropped = self.dropped
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
        else:
            self.dropped = 0


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "ts": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update({name: value for name, value in fields.items() if value is not None})
        if getattr(record, "dropped", 0):
            line["lines_dropped_before"] = record.dropped  # type: ignore[attr-defined]  # set by our own handler
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
