"""`marway graph import FILE.war`: a workflow of TorchServe as a graph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from marway.archives.entries import open_regular
from marway.graphs import draw_graph, encode_graph
from marway.text import printable
from marway_archiver.adopt.report import Adopted
from marway_archiver.publishing.register import opened_registry
from marway_archiver.workflows.importing import import_workflow
from marway_ops.shell.options import (
    AdminOption,
    CreateRegistryOption,
    JsonOption,
    NoteOption,
    RegistryOption,
    admin_url,
    registry_url,
)
from marway_ops.shell.output import print_json, print_table, warn

__all__ = ["import_"]


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.war", help="A workflow, as torch-workflow-archiver makes it.")],
    version: Annotated[
        str, typer.Option("--version", "-v", help="Version of the graph: a workflow itself has none.")
    ] = "1.0",
    model_name: Annotated[
        str | None, typer.Option(help="The name that it is asked by; by default the workflow's.")
    ] = None,
    model_store: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the archives are that it names; by default beside it.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Point this label at the graph, such as PROD.")] = None,
    note: NoteOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Move the label without proof or comparison; the history says so.")
    ] = False,
    registry: RegistryOption = None,
    create_registry: CreateRegistryOption = False,
    gateway: AdminOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a TorchServe workflow as a graph, with its models and functions; again, it publishes nothing new."""
    os.close(open_regular(file))  # a slip in its name is told before anything else
    done = import_workflow(
        file,
        registry=opened_registry(registry_url(registry), create_registry=create_registry),
        version=version,
        model_name=model_name,
        model_store=model_store,
        create_registry=create_registry,
        label=label,
        note=note,
        gateway=admin_url(gateway, registry) if label is not None else None,
        force=force,
    )
    record, adopted = done.record, done.report.adopted
    if as_json:
        print_json(
            {
                "graph": record.model_dump(mode="json"),
                "document": encode_graph(done.graph).decode(),
                "versions": [_version(each) for each in adopted],
                "notes": done.report.found.notes,
            }
        )
        return
    for note_ in done.report.found.notes:
        warn(printable(note_))
    for each in adopted:
        for message in (*each.model.warnings, *each.messages):
            warn(printable(f"{each.model.reference}: {message}"))
    print_table(
        ("asks", "was", "is"), [(each.model.reference, each.model.endpoint.model, _outcome(each)) for each in adopted]
    )
    settings = [
        (each.model.reference, setting.name, setting.value, setting.outcome, setting.becomes)
        for each in adopted
        for setting in each.model.settings
    ]
    print_table(("version", "setting", "says", "is", "what it becomes"), settings)
    typer.echo(printable(draw_graph(done.graph)))
    typer.echo(f"published graph {record.name} {record.version} ({record.id}), sha256:{record.archive.sha256}")
    if label is not None:
        typer.echo(f"{record.name} {label} → {record.version}")


def _outcome(adopted: Adopted) -> str:
    return "published" if adopted.outcome == "published" else "there before"


def _version(adopted: Adopted) -> dict[str, object]:
    model = adopted.model
    return {
        "version": model.reference,
        "was": model.endpoint.model,
        "outcome": adopted.outcome,
        "settings": [
            {"name": each.name, "value": each.value, "outcome": each.outcome, "becomes": each.becomes}
            for each in model.settings
        ],
        "warnings": [*model.warnings, *adopted.messages],
    }
