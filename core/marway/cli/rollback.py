"""`marway rollback`: undo the newest release of a label."""

from __future__ import annotations

from typing import Annotated

import typer

from marway.cli.options import JsonOption, RegistryOption, registry_url
from marway.cli.output import history_entry, moved, print_json
from marway.identity import me
from marway.objects import open_store
from marway.refs import DEFAULT_LABEL
from marway.registry import Registry

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("rollback")(rollback)


def rollback(
    model: Annotated[str, typer.Argument(help="Model name.")],
    label: Annotated[str, typer.Option(help="Label to move back.")] = DEFAULT_LABEL,
    if_currently: Annotated[str | None, typer.Option(help="Only if the label is at this version.")] = None,
    note: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Undo the newest release of a label that is not undone yet; every gateway follows within 2 seconds."""
    found = Registry(open_store(registry_url(registry)))
    change = found.rollback(model, label=label, if_currently=if_currently, note=note, by=me())
    if as_json:
        print_json(history_entry(change.entry))
    else:
        typer.echo(moved(model, change.entry))
