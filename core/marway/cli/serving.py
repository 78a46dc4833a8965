"""`marway serving`: how versions are served, shown and changed without publishing again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from marway.cli.options import JsonOption, RegistryOption, registry_url
from marway.cli.output import print_json, print_table
from marway.identity import me
from marway.objects import open_store
from marway.records import ModelState, VersionRecord
from marway.refs import Reference
from marway.registry import Registry

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("serving")(serving)


def serving(
    model: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[str | None, typer.Option(help="This version; * means all, which is what changes go to.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a setting; repeatable.")
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="Let the record's value count again; repeatable.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how versions are served, or change it; every gateway follows within 2 seconds."""
    changes = _parsed(set_ or ())
    found = Registry(open_store(registry_url(registry)))
    name = found.find(model)
    if changes or unset:
        target = version or "*"
        change = found.set_serving(name, version=target, set_fields=changes, unset=unset or (), note=note, by=me())
        state = change.state
    else:
        state = found.state(name)
    if version in (None, "*"):
        versions = [each for each in found.versions(name) if each not in state.tombstones]
        records = [found.record(name, each) for each in versions]
    else:
        assert version is not None
        records = [found.resolve(Reference(name, version))]
    if as_json:
        print_json(_document(name, state, records))
    else:
        _print(state, records)


def _parsed(assignments: Sequence[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{assignment!r} is not FIELD=VALUE", param_hint="--set")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text
    return changes


def _document(name: str, state: ModelState, records: Sequence[VersionRecord]) -> dict[str, Any]:
    return {
        "name": name,
        "overrides": {
            key: settings.model_dump(mode="json", exclude_unset=True) for key, settings in sorted(state.serving.items())
        },
        "serving": {record.version: state.serving_for(record).model_dump(mode="json") for record in records},
    }


def _print(state: ModelState, records: Sequence[VersionRecord]) -> None:
    served = {record.version: state.serving_for(record).model_dump(mode="json") for record in records}
    fields = next(iter(served.values()), {})

    def cell(record: VersionRecord, field: str) -> str:
        value = json.dumps(served[record.version][field])
        for key in (record.version, "*"):
            if key in state.serving and field in state.serving[key].model_fields_set:
                return f"{value} (set for {'all' if key == '*' else key})"
        return value

    print_table(
        ("setting", *(record.version for record in records)),
        ((field, *(cell(record, field) for record in records)) for field in fields),
    )
