"""What a check found, and how findings are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marway.text import printable
from marway_ops.cli.output import print_json

__all__ = ["Finding", "show_findings"]

_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "problem": "[red]✗[/]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and what to do about it."""

    check: str
    level: Literal["ok", "warning", "problem"]
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
