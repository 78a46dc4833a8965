"""`marway history`: every change of a model, newest first."""

from __future__ import annotations

import itertools
import json
from typing import Annotated

import typer

from marway.cli.options import JsonOption, RegistryOption, registry_url
from marway.cli.output import history_entry, print_json, print_table, when
from marway.records import HistoryEntry
from marway.refs import check_label
from marway.registry import open_registry

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("history")(history)


def history(
    model: Annotated[str, typer.Argument(help="Model name.")],
    label: Annotated[str | None, typer.Option(help="Only changes of this label.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 100,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who changed what about a model, when and why; newest first."""
    if label is not None:
        check_label(label)
    found = open_registry(registry_url(registry))
    name = found.find(model)
    wanted = (entry for entry in found.history(name) if label in (None, entry.label))
    entries = list(itertools.islice(wanted, limit))
    if as_json:
        print_json([history_entry(entry) for entry in entries])
    elif not entries:
        typer.echo(f"{name} has not been changed yet: release a version with `marway release {name} VERSION`")
    else:
        print_table(
            ("#", "at (UTC)", "by", "what", "note"),
            ((str(each.generation), when(each.at), each.by, _what(each), each.note or "") for each in entries),
        )
        if next(wanted, None) is not None:
            typer.echo(f"… and older ones: --limit shows more than {limit}", err=True)


def _what(entry: HistoryEntry) -> str:
    if entry.kind == "serving" and entry.serving is not None:
        said = [f"{name}={json.dumps(value)}" for name, value in entry.serving.set.items()]
        said += [f"{name} unset" for name in entry.serving.unset]
        return f"serving of {'all' if entry.serving.version == '*' else entry.serving.version}: {', '.join(said)}"
    if entry.kind == "tombstone":
        return f"deleted {entry.from_version}"
    how = {"rollback": " (rollback)", "label": " (forced)" if entry.forced else ""}.get(entry.kind, "")
    return f"{entry.label} {entry.from_version or 'none'} → {entry.to_version}{how}"
