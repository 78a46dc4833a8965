"""`marway gc`: the registry, and what other rooms keep in object stores, each by its entry point in `marway.gc`.

An entry point is a function `(registry, *, observations, dry_run) -> {what: [keys]}`; `observations` is the URL that
the flag names, or None.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import entry_points
from typing import Annotated, Final

import typer

from marway.errors import MarwayError
from marway.registry import Registry, open_registry
from marway.settings import OBSERVATIONS_ENV
from marway_ops.shell.options import JsonOption, RegistryOption, registry_url
from marway_ops.shell.output import print_found, warn

__all__ = ["gc"]

_GROUP: Final = "marway.gc"
_MEANING: Final = {
    "marked": "unused: deleted if still so in a day",
    "waiting": "unused, marked less than a day ago",
    "deleted": "deleted",
    "kept": "marked, in use again",
    "swept": "left by an interrupted write, removed",
    "expired": "older than it is to be kept, deleted",
    "merged": "made of several small files",
    "replaced": "in a merged file now, deleted",
    "broken": "cannot be read, left as it is",
}


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    scrub: Annotated[
        bool,
        typer.Option("--scrub", help="Delete nothing: read every object and say what is damaged, and how to mend it."),
    ] = False,
    registry: RegistryOption = None,
    observations: Annotated[
        str | None,
        typer.Option(help=f"URL of the store that has observations; else ${OBSERVATIONS_ENV}, else the registry's."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Mark archives that no version uses, and delete those that were marked a day ago; run it daily.

    Observations and feedback that are older than they are to be kept go as well, and their small files become few.
    """
    url = registry_url(registry)
    opened = open_registry(url)
    if scrub:
        damaged = list(opened.scrub())
        print_found(
            [asdict(damage) for damage in damaged],
            ("object", "damage", "what to do"),
            [(each.key, each.what, each.mend) for each in damaged],
            as_json=as_json,
            none=f"{opened.url}: everything was read, and nothing is damaged",
        )
        if damaged:
            raise typer.Exit(1)
        return
    report = asdict(opened.gc(dry_run=dry_run))
    others, failed = _others(opened, observations, dry_run=dry_run)
    print_found(
        {"dry_run": dry_run, **report, **others},
        ("object", "would be" if dry_run else "what"),
        [
            (key, _MEANING.get(kind, kind))
            for each in (report, *(found for found in others.values() if found is not None))
            for kind, keys in each.items()
            for key in keys
        ],
        as_json=as_json,
        none=f"{url}: nothing to collect",
    )
    if failed:
        raise typer.Exit(1)


def _others(
    registry: Registry, observations: str | None, *, dry_run: bool
) -> tuple[dict[str, dict[str, list[str]] | None], bool]:
    """Return what each other room did, by its name, and whether one failed; None stands for one that did not do its
    part, and people are told why.
    """
    failed = False
    done: dict[str, dict[str, list[str]] | None] = {}
    for entry in sorted(entry_points(group=_GROUP), key=lambda found: found.name):
        try:
            collect = entry.load()
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("marway"):
                raise
            warn(f"{entry.name} were not looked after: pip install 'marway[observations]'")
            done[entry.name] = None
            continue
        try:
            done[entry.name] = collect(registry, observations=observations, dry_run=dry_run)
        except MarwayError as exc:  # what the registry's own part did is to be told in any case
            warn(f"{entry.name} were not looked after: {exc.message}")
            done[entry.name], failed = None, True
    return done, failed
