"""`marway export` and `marway import`: versions in a file, for where no registry reaches another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from marway.process.identity import this_user
from marway.registry import open_registry
from marway.storage.copying import copy_plan
from marway.storage.exported import opened_export
from marway.storage.exporting import export as export_to
from marway.storage.planning import plan_of
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
from marway_ops.shell.options import (
    CreateRegistryOption,
    JsonOption,
    NoteOption,
    RegistryOption,
    opened_registry,
    registry_url,
)
from marway_ops.shell.output import console, print_result, warn

__all__ = ["export", "import_file"]


def export(
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL[@LABEL|/VERSION]",
            help="Models with all their versions, or one version each, by label or name.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file; one that is there is replaced.")],
    along: AlongOption = True,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write versions into one file, with golden answers, proofs, labels and contracts; the same make the same bytes."""
    source = opened_registry(registry)
    plan = plan_of(source, model, along=along)
    warn_of_plan(plan)
    for needs in plan.needs.values():
        for need in needs:
            if need.version is None or need.version not in plan.versions(need.model):
                warn(f"not in the file: {need}")
    shown_on = console(stderr=True)
    columns = DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=shown_on, transient=True, disable=not shown_on.is_terminal) as bar:
        task = bar.add_task("", total=sum(record.archive.size_bytes for record in plan.records))
        report = export_to(source, plan, output, tick=lambda count: bar.advance(task, count))
    versions = [f"{record.name} {record.version}" for record in plan.records]
    document = {**asdict(report), "path": str(output), "versions": versions}
    line = f"{output}: {', '.join(versions) or 'no versions'}; {human_bytes(report.bytes)}, sha256 {report.sha256}"
    print_result(document, line, as_json=as_json)


def import_file(
    file: Annotated[Path, typer.Argument(help="What `marway export` wrote.")],
    label: LabelOption = None,
    labels: LabelsOption = False,
    contracts: ContractsOption = False,
    protection: ProtectionOption = False,
    serving: ServingOption = False,
    force: ForceOption = False,
    create_registry: CreateRegistryOption = False,
    note: NoteOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the versions of an exported file into the registry; what is there already is left as it is."""
    choices = chosen(label, labels=labels, contracts=contracts, protection=protection, serving=serving, force=force)
    target = open_registry(registry_url(registry), create=create_registry)
    target.check_there()
    with opened_export(file) as (source, origin), shown_progress() as progress:
        plan = plan_of(source, ())
        warn_of_plan(plan)
        report = copy_plan(
            source, target, plan, origin=origin, choices=choices, note=note, by=this_user(), progress=progress
        )
    print_report(report, as_json=as_json, none=f"{file} holds no versions")
