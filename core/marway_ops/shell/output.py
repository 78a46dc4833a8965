"""What the verbs print: one JSON document for programs, tables and lines for people; and what checks have found."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marway.errors import clip
from marway.records import HistoryEntry
from marway.text import printable, printable_json

__all__ = [
    "Case",
    "Finding",
    "change_entry",
    "console",
    "findings_of",
    "history_entry",
    "moved",
    "print_found",
    "print_json",
    "print_result",
    "print_table",
    "show_findings",
    "warn",
    "when",
]


_NO_WIDTH: Final = 10_000
_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "problem": "[red]✗[/]"}
_NAMED: Final = 3
Level = Literal["ok", "warning", "problem"]
_ENTRY_FIELDS = tuple(field.alias or name for name, field in HistoryEntry.model_fields.items())


def print_json(document: Any) -> None:
    """Print one JSON document."""
    typer.echo(printable_json(json.dumps(document, indent=2, ensure_ascii=False)))


def print_result(document: Any, line: str, *, as_json: bool) -> None:
    """Print what a verb did: as one JSON document, or as one line."""
    if as_json:
        print_json(document)
    else:
        typer.echo(line)


def print_found(
    document: Any, columns: Sequence[str], rows: Iterable[Sequence[str]], *, as_json: bool, none: str = ""
) -> None:
    """Print what a verb found: as one JSON document, or as a table; where there are no rows, what ``none`` says."""
    shown = list(rows)
    if as_json:
        print_json(document)
    elif none and not shown:
        typer.echo(none)
    else:
        print_table(columns, shown)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows as a table, their text as it is but for control characters."""
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _show(table)


def console(*, stderr: bool = False) -> Console:
    """Return what draws on a terminal; every verb has it from here.

    A pipe and a file have no width: nothing is wrapped or cut off there, so that a line is a row for grep and awk.
    """
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = _NO_WIDTH
    return made


def _show(table: Table) -> None:
    where = console()
    if where.is_terminal:
        where.print(table)
        return
    with where.capture() as drawn:
        where.print(table)
    for line in drawn.get().splitlines():
        typer.echo(line.rstrip())  # cells are as wide as the widest of their column, the last one's too


def warn(text: str) -> None:
    """Print one line on stderr about something that was done or allowed, and may surprise."""
    print(f"marway: warning: {printable(' '.join(text.split()))}", file=sys.stderr)


def when(at: datetime) -> str:
    """Return a time as people read it, in UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def history_entry(entry: HistoryEntry) -> dict[str, Any]:
    """Return a history entry as `--json` shows it."""
    return entry.model_dump(mode="json", by_alias=True)


def change_entry(change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the history entry in an admin port's answer, as `--json` shows it."""
    return history_entry(HistoryEntry.model_validate({name: change[name] for name in _ENTRY_FIELDS if name in change}))


def moved(model: str, entry: Mapping[str, Any]) -> str:
    """Return one line about a label that was moved, from its history entry as `--json` shows it."""
    rollout = entry.get("rollout")
    if rollout is not None and rollout["action"] == "roll_back":
        return f"the rollout of {rollout['candidate']} is rolled back: {model} {entry['label']} stays at {entry['to']}"
    before = f" (was {entry['from']})" if entry["from"] else ""
    return f"{model} {entry['label']} → {entry['to']}{before}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and what to do about it."""

    check: str
    level: Level
    found: str
    advice: str = ""


def show_findings(findings: Sequence[Finding], *, as_json: bool, well: str) -> None:
    """Print findings, and ``well`` where none is a problem; end with status 1 where one is."""
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table(box=None, show_header=False)
        for finding in findings:
            found = finding.found + (f" → {finding.advice}" if finding.advice else "")
            table.add_row(_MARKS[finding.level], Text(printable(finding.check)), Text(printable(found)))
        _show(table)
        typer.echo(f"{problems} problem{'s' if problems != 1 else ''}" if problems else well)
    if problems:
        raise typer.Exit(1)


class Case(NamedTuple):
    """What a check found of one object, which is named, or of no object in particular."""

    check: str
    level: Level
    found: str
    advice: str = ""
    name: str = ""


def findings_of(cases: Iterable[Case]) -> list[Finding]:
    """Return a finding for each thing that was found, with the names of the objects it was found of."""
    grouped: dict[Case, list[str]] = {}
    for case in cases:
        grouped.setdefault(case._replace(name=""), []).append(case.name)
    return [
        Finding(
            each.check,
            each.level,
            f"{_listed(names)}: {clip(each.found, 300)}" if any(names) else each.found,
            each.advice,
        )
        for each, names in grouped.items()
    ]


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
