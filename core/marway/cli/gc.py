"""`marway gc`: delete what nothing refers to."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from marway.cli.options import JsonOption, RegistryOption, registry_url
from marway.cli.output import print_json, print_table
from marway.objects import open_store
from marway.registry import Registry

__all__ = ["register"]

_MEANING = {
    "marked": "unused: deleted if still so in a day",
    "waiting": "unused, marked less than a day ago",
    "deleted": "deleted",
    "kept": "marked, in use again",
    "swept": "left by an interrupted write, removed",
}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("gc")(gc)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mark archives that no version uses, and delete those that were marked a day ago; run it daily."""
    url = registry_url(registry)
    report = asdict(Registry(open_store(url)).gc(dry_run=dry_run))
    if as_json:
        print_json({"dry_run": dry_run, **report})
        return
    rows = [(key, _MEANING[kind]) for kind, found in report.items() for key in found]
    if not rows:
        typer.echo(f"{url}: nothing to collect")
        return
    print_table(("object", "would be" if dry_run else "what"), rows)
