"""`marway rollback`: undo the newest release of a label."""

from __future__ import annotations

from typing import Annotated

import typer

from marway.cli.options import (
    AdminOption,
    JsonOption,
    RegistryOption,
    TokenFileOption,
    TokenOption,
    admin_if_any,
    registry_url,
)
from marway.cli.output import change_entry, history_entry, moved, print_json
from marway.identity import me
from marway.refs import DEFAULT_LABEL, check_label, check_model_name
from marway.registry import open_registry

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
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Undo the newest release of a label that is not undone yet; every gateway follows within 2 seconds."""
    check_model_name(model)
    check_label(label)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        body = {"if_currently": if_currently, "note": note}
        entry = change_entry(client.call("POST", f"/models/{model}/labels/{label}/rollback", body=body))
    else:
        found = open_registry(registry_url(registry))
        change = found.rollback(model, label=label, if_currently=if_currently, note=note, by=me())
        entry = history_entry(change.entry)
    if as_json:
        print_json(entry)
    else:
        typer.echo(moved(model, entry))
