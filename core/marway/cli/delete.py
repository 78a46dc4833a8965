"""`marway delete`: a version that nobody shall use again."""

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
from marway.cli.output import change_entry, history_entry, print_json
from marway.identity import me
from marway.refs import check_model_name, check_version
from marway.registry import open_registry

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("delete")(delete)


def delete(
    model: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[str, typer.Argument(help="Version to delete.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also a version that labels point at; they are taken away with it.")
    ] = False,
    note: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a version for good; it is refused everywhere within 2 seconds, and its bytes go with gc."""
    check_model_name(model)
    check_version(version)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        params = {"force": "true" if force else None, "note": note}
        entry = change_entry(client.call("DELETE", f"/models/{model}/versions/{version}", params=params))
    else:
        found = open_registry(registry_url(registry))
        entry = history_entry(found.delete(model, version, note=note, forced=force, by=me()).entry)
    if as_json:
        print_json(entry)
    else:
        typer.echo(f"{model} {version} is deleted")
