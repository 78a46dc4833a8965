"""Logging of Marway's own processes: one JSON object a line on stdout, with the same names in all of them.

`time` (ISO 8601, UTC), `level` (debug, info, warning, error, critical), `logger`, `message`, then what the line is
about, such as `model`, `version`, `pod`, `worker`, `request_id` (or `request_ids`, where one call had several), and
`traceback`. Stderr is for what a person must read: the one line of a process that cannot go on.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final

__all__ = ["JsonFormatter", "about_requests", "configure_logging", "log_time", "plain_text", "record_in"]

_NEEDED: Final = ("time", "level", "message")


class JsonFormatter(logging.Formatter):
    """Makes each record one line of JSON; `extra={"fields": {…}}` of a log call become members of it.

    `extra={"line": {…}}` is a whole record that was made elsewhere, written as it is.
    """

    def format(self, record: logging.LogRecord) -> str:
        made = getattr(record, "line", None)
        if isinstance(made, dict):
            return json.dumps(made, ensure_ascii=False, default=str)
        line: dict[str, object] = {
            "time": log_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update({name: value for name, value in fields.items() if value is not None})
        if dropped := getattr(record, "dropped", 0):
            line["lines_dropped_before"] = dropped
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(level: int = logging.INFO) -> None:
    """Send all logging from ``level`` on to stdout; call it once, from a process's entry point."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for noisy in ("httpx", "httpcore", "asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def log_time(at: float) -> str:
    """Return a time, in seconds since 1970, as log lines have it."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")


def about_requests(ids: Mapping[int, str] | tuple[str, ...]) -> dict[str, object]:
    """Return the member of a log line that says which requests it is about: none, one or several."""
    named = list(ids.values()) if isinstance(ids, Mapping) else list(ids)
    if not named:
        return {}
    return {"request_id": named[0]} if len(named) == 1 else {"request_ids": named}


def record_in(text: str) -> dict[str, Any] | None:
    """Return the log record that ``text`` is, or None: it is a text like any other."""
    if not text.startswith('{"time":'):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):  # what a handler prints can be nested as deep as it likes
        return None
    return record if all(isinstance(record.get(name), str) for name in _NEEDED) else None


def plain_text(line: str) -> str:
    """Return what a line of a log says to a person: a record's message, any other line as it is."""
    record = record_in(line)
    return line if record is None else f"{record['level']}: {record['message']}"
