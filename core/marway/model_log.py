"""What handlers printed and raised, from the log that the runtime keeps (`<runtime directory>/logs/models.log`).

A line is `TIME LEVEL W-<port>-<server name>_<version>-stdout | TEXT`; the worker's thread name says whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

__all__ = ["LogLine", "last_error", "parse", "read"]

_LINE = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)) (?P<level>[A-Z]+) "
    r"W-(?P<port>\d+)-(?P<worker>.+)-std(?:out|err) \| "
)
_FILES = ("models.1.log", "models.log")
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
    """One line that a worker wrote.

    Attributes:
        at: When the model server read it.
        worker: `<server name>_<version>`.
        port: The worker's number.
        text: What it wrote.
    """

    at: datetime
    worker: str
    port: int
    text: str


def parse(lines: Iterable[str]) -> Iterator[LogLine]:
    """Yield what handlers wrote, without what TorchServe's worker code says about its own start."""
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        text = line[match.end() :].rstrip("\n")
        if not _NOISE.match(text):
            at = datetime.fromisoformat(match["at"].replace("Z", "+00:00"))
            yield LogLine(at, match["worker"], int(match["port"]), text)


def read(logs: Path, workers: Iterable[str] | None = None) -> list[LogLine]:
    """Return the lines of these workers, oldest first.

    Args:
        logs: A runtime's `logs` directory.
        workers: Which `<server name>_<version>`; None means all.
    """
    wanted = None if workers is None else frozenset(workers)
    found: list[LogLine] = []
    for name in _FILES:
        path = logs / name
        if path.exists():
            with path.open(errors="replace") as handle:
                found.extend(line for line in parse(handle) if wanted is None or line.worker in wanted)
    return found


def last_error(lines: Iterable[LogLine]) -> str | None:
    """Return why a worker failed, or None when it did not say.

    It is the last line of the newest traceback ("ValueError: no such file"), or what argparse said.
    """
    error = None
    inside = False
    for line in lines:
        if line.text.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and line.text and not line.text[0].isspace():
            error = line.text if error is None or not _WRAPPER.match(line.text) else error
            inside = False
        elif not inside and (said := _ARGUMENTS.fullmatch(line.text)):
            error = f"the handler parses the worker's command line: {said[1]}"
    return error
