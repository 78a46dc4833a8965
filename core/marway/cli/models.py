"""`marway models`: what the registry has."""

from __future__ import annotations

import itertools
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marway.cli.options import JsonOption, RegistryOption, registry_url
from marway.objects import open_store
from marway.registry import Registry

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("models")(models)


def models(
    registry: RegistryOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """List models with their labels and versions."""
    url = registry_url(registry)
    found = Registry(open_store(url))
    names = found.models()
    rows = [
        (name, dict(found.state(name).labels), list(found.versions(name))) for name in itertools.islice(names, limit)
    ]
    if as_json:
        document = [{"name": name, "labels": labels, "versions": versions} for name, labels, versions in rows]
        typer.echo(json.dumps(document, indent=2))
        return
    if not rows:
        typer.echo(f"{url} has no models yet: publish one with `marway publish ARCHIVE --label PROD`")
        return
    table = Table("model", "labels", "versions", box=None)
    for name, labels, versions in rows:
        moved = ", ".join(f"{label} → {version}" for label, version in sorted(labels.items()))
        table.add_row(Text(name), Text(moved or "-"), Text(", ".join(versions)))
    Console().print(table)
    if next(names, None) is not None:
        typer.echo(f"… and more: --limit shows more than {limit}", err=True)
