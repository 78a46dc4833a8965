"""`marway publish` and `marway release`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from marway.cli.options import (
    AdminOption,
    CreateRegistryOption,
    JsonOption,
    RegistryOption,
    TokenFileOption,
    TokenOption,
    admin_if_any,
    admin_url,
    registry_url,
)
from marway.cli.output import change_entry, history_entry, moved, print_json, warn
from marway.identity import me
from marway.refs import DEFAULT_LABEL, check_label, check_model_name, check_version
from marway.registry import open_registry
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
    force: Annotated[
        bool, typer.Option("--force", help="Move the label without a proof; the history says so.")
    ] = False,
    registry: RegistryOption = None,
    create_registry: CreateRegistryOption = False,
    gateway: AdminOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store an archive as an immutable version."""
    url = registry_url(registry)
    with progress_bar("storing") as progress:
        stored, repacked = publish_archive(
            archive,
            registry=url,
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
    if repacked:
        warn(f"{archive} was re-packed: the same files, as an archive whose bytes are canonical")
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
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a pod prove a version, and move a label to it; every gateway follows within 2 seconds.

    Without a gateway the label moves only to a version that was proved before.
    """
    check_model_name(model)
    check_version(version)
    check_label(label)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    proved = ""
    if client is not None:
        done = client.release(model, version, label=label, if_currently=if_currently, note=note, force=force)
        entry = change_entry(done)
        proved = "".join(_proved(load) for load in done["loads"] if load["proved"])
    else:
        change = open_registry(registry_url(registry)).release(
            model,
            version,
            label=label,
            if_currently=if_currently,
            note=note,
            forced=force,
            require_proof=True,
            by=me(),
        )
        entry = history_entry(change.entry)
    if as_json:
        print_json(entry)
        return
    typer.echo(moved(model, entry) + proved)


def _proved(load: Mapping[str, Any]) -> str:
    examples = load["report"]["examples"]
    answers = f"gave its {examples} golden answers" if examples else "loaded it, which has no golden answers"
    return f"; {load['pod']} {answers}"
