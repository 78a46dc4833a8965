"""`marway copy`: models from one registry to another, or a registry whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import Progress, TextColumn

from marway.objects import open_store
from marway.process.identity import this_user
from marway.registry import open_registry
from marway.storage.copying import copy_plan, origin_of
from marway.storage.planning import plan_of
from marway.storage.whole import WholeReport, copy_whole
from marway.text import human_bytes
from marway_ops.cli.storage.options import (
    AlongOption,
    ContractsOption,
    ForceOption,
    LabelOption,
    LabelsOption,
    ProtectionOption,
    ServingOption,
    chosen,
    print_report,
    shown_progress,
    warn_of_plan,
)
from marway_ops.shell.options import CreateRegistryOption, JsonOption, NoteOption, registry_url
from marway_ops.shell.output import console, print_json, warn

__all__ = ["copy"]


def copy(
    model: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL[@LABEL|/VERSION]",
            help="Models with all their versions, or one version each, by label or name.",
        ),
    ] = None,
    to: Annotated[str, typer.Option(metavar="REGISTRY", help="URL of the registry that is copied to.")] = "",
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            "--registry",
            metavar="REGISTRY",
            help="URL of the registry that is copied from; else $MARWAY_REGISTRY, else ./.marway/registry.",
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--all", help="The registry whole, with its histories, to an empty place: a backup.")
    ] = False,
    label: LabelOption = None,
    labels: LabelsOption = False,
    contracts: ContractsOption = False,
    protection: ProtectionOption = False,
    serving: ServingOption = False,
    along: AlongOption = True,
    force: ForceOption = False,
    create_registry: CreateRegistryOption = False,
    note: NoteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy versions to another registry, with golden answers and proofs; what is there already is not sent again.

    With --all the registry goes whole, to an empty place or to where it was copied before: a backup, or its way back.
    """
    if not to:
        raise typer.BadParameter("which registry is copied to? give --to URL")
    choices = chosen(label, labels=labels, contracts=contracts, protection=protection, serving=serving, force=force)
    url = registry_url(from_)
    if whole:
        if model or label or labels or contracts or protection or serving or force or create_registry or note:
            raise typer.BadParameter("--all copies everything as it is: only --from, --to and --json go with it")
        _whole(url, to, as_json=as_json)
        return
    if not model:
        raise typer.BadParameter("name models, such as intent or intent@PROD, or give --all for a backup")
    source = open_registry(url)
    target = open_registry(to, create=create_registry)
    target.check_there()
    plan = plan_of(source, model, along=along)
    warn_of_plan(plan)
    with shown_progress() as progress:
        report = copy_plan(
            source,
            target,
            plan,
            origin=origin_of(source),
            choices=choices,
            note=note,
            by=this_user(),
            progress=progress,
        )
    print_report(report, as_json=as_json, none="nothing to copy: there are no versions")


def _whole(url: str, to: str, *, as_json: bool) -> None:
    source = open_registry(url)
    shown_on = console(stderr=True)
    column = TextColumn("{task.description}")
    with Progress(column, console=shown_on, transient=True, disable=not shown_on.is_terminal) as bar:
        task = bar.add_task("listing", total=None)

        def progress(report: WholeReport) -> None:
            done = f"{report.copied} copied ({human_bytes(report.bytes)}), {report.there} there"
            bar.update(task, description=done)

        report = copy_whole(source.store, open_store(to), progress=progress)
    if as_json:
        print_json(asdict(report))
    else:
        typer.echo(f"{report.copied} objects copied ({human_bytes(report.bytes)}), {report.there} were there")
    for key, why in sorted(report.damaged.items()):
        warn(f"{key} was left out: {why}")
    if report.damaged:
        raise typer.Exit(1)
