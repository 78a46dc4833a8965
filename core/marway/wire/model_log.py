"""What handlers printed and raised, from the runtime's log of it (`<runtime directory>/logs/models.log`).

A line is `TIME LEVEL W-<port>-<server name>_<version>-stdout | TEXT`; the worker's thread name says whose it is. TEXT
is a record of Marway's worker (`marway.telemetry`), or what something in the worker wrote past Python's streams.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from marway.telemetry import about_requests, record_in

__all__ = ["BEFORE", "FILE", "LEVELS", "LogLine", "last_error", "parse", "parse_line", "read"]

FILE = "models.log"
"""Below the runtime's directory of logs."""
BEFORE = "models.1.log"
"""The file before it."""
LEVELS = {"WARN": "warning", "FATAL": "critical", "TRACE": "debug"}
"""Java's levels where Python has another word for them."""

_LINE = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)) (?P<level>[A-Z]+) "
    r"W-(?P<port>\d+)-(?P<worker>.+)-std(?:out|err) \| "
)
# What TorchServe's worker says about itself at every start: no handler wrote it, and nobody misses it.
_NOISE = re.compile(
    r"s_name_part0=|Listening on port: |Successfully loaded .*metrics\.yaml|\[PID\]|Torch worker started\."
    r"|Python runtime: |Connection accepted: |model_name: .*, batchSize: |Frontend disconnected\.|Enabled tensor cores"
)

# What TorchServe's worker raises after a handler's own exception was logged: it says less.
_WRAPPER = re.compile(r"RuntimeError: (\d{3} - |the handler ended its process while)|SystemExit: \d")
# How argparse ends a process that it is given no sense to: a usage, this line, and no traceback.
_ARGUMENTS = re.compile(r"\S+: error: (.+)")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One thing that a worker wrote.

    Attributes:
        at: When it was written; where that is not known, when the model server read it.
        level: debug, info, warning, error or critical.
        worker: `<server name>_<version>`.
        port: The worker's number.
        text: What it wrote.
        model, version: As the worker knows itself; None in a line that was written past Python's streams.
        request_ids: The requests that the worker was answering, as far as that is known.
        traceback: Of the exception that the line is about.
        reason: In one line, why a handler cannot be loaded.
        logger: Whose line it is, where it came by Python's logging.
    """

    at: datetime
    level: str
    worker: str
    port: int
    text: str
    model: str | None = None
    version: str | None = None
    request_ids: tuple[str, ...] = ()
    traceback: str | None = None
    reason: str | None = None
    logger: str | None = None

    def is_about(self, request_id: str) -> bool:
        """Return whether it was written for a request, or for one of the rows that it brought: `ID/0` and so on."""
        return any(each == request_id or each.startswith(f"{request_id}/") for each in self.request_ids)

    def record(self) -> dict[str, Any]:
        """Return it as a log record, with the names that all of Marway's logs have."""
        record = {
            "time": self.at.isoformat(timespec="milliseconds"),
            "level": self.level,
            "logger": self.logger,
            "message": self.text,
            "model": self.model,
            "version": self.version,
            "worker": self.port,
            **about_requests(self.request_ids),
            "reason": self.reason,
            "traceback": self.traceback,
        }
        return {name: value for name, value in record.items() if value is not None}


def parse(lines: Iterable[str]) -> Iterator[LogLine]:
    """Yield what handlers wrote, without what TorchServe's worker code says about its own start."""
    return (found for found in map(parse_line, lines) if found is not None)


def parse_line(line: str) -> LogLine | None:
    """Return a line of the log, or None: it is none, or says only how TorchServe's worker code starts."""
    match = _LINE.match(line)
    if match is None:
        return None
    text = line[match.end() :].rstrip("\n")
    if _NOISE.match(text):
        return None
    at = datetime.fromisoformat(match["at"].replace("Z", "+00:00"))
    level = LEVELS.get(match["level"], match["level"].lower())
    worker, port = match["worker"], int(match["port"])
    record = record_in(text)
    if record is None:
        return LogLine(at, level, worker, port, text)
    if _NOISE.match(record["message"]):
        return None
    several = record.get("request_ids")
    ids = several if isinstance(several, list) else [record.get("request_id")]
    with contextlib.suppress(ValueError):
        written = datetime.fromisoformat(record["time"])
        at = written if written.tzinfo is not None else at
    return LogLine(
        at,
        record["level"],
        worker,
        port,
        record["message"],
        _text(record.get("model")),
        _text(record.get("version")),
        tuple(each for each in ids if isinstance(each, str)),
        _text(record.get("traceback")),
        _text(record.get("reason")),
        _text(record.get("logger")),
    )


def read(logs: Path, workers: Iterable[str] | None = None, *, last_bytes: int | None = None) -> list[LogLine]:
    """Return the lines of ``workers`` (`<server name>_<version>`; None is all) in a runtime's `logs`, oldest first.

    With ``last_bytes`` only so many at the end of each file are read.
    """
    wanted = None if workers is None else frozenset(workers)
    found: list[LogLine] = []
    for name in (BEFORE, FILE):
        path = logs / name
        if path.exists():
            with path.open("rb") as file, TextIOWrapper(file, "utf-8", "replace", newline="\n") as handle:
                if last_bytes is not None:
                    file.seek(max(0, path.stat().st_size - last_bytes))
                found.extend(line for line in parse(handle) if wanted is None or line.worker in wanted)
    return found


def last_error(lines: Iterable[LogLine]) -> str | None:
    """Return why a worker failed to load its handler, or None when it did not say.

    It is the reason that the worker gave last, or what argparse said before it; of a worker that is not Marway's own,
    the last line of its newest traceback ("ValueError: no such file").
    """
    error = arguments = None
    inside = False
    for line in lines:
        if line.reason is not None:
            error, arguments = arguments or line.reason, None
        elif line.text.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and line.text and not line.text[0].isspace():
            error = line.text if error is None or not _WRAPPER.match(line.text) else error
            inside = False
        elif not inside and (usage := _ARGUMENTS.fullmatch(line.text)):
            error = arguments = f"the handler parses the worker's command line: {usage[1]}"
    return error


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
