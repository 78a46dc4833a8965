"""`marway publish` and `marway release`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from marway.admin_client import comparison_of
from marway.direct_release import release_directly
from marway.errors import ReleaseRefused, clip
from marway.process.identity import this_user
from marway.refs import DEFAULT_LABEL, check_label, check_model_name, check_version
from marway.registry import open_registry
from marway.text import printable
from marway.wire.comparison import Comparison, comparison_lines
from marway_archiver.cli.output import human_bytes, progress_bar
from marway_archiver.publishing.publish import publish_archive
from marway_ops.shell.options import (
    AdminOption,
    CreateRegistryOption,
    JsonOption,
    NoteOption,
    RegistryOption,
    TokenFileOption,
    TokenOption,
    admin_if_any,
    admin_url,
    registry_url,
)
from marway_ops.shell.output import change_entry, history_entry, moved, print_json, warn

__all__ = ["publish", "release"]


def publish(
    archive: Annotated[Path, typer.Argument(help="A .mar of `marway pack` or torch-model-archiver, or a .bundle.")],
    label: Annotated[str | None, typer.Option(help="Point this label at the version, such as PROD.")] = None,
    record: Annotated[Path | None, typer.Option(help="JSON file of facts about the version.")] = None,
    training_data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSONL, CSV or Parquet of its training data, whose summary `drift` needs."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="The kind of model server that a .mar is for; torchserve.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Pods of this engine alone serve it, such as native; else all that can.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why, for the label's history.")] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Move the label without proof or comparison; the history says so."),
    ] = False,
    lock: Annotated[
        bool, typer.Option("--lock/--no-lock", help="Lock what the archive requires, for pods to install it.")
    ] = True,
    lock_for: Annotated[
        list[str] | None, typer.Option(help="Lock for this Python and platform, such as 3.11/linux-x86_64; repeatable.")
    ] = None,
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
            backend=backend,
            engine=engine,
            note=note,
            gateway=admin_url(gateway, registry) if label is not None else None,
            force=force,
            lock=lock,
            lock_for=lock_for or (),
            training_data=training_data,
            progress=progress,
        )
    if as_json:
        print_json(stored.model_dump(mode="json"))
        return
    if repacked:
        warn(f"{archive} was re-packed: the same files, as an archive whose bytes are canonical")
    size = human_bytes(stored.archive.size_bytes)
    typer.echo(f"published {stored.name} {stored.version} ({stored.id}), {size}, sha256:{stored.archive.sha256}")
    for locked in stored.environments:
        wheels = human_bytes(sum(wheel.size_bytes for wheel in locked.wheels))
        typer.echo(f"requirements locked for {locked.target}: {len(locked.wheels)} wheels, {wheels}")
    if training_data is not None:
        names = clip(", ".join(stored.training.features), 200)
        typer.echo(f"training data summed up: {len(stored.training.features)} fields: {names}")
    if label is not None:
        typer.echo(f"{stored.name} {label} → {stored.version}")


def release(
    model: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[str, typer.Argument(help="Version to point the label at.")],
    label: Annotated[str, typer.Option(help="Label to move.")] = DEFAULT_LABEL,
    if_currently: Annotated[str | None, typer.Option(help="Only if the label is at this version.")] = None,
    note: NoteOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also one that is not proved, or that was refused; the history says so.")
    ] = False,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a pod prove a version and compare it with the label's, and move the label to it.

    Every gateway follows within 2 seconds. A version that fails, is not finite or answers in another form where the
    label's does not is refused. Without a gateway the label moves only to a version that was proved before, and only
    published golden answers are compared.
    """
    check_model_name(model)
    check_version(version)
    check_label(label)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    moving: dict[str, Any] = {"label": label, "if_currently": if_currently, "note": note, "force": force}
    proved = ""
    try:
        if client is not None:
            done = client.release(model, version, **moving)
            entry, comparison = change_entry(done), comparison_of(done)
            proved = "".join(_proved(load) for load in done["loads"] if load["proved"]) + _kept(done.get("contracts"))
        else:
            change, comparison = release_directly(
                open_registry(registry_url(registry)), model, version, **moving, by=this_user()
            )
            entry = history_entry(change.entry)
    except ReleaseRefused as exc:
        if exc.comparison is not None:
            _print_comparison(exc.comparison, as_json=as_json)
        raise
    if as_json:
        print_json({**entry, "comparison": comparison.model_dump(mode="json")})
        return
    typer.echo(moved(model, entry) + proved)
    _print_comparison(comparison, as_json=False)


def _print_comparison(comparison: Comparison, *, as_json: bool) -> None:
    if as_json:
        print_json({"comparison": comparison.model_dump(mode="json")})
    else:
        typer.echo(printable("\n".join(comparison_lines(comparison))))


def _proved(load: Mapping[str, Any]) -> str:
    examples = load["report"]["examples"]
    answers = f"gave its {examples} golden answers" if examples else "loaded it, which has no golden answers"
    return f"; {load['pod']} {answers}"


def _kept(contracts: Mapping[str, Any] | None) -> str:
    """Return what consumers rely on that it was asked just now."""
    asked = (contracts or {}).get("contracts", {})
    return f"; kept what {', '.join(sorted(asked))} rely on" if asked else ""
