"""Logging that never makes the event loop wait: lines go through a queue to a thread that writes them as JSON."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import queue
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final, TextIO, TypeAlias

import orjson

from marway.telemetry import JsonFormatter

__all__ = ["LogSink"]

_Line: TypeAlias = "logging.LogRecord | tuple[float, dict[str, object]]"
"""A record, or the time and the fields of an access log line: a record of each would cost more than the line."""
_QUEUE_MAX: Final = 10_000
"""Lines that wait to be written; further ones are dropped and counted, because requests matter more than their log."""
_CLOSE_S: Final = 2.0
_GATHER_S: Final = 0.02
_KIND: Final = '"level":"info","logger":"marway_gateway.access","message":"request"'


class LogSink:
    """Writes log lines as JSON from a thread of its own.

    Args:
        stream: Where to; stdout when None.
        lock: A file that all who write there have open; lines of one process never come between another's.

    Attributes:
        handler: Attach this to loggers.
        dropped: Lines that did not fit since the last that did.
    """

    def __init__(self, stream: TextIO | None = None, *, lock: Path | None = None) -> None:
        self.handler: logging.Handler = _SinkHandler(self)
        self.dropped = 0
        self._waiting: queue.SimpleQueue[tuple[_Line, int] | None] = queue.SimpleQueue()
        self._formatter = JsonFormatter()
        self._lock = lock.open("w") if lock is not None else None
        self._writer = threading.Thread(target=self._write, args=(stream or sys.stdout,), name="write-log", daemon=True)
        self._writer.start()

    @property
    def waiting(self) -> int:
        """Lines that wait to be written."""
        return self._waiting.qsize()

    def put(self, line: _Line) -> None:
        """Queue a line, or count it as dropped; the fields of one, one at least, are the log's from now on."""
        # Bounded here and not by the queue, so that the word to stop always finds room in it.
        if self._waiting.qsize() >= _QUEUE_MAX:
            self.dropped += 1
            return
        dropped, self.dropped = self.dropped, 0
        self._waiting.put((line, dropped))

    def close(self) -> None:
        """Write what waits and end the thread, as far as that takes 2 s at most; a second call does nothing."""
        self._waiting.put(None)
        self._writer.join(_CLOSE_S)  # a stream that is stuck must not keep the process from ending

    def _write(self, stream: TextIO) -> None:
        """Write lines until None comes.

        They are gathered for a moment: a thread that woke up for each would take the interpreter from the event loop
        as often as there are requests.
        """
        with self._lock or contextlib.nullcontext():
            self._write_all(stream)

    def _write_all(self, stream: TextIO) -> None:
        ended = False
        while not ended:
            lines = [self._waiting.get()]
            time.sleep(_GATHER_S)
            with contextlib.suppress(queue.Empty):
                while True:
                    lines.append(self._waiting.get_nowait())
            ended = None in lines
            try:
                text = "".join([f"{self._text(*line)}\n" for line in lines if line is not None])
                with self._alone():
                    stream.write(text)
                    stream.flush()
            except (OSError, ValueError):  # nobody reads it any more, or it is closed: requests matter more
                continue

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other processes from writing: what is longer than a pipe takes at once could be cut in two."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if self._lock is not None:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _text(self, line: _Line, dropped: int) -> str:
        if isinstance(line, logging.LogRecord):
            line.dropped = dropped
            return self._formatter.format(line)
        at, fields = line
        if dropped:
            fields["lines_dropped_before"] = dropped
        line_text = orjson.dumps(fields, default=str).decode()
        second, thousandths = divmod(int(at * 1000), 1000)
        return f'{{"time":"{_second(second)}.{thousandths:03d}+00:00",{_KIND},{line_text[1:]}'


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    """Return a second in ISO 8601; most lines are of the same one as the line before."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat()


class _SinkHandler(logging.Handler):
    def __init__(self, sink: LogSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        self._sink.put(record)
