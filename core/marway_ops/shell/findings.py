"""What a check found, and how findings are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marway.errors import clip
from marway.text import printable
from marway_ops.shell.output import print_json

__all__ = ["Case", "Finding", "findings_of", "show_findings"]

_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "problem": "[red]✗[/]"}
_NAMED: Final = 3
Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and what to do about it."""

    check: str
    level: Level
    found: str
    advice: str = ""


def show_findings(findings: Sequence[Finding], *, as_json: bool, well: str) -> None:
    """Print findings, and end with status 1 if one is a problem.

    Args:
        findings: All of them.
        as_json: As one JSON document.
        well: What to say when there is no problem.

    Raises:
        typer.Exit: There is a problem.
    """
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table(box=None, show_header=False)
        for finding in findings:
            found = finding.found + (f" → {finding.advice}" if finding.advice else "")
            table.add_row(_MARKS[finding.level], Text(printable(finding.check)), Text(printable(found)))
        Console().print(table)
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
