"""What `marway copy` and `marway import` are told alike, and how they show what they do and did."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from marway.objects import Progress as BytesSent
from marway.records import VersionRecord
from marway.refs import check_label
from marway.storage.copying import Choices, CopyReport
from marway.storage.planning import Plan
from marway.text import human_bytes
from marway_ops.shell.output import console, print_found, print_json, warn

__all__ = [
    "AlongOption",
    "ContractsOption",
    "ForceOption",
    "LabelOption",
    "LabelsOption",
    "ProtectionOption",
    "ServingOption",
    "chosen",
    "print_report",
    "shown_progress",
    "warn_of_plan",
]

LabelOption = Annotated[
    list[str] | None, typer.Option(metavar="LABEL", help="Set this label to the version that is copied; repeatable.")
]
LabelsOption = Annotated[bool, typer.Option("--labels", help="Set the labels of the versions as they are there.")]
ContractsOption = Annotated[bool, typer.Option("--contracts", help="With the contracts of consumers.")]
ProtectionOption = Annotated[
    bool, typer.Option("--protection", help="With what labels ask for before they move; not who agreed to what.")
]
ServingOption = Annotated[bool, typer.Option("--serving", help="With the overrides of serving settings.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Move labels without a pod's proof; the history says so.")]
AlongOption = Annotated[
    bool, typer.Option("--along/--not-along", help="Whether what graphs and fallbacks name comes along.")
]


def chosen(
    label: list[str] | None, *, labels: bool, contracts: bool, protection: bool, serving: bool, force: bool
) -> Choices:
    """Return what goes along, from the flags.

    Raises:
        InvalidReference: A label cannot be one.
        BadParameter: The flags contradict one another.
    """
    if label and labels:
        raise typer.BadParameter("--label names labels, --labels takes them as they are: give one of them")
    if force and not (label or labels):
        raise typer.BadParameter("--force is about labels that move: give --label or --labels with it")
    return Choices(
        labels=tuple(check_label(each) for each in label or ()),
        all_labels=labels,
        contracts=contracts,
        protection=protection,
        serving=serving,
        force=force,
    )


def warn_of_plan(plan: Plan) -> None:
    """Say what is not copied though a model was asked for."""
    if plan.unfinished:
        warn(f"left out, as they were not published to their end: {', '.join(plan.unfinished)}")


@contextlib.contextmanager
def shown_progress() -> Iterator[Callable[[VersionRecord], BytesSent]]:
    """Give what shows for each version on a terminal how much of its archive was sent."""
    shown_on = console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=shown_on, transient=True, disable=not shown_on.is_terminal) as bar:

        def of(record: VersionRecord) -> BytesSent:
            task = bar.add_task(f"{record.name} {record.version}", total=record.archive.size_bytes)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield of


def print_report(report: CopyReport, *, as_json: bool, none: str) -> None:
    """Print what was copied, set, left and is missing; what is missing is a warning, as requests for it will fail."""
    if as_json:
        print_json(asdict(report))
    else:
        rows = [
            (each.name, each.version, each.what, human_bytes(each.bytes), str(each.proofs)) for each in report.versions
        ]
        print_found(None, ("model", "version", "what", "sent", "proofs"), rows, as_json=False, none=none)
        for line in (*report.labels, *(f"set: {each}" for each in report.changed)):
            typer.echo(line)
        if report.left:
            typer.echo(f"not copied: {'; '.join(report.left)}")
    for each in report.missing:
        warn(f"the registry has no {each}")
