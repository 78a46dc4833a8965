"""`marway gc`: delete what nothing refers to, or read everything and say what is damaged."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from marway.registry import Registry, open_registry
from marway_ops.cli.options import JsonOption, RegistryOption, registry_url
from marway_ops.cli.output import print_json, print_table

__all__ = ["gc"]

_MEANING = {
    "marked": "unused: deleted if still so in a day",
    "waiting": "unused, marked less than a day ago",
    "deleted": "deleted",
    "kept": "marked, in use again",
    "swept": "left by an interrupted write, removed",
}


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    scrub: Annotated[
        bool,
        typer.Option("--scrub", help="Delete nothing: read every object and say what is damaged, and how to mend it."),
    ] = False,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mark archives that no version uses, and delete those that were marked a day ago; run it daily."""
    url = registry_url(registry)
    if scrub:
        _scrub(open_registry(url), as_json=as_json)
        return
    report = asdict(open_registry(url).gc(dry_run=dry_run))
    if as_json:
        print_json({"dry_run": dry_run, **report})
        return
    rows = [(key, _MEANING[kind]) for kind, found in report.items() for key in found]
    if not rows:
        typer.echo(f"{url}: nothing to collect")
        return
    print_table(("object", "would be" if dry_run else "what"), rows)


def _scrub(registry: Registry, *, as_json: bool) -> None:
    found = list(registry.scrub())
    if as_json:
        print_json([asdict(damage) for damage in found])
    elif not found:
        typer.echo(f"{registry.url}: everything was read, and nothing is damaged")
    else:
        print_table(("object", "damage", "what to do"), [(each.key, each.what, each.mend) for each in found])
    if found:
        raise typer.Exit(1)
