"""`marway models`: what the registry has."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from marway.cli.options import JsonOption, RegistryOption, registry_url
from marway.cli.output import print_json, print_table, warn
from marway.registry import ModelSummary, open_registry

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("models")(models)


def models(
    registry: RegistryOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 1000,
    start_after: Annotated[str, typer.Option(metavar="MODEL", help="Begin behind this model.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List models with their labels and versions."""
    url = registry_url(registry)
    found = open_registry(url).summaries(start_after=start_after)
    rows = list(itertools.islice(found, limit))
    if as_json:
        print_json(
            [
                {
                    "name": row.name,
                    "labels": dict(row.state.labels),
                    "versions": list(row.versions),
                    **({} if row.damage is None else {"damage": row.damage}),
                }
                for row in rows
            ]
        )
        return
    if not rows:
        typer.echo(f"{url} has no models yet: publish one with `marway publish ARCHIVE --label PROD`")
        return
    print_table(
        ("model", "labels", "versions"),
        (
            (
                row.name,
                _labels(row),
                ", ".join(row.versions),
            )
            for row in rows
        ),
    )
    for row in rows:
        if row.damage is not None:
            warn(f"{row.name}: {row.damage}")
    if next(found, None) is not None:
        typer.echo(f"… and more: --start-after {rows[-1].name} goes on, --limit shows more than {limit}", err=True)


def _labels(row: ModelSummary) -> str:
    if row.damage is not None:
        return "damaged"
    return ", ".join(f"{label} → {version}" for label, version in sorted(row.state.labels.items())) or "-"
