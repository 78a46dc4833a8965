"""How a line is shown: to a person, or to a program."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Final

import typer

from marway.text import printable, printable_json
from marway_ops.logs.lines import Line

__all__ = ["show"]

_COLOURS: Final = {
    "debug": typer.colors.BRIGHT_BLACK,
    "warning": typer.colors.YELLOW,
    "error": typer.colors.RED,
    "critical": typer.colors.RED,
}


def show(line: Line, *, as_json: bool) -> None:
    """Print a line: as JSON, or each of its texts with the same beginning, coloured on a terminal."""
    if as_json:
        typer.echo(printable_json(json.dumps(line.document(), ensure_ascii=False, default=str)))
        return
    record = line.record
    level = str(record.get("level", "info"))
    model, version = (record.get(name) for name in ("model", "version"))
    about = (line.component, line.process if line.process != line.component else None, model, version)
    words = [str(each) for each in about if each is not None]
    if line.request_ids:
        words.append(",".join(line.request_ids))
    at = f"{line.at:%H:%M:%S}.{line.at.microsecond // 1000:03d}"
    head = printable(f"{at} {level:7} {' '.join(words)}")
    colour = None if "NO_COLOR" in os.environ else _COLOURS.get(level)
    for text in _texts(line):
        typer.secho(f"{head} | {printable(text)}", fg=colour)


def _texts(line: Line) -> Iterator[str]:
    record = line.record
    if record.get("logger") == "marway_gateway.access":
        yield _access(line)
    else:
        yield from str(record.get("message", "")).split("\n")
    for name in ("reason", "traceback"):
        if isinstance(text := record.get(name), str):
            yield from text.splitlines()


def _access(line: Line) -> str:
    """Return what the gateway says of a request, in words."""
    record = line.record
    words = [f"{record.get('method')} {record.get('path')}: {record.get('status')} {record.get('outcome')}"]
    if record.get("error"):
        words.append(f"({record['error']})")
    words.append(f"in {record.get('duration_ms')} ms")
    if record.get("pod"):
        words.append(f"by {record['pod']}")
    if record.get("retries"):
        words.append(f"after {record['retries']} other attempts")
    return " ".join(words)
