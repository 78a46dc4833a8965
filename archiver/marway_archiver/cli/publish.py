"""`marway publish` and `marway release`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marway.cli.options import JsonOption, RegistryOption, registry_url
from marway.cli.output import history_entry, moved, print_json
from marway.identity import me
from marway.objects import open_store
from marway.refs import DEFAULT_LABEL
from marway.registry import Registry
from marway_archiver.cli.output import human_bytes, progress_bar
from marway_archiver.publish import publish_archive

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("publish")(publish)
    app.command("release")(release)


def publish(
    archive: Annotated[Path, typer.Argument(help="A .mar file, made by `marway pack` or torch-model-archiver.")],
    label: Annotated[str | None, typer.Option(help="Point this label at the version, such as PROD.")] = None,
    record: Annotated[Path | None, typer.Option(help="JSON file of facts about the version.")] = None,
    note: Annotated[str | None, typer.Option(help="Why, for the label's history.")] = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store an archive as an immutable version."""
    url = registry_url(registry)
    with progress_bar("storing") as progress:
        stored, repacked = publish_archive(
            archive, registry=url, label=label, record=record, note=note, progress=progress
        )
    if as_json:
        print_json(stored.model_dump(mode="json"))
        return
    if repacked:
        typer.echo(f"{archive} was re-packed: the same files, as an archive whose bytes are canonical", err=True)
    size = human_bytes(stored.archive.size_bytes)
    typer.echo(f"published {stored.name} {stored.version} ({stored.id}), {size}, sha256:{stored.archive.sha256}")
    if label is not None:
        typer.echo(f"{stored.name} {label} → {stored.version}")


def release(
    model: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[str, typer.Argument(help="Version to point the label at.")],
    label: Annotated[str, typer.Option(help="Label to move.")] = DEFAULT_LABEL,
    if_currently: Annotated[str | None, typer.Option(help="Only if the label is at this version.")] = None,
    note: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also a version that no pod has proved; the history says so.")
    ] = False,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move a label to a version; every gateway follows within 2 seconds."""
    change = Registry(open_store(registry_url(registry))).release(
        model, version, label=label, if_currently=if_currently, note=note, forced=force, by=me()
    )
    if as_json:
        print_json(history_entry(change.entry))
        return
    typer.echo(moved(model, change.entry))
