"""How far a job is: a bar with rate and time left on a terminal, and now and then a line where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from marway_ops.batch.running import Done
from marway_ops.shell.output import console

__all__ = ["shown_progress"]

_LINE_EVERY_S: Final = 10.0


@contextmanager
def shown_progress() -> Iterator[Callable[[Done], None]]:
    """Show how far a job is, on stderr, as what is yielded is told."""
    shown_on, begun = console(stderr=True), time.monotonic()

    def shown(done: Done) -> str:
        rate = (done.rows + done.failed) / max(0.001, time.monotonic() - begun)
        failed = f", {done.failed:,} failed" if done.failed else ""
        return f"{done.rows:,} rows{failed}, {rate:,.0f}/s"

    if not shown_on.is_terminal:
        line_at = begun + _LINE_EVERY_S

        def report(done: Done) -> None:
            nonlocal line_at
            if (now := time.monotonic()) < line_at:
                return
            line_at = now + _LINE_EVERY_S
            left = f", {(now - begun) * (1 / done.fraction - 1):.0f} s left" if done.fraction else ""
            typer.echo(f"{done.fraction:.0%}, {shown(done)}{left}", err=True)

        yield report
        return
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=shown_on, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda done: bar.update(task, completed=done.fraction, description=shown(done))
