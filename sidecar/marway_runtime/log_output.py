"""All that a pod's model server writes, on the runtime's own stdout: one JSON object a line (`marway.telemetry`).

The files stay what they are (`logs/`), for the sidecar and for `marway logs`. They are read here as they grow, by a
thread of its own: a collector of logs that does not read does not hold TorchServe up.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from marway.process.growing_file import GrowingFile
from marway.telemetry import log_time, record_in
from marway.wire import model_log

__all__ = ["LogOutput"]

logger = logging.getLogger(__name__)

_INTERVAL_S: Final = 0.2
_SERVER_LINE: Final = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)) (?P<level>[A-Z]+) (?P<thread>.*?) (?P<logger>\S+) \| "
    r"(?P<message>.*)"
)

Record = dict[str, Any]


class LogOutput:
    """Follows the files of one runtime's logs while its context lasts; what they held before is not repeated.

    ``write`` is told each record; by default it becomes a line of this process's log.
    """

    def __init__(self, logs: Path, *, write: Callable[[Record], None] | None = None) -> None:
        self._write = write or _log
        self._sources: list[tuple[GrowingFile, Callable[[Iterable[str]], Iterator[Record]]]] = [
            (GrowingFile(logs / model_log.FILE), partial(_model_records, {})),
            (GrowingFile(logs / "torchserve.log"), _server_records),
            (GrowingFile(logs / "stdout.log"), partial(_plain_records, "java")),
            (GrowingFile(logs / "forkserver.log"), partial(_plain_records, "marway_runtime.forkserver")),
        ]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="write-logs", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(2.0)  # whoever reads our stdout may have stopped

    def _follow(self) -> None:
        ended = False
        while not ended:
            ended = self._ending.wait(_INTERVAL_S)  # and then once more, for last words
            for growing, records in self._sources:
                try:
                    for record in records(growing.lines()):
                        self._write(record)
                except OSError as exc:
                    logger.warning("cannot read %s: %s", growing.path, exc)
        for growing, _ in self._sources:
            growing.close()


def _model_records(names: dict[str, tuple[str, str]], lines: Iterable[str]) -> Iterator[Record]:
    """Yield what workers wrote, with the model's name also where a line does not have it: ``names`` remembers it."""
    for line in lines:
        found = model_log.parse_line(line)
        if found is None:
            continue
        record = found.record()
        if found.model is not None and found.version is not None:
            names[found.worker] = found.model, found.version
        elif found.worker in names:
            record["model"], record["version"] = names[found.worker]
        else:
            record["server_name"] = found.worker
        yield record


def _server_records(lines: Iterable[str]) -> Iterator[Record]:
    """Yield TorchServe's own records, each with the lines of its stack trace."""
    current: Record | None = None
    trace: list[str] = []
    for line in lines:
        match = _SERVER_LINE.fullmatch(line)
        if match is None and current is not None:
            trace.append(line)
            continue
        if current is not None:
            yield _with_trace(current, trace)
        current, trace = None, []
        if match is not None:
            level = model_log.LEVELS.get(match["level"], match["level"].lower())
            current = {
                "time": match["time"].replace("Z", "+00:00"),
                "level": level,
                "logger": f"torchserve.{match['logger']}",
                "message": match["message"],
            }
        elif line.strip():
            yield _plain("torchserve", line)
    if current is not None:
        yield _with_trace(current, trace)


def _with_trace(record: Record, trace: list[str]) -> Record:
    return {**record, "traceback": "\n".join(trace)} if trace else record


def _plain_records(name: str, lines: Iterable[str]) -> Iterator[Record]:
    for line in lines:
        if line.strip():
            yield record_in(line) or _plain(name, line)


def _plain(name: str, line: str) -> Record:
    return {"time": log_time(time.time()), "level": "info", "logger": name, "message": line}


def _log(record: Record) -> None:
    logger.info("", extra={"line": record})
