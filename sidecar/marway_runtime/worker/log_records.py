r"""What a worker prints and logs, as JSON records with the requests that it is answering (`marway.telemetry`).

TorchServe's front end reads a worker's streams line by line and writes each line to `models.log`. A handler's `print`,
its `logging` and the tracebacks become one line each; what a library in C or a process of the handler's writes past
Python stays a line of plain text. All is ASCII, as the front end takes more characters than `\n` for a line's end.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from marway.telemetry import about_requests, log_time
from marway.wire.headers import REQUEST_ID
from marway.wire.request import correlation_id

__all__ = ["LOGGED", "REASON", "about", "answering", "answering_here", "ids_of", "install"]

LOGGED: Final = "marway_logged"
"""Attribute of an exception whose traceback was written: whoever logs it again says only that."""
REASON: Final = "marway_reason"
"""Attribute of a log record, given by `extra`: in one line, why a handler cannot be loaded."""
_TEXT_MAX: Final = 32_768

Requests = Mapping[int, str] | Callable[[], Mapping[int, str]] | None

_requests: Requests = None
_requests_here: ContextVar[Requests] = ContextVar("requests", default=None)
_about: dict[str, str] = {}
_writing = threading.Lock()


def install() -> None:
    """Have `print`, `logging` and what is written to `sys.stdout` and `sys.stderr` become records."""
    os.register_at_fork(after_in_child=_forget_writers)
    sys.stdout = _stream(1, "info")
    sys.stderr = _stream(2, "warning")
    root = logging.getLogger()
    root.handlers[:] = [_Handler()]
    root.setLevel(logging.INFO)


def about(model: str, version: str) -> None:
    """Say whose lines they are from now on; until then TorchServe's own lines stay as its front end wants them."""
    _about.update(model=model, version=version)


def answering(requests: Requests) -> None:
    """Say which requests are being answered from now on, or how to find that out; None when there are none."""
    global _requests
    _requests = requests


def answering_here(requests: Requests) -> None:
    """Say which requests this task is answering, of many that run at once."""
    _requests_here.set(requests)


def ids_of(batch: list[dict[str, Any]]) -> dict[int, str]:
    """Return the callers' ids of TorchServe's own rows: their header, where they came over REST with one."""
    found = {}
    for index, row in enumerate(batch):
        for header in row.get("headers") or ():
            if header["name"].decode(errors="replace").lower() == REQUEST_ID:
                given = correlation_id(header["value"].decode(errors="replace"))
                found[index] = given or row["requestId"].decode()
    return found


def _forget_writers() -> None:
    global _writing
    _writing = threading.Lock()  # another thread of the parent's may have held it


def _write(descriptor: int, level: str, message: str, **more: object) -> None:
    line: dict[str, object] = {"time": log_time(time.time()), "level": level, "message": _cut(message), **_about}
    requests = _requests_here.get() or _requests
    requests = requests() if callable(requests) else requests
    if requests:
        line.update(about_requests(requests))
    line.update(more)
    _write_all(descriptor, json.dumps(line, default=str).encode() + b"\n")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    with _writing:
        while view:
            view = view[os.write(descriptor, view) :]


def _cut(text: str, *, end: bool = False) -> str:
    if len(text) <= _TEXT_MAX:
        return text
    return f"…{text[1 - _TEXT_MAX :]}" if end else f"{text[: _TEXT_MAX - 1]}…"


class _Handler(logging.Handler):
    """Writes log records to the worker's standard output, as TorchServe's own configuration of logging does."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if not _about and record.name == "root" and record.levelno <= logging.INFO:
                _write_all(1, f"{message}\n".encode(errors="replace"))  # by these the front end knows that it is up
                return
            more: dict[str, object] = {"logger": record.name}
            if (reason := getattr(record, REASON, None)) is not None:
                more["reason"] = reason
            exc = record.exc_info[1] if record.exc_info else None
            if exc is not None and not getattr(exc, LOGGED, False):
                trace = "".join(traceback.format_exception(exc)).removesuffix("\n")
                more["traceback"] = _cut(trace, end=True)
            _write(1, record.levelname.lower(), message, **more)
        except Exception:
            self.handleError(record)


class _Lines(io.RawIOBase):
    """A stream's bytes, each whole line of which becomes a record of this level.

    The records go to ``descriptor``, which `fileno` says too: a process of the handler's writes there itself.
    """

    def __init__(self, descriptor: int, level: str) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._level = level
        self._begun = threading.local()  # a line of each thread's own

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = bytes(data)
        *lines, rest = (getattr(self._begun, "bytes", b"") + view).split(b"\n")
        while len(rest) >= _TEXT_MAX:  # a line without an end must not fill the memory
            lines.append(rest[:_TEXT_MAX])
            rest = rest[_TEXT_MAX:]
        self._begun.bytes = rest
        for line in lines:
            _write(self._descriptor, self._level, line.decode(errors="replace").removesuffix("\r"))
        return len(view)

    def close(self) -> None:
        """Write what has no end of line yet; the descriptor stays open."""
        rest: bytes = getattr(self._begun, "bytes", b"")
        if rest and not self.closed:
            self._begun.bytes = b""
            _write(self._descriptor, self._level, rest.decode(errors="replace"))
        super().close()


def _stream(descriptor: int, level: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        _Lines(descriptor, level),  # type: ignore[arg-type]  # unbuffered, as Python's own is with -u
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
        write_through=True,
    )
