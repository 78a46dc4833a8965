"""`marway table`: rows by key, published for the lookup nodes of graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marway_archiver.cli.output import human_bytes, progress_bar
from marway_archiver.publishing.tables import publish_table
from marway_ops.shell.options import (
    AdminOption,
    CreateRegistryOption,
    JsonOption,
    NoteOption,
    RegistryOption,
    admin_url,
    registry_url,
)
from marway_ops.shell.output import print_json

__all__ = ["table"]

table = typer.Typer(
    name="table",
    help="Rows by key, as a version of its own, for the lookup nodes of graphs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@table.callback()
def _one_verb() -> None:
    """Keep `publish` a verb of its own: with one verb alone, typer would take its place."""


@table.command()
def publish(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet, or an Arrow IPC file or stream.")],
    model_name: Annotated[str, typer.Option(help="The table's name.")],
    version: Annotated[str, typer.Option("--version", "-v", help="Version of the table, such as 2024-05-01.")],
    key: Annotated[str, typer.Option(metavar="COLUMN", help="What rows are found by: whole numbers or text.")],
    label: Annotated[str | None, typer.Option(help="Point this label at the version, such as PROD.")] = None,
    record: Annotated[Path | None, typer.Option(help="JSON file of facts about the version.")] = None,
    note: NoteOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Move the label without proof or comparison; the history says so.")
    ] = False,
    registry: RegistryOption = None,
    create_registry: CreateRegistryOption = False,
    gateway: AdminOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store the rows of a file as an immutable version, sorted by key."""
    with progress_bar("storing") as progress:
        stored = publish_table(
            file,
            model_name=model_name,
            version=version,
            key=key,
            registry=registry_url(registry),
            create_registry=create_registry,
            label=label,
            record=record,
            note=note,
            gateway=admin_url(gateway, registry) if label is not None else None,
            force=force,
            progress=progress,
        )
    if as_json:
        print_json(stored.model_dump(mode="json"))
        return
    columns, size = len(stored.signature.outputs), human_bytes(stored.archive.size_bytes)
    typer.echo(
        f"published table {stored.name} {stored.version} ({stored.id}), {columns} "
        f"{'column' if columns == 1 else 'columns'} by {key}, {size}, sha256:{stored.archive.sha256}"
    )
    if label is not None:
        typer.echo(f"{stored.name} {label} → {stored.version}")
