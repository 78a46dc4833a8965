"""`marway rollout watch`: a rollout as it goes on, until it is over or needs a person."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from marway.errors import Unavailable
from marway.refs import DEFAULT_LABEL
from marway.registry.traffic.status import RolloutStatus
from marway.text import printable
from marway_ops.cli.rollouts.standing import status_reader
from marway_ops.cli.rollouts.steering import LabelOption, ModelArgument
from marway_ops.cli.rollouts.words import COLUMNS, guard_rows, move_line, state_words, status_lines
from marway_ops.shell.options import AdminOption, JsonOption, RegistryOption, TokenFileOption, TokenOption
from marway_ops.shell.output import console, print_json, warn

__all__ = ["watch"]

_EVERY_S: Final = 1.0
_STYLES: Final = {"WORSE": "bold red", "not worse": "green", "unclear": "yellow"}


def watch(
    model: ModelArgument,
    label: LabelOption = DEFAULT_LABEL,
    rollout: Annotated[str | None, typer.Option("--rollout", metavar="ID", help="Which one; else the newest.")] = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a rollout until it is over, or paused for a person; ends with 0 only where it was promoted.

    On a terminal what is known is drawn anew each second; else each change is a line. With --json the last status is
    printed.
    """
    read = status_reader(model, label, rollout, registry, gateway, token, token_file)
    first = read()
    read = status_reader(model, label, first.rollout, registry, gateway, token, token_file)

    def statuses() -> Iterator[RolloutStatus]:
        status = first
        yield status
        while status.state == "running":
            time.sleep(_EVERY_S)
            try:
                status = read()
            except Unavailable as exc:  # gateways restart, too
                warn(f"{exc.message}; it is asked again")
                continue
            yield status

    last = _followed(statuses(), drawn=not as_json and console().is_terminal, quiet=as_json)
    if as_json:
        print_json(last.model_dump(mode="json"))
    if last.state != "promoted":
        raise typer.Exit(1)


def _followed(statuses: Iterator[RolloutStatus], *, drawn: bool, quiet: bool) -> RolloutStatus:
    """Show statuses as they come, and return the last."""
    if drawn:
        with Live(console=console(), auto_refresh=False) as live:
            for status in statuses:
                live.update(_picture(status), refresh=True)
        return status
    shown = -1
    for status in statuses:
        if quiet:
            continue
        if shown < 0:
            typer.echo(printable(next(status_lines(status))))
        for move in status.changes:
            if move.generation > shown:
                typer.echo(printable(move_line(move)))
        shown = status.changes[-1].generation
    if not quiet and status.state != "running":
        typer.echo(printable(f"{state_words(status)}" + (f": {status.reason}" if status.reason else "")))
    return status


def _picture(status: RolloutStatus) -> Group:
    """Return a status as it is drawn on a terminal."""
    lines = Text(printable("\n".join(status_lines(status))))
    parts: list[Text | Table] = [lines]
    if status.state == "running" and status.step_s is not None and status.step_time_s:
        bars = Table(box=None, show_header=False)
        bars.add_row("requests", ProgressBar(total=100, completed=status.percent, width=40), f"{status.percent:g} %")
        of = f"{status.step_s:.0f} of {status.step_time_s:.0f} s"
        bars.add_row("step", ProgressBar(total=status.step_time_s, completed=status.step_s, width=40), of)
        parts.append(bars)
    if status.evidence:
        guards = Table(*COLUMNS[:-1], box=None)  # a terminal is narrow: `status` says what was counted
        for row in guard_rows(status):
            cells = [Text(printable(cell)) for cell in row[:-1]]
            cells[1].stylize(_STYLES.get(row[1], ""))
            guards.add_row(*cells)
        parts.append(guards)
    return Group(*parts)
