"""`marway df`: how many bytes the registry has, and what for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Final

import typer

from marway.objects import open_store
from marway.settings import OBSERVATIONS_ENV
from marway.storage.usage import Usage, usage_of
from marway.text import human_bytes
from marway_ops.shell.options import JsonOption, RegistryOption, opened_registry
from marway_ops.shell.output import print_json, print_table

__all__ = ["df"]

_MEANING: Final = {
    "contents": "archives, golden answers and wheels of versions, each once",
    "unreferenced": "of no version, or of deleted ones: `marway gc` takes them, a day after it saw them first",
    "models": "records, states and histories",
    "ids": "what ids and names stand for",
    "proofs": "what pods proved",
    "checks": "what else was checked of versions",
    "contracts": "what consumers rely on",
    "rollouts": "counts and reports of rollouts",
    "observations": "what is kept of predictions",
    "feedback": "what predictions should have been",
    "events": "what happened to models",
}


def df(
    model: Annotated[str | None, typer.Argument(help="Only this model, version by version.")] = None,
    registry: RegistryOption = None,
    observations: Annotated[
        str | None,
        typer.Option(help=f"URL of the store that has observations; else ${OBSERVATIONS_ENV}, else the registry's."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how many bytes models and versions take, and everything else that is stored."""
    found = opened_registry(registry)
    name = None if model is None else found.find(model)
    observed = observations or os.environ.get(OBSERVATIONS_ENV)
    usage = usage_of(found, observations=open_store(observed) if observed else None)
    usage.models = [each for each in usage.models if name in (None, each.name)]
    if as_json:
        print_json(asdict(usage))
        return
    if usage.models:
        print_table(("model", "version", "kind", "bytes", "alone", "observed"), _rows(usage, versions=name is not None))
    if name is not None:
        return
    typer.echo("")
    parts = [(part, human_bytes(size), _MEANING.get(part, "")) for part, size in usage.parts.items() if size]
    print_table(("what", "bytes", ""), [*parts, ("all", human_bytes(usage.bytes), f"{usage.objects} objects")])
    if usage.shared_bytes:
        typer.echo(f"{human_bytes(usage.shared_bytes)} of the contents are of several versions, and counted once")


def _rows(usage: Usage, *, versions: bool) -> Iterator[tuple[str, ...]]:
    for each in usage.models:
        kinds = ", ".join(sorted({version.kind for version in each.versions}))
        counted = f"{len(each.versions)} version{'s' * (len(each.versions) != 1)}"
        sizes = human_bytes(each.bytes), human_bytes(each.own_bytes), human_bytes(each.observed_bytes)
        yield each.name, counted, kinds, *sizes
        for version in each.versions if versions else ():
            yield "", version.version, version.kind, human_bytes(version.bytes), human_bytes(version.own_bytes), ""
