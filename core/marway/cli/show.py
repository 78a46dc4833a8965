"""`marway show`: a model, or one version of it, as the registry knows it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from marway.cli.options import JsonOption, RegistryOption, registry_url
from marway.cli.output import print_json, print_table
from marway.records import VersionRecord
from marway.refs import parse_reference
from marway.registry import Registry, open_registry

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("show")(show)


def show(
    reference: Annotated[str, typer.Argument(metavar="MODEL[/REF]", help="A model, MODEL/VERSION, MODEL/LABEL or id.")],
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a model with its versions and labels, or all facts about one version."""
    wanted = parse_reference(reference)
    found = open_registry(registry_url(registry))
    pointer = found.pointer(wanted.name)
    if wanted.selector is None and pointer is not None and pointer.kind == "name":
        document = _model(found, pointer.model)
        if as_json:
            print_json(document)
        else:
            _print_model(document)
        return
    record = found.resolve(wanted)
    document = _version(found, record)
    if as_json:
        print_json(document)
    else:
        print_table(("field", "value"), _flat(document))


def _model(found: Registry, name: str) -> dict[str, Any]:
    state = found.state(name)
    return {
        "name": name,
        "labels": dict(sorted(state.labels.items())),
        "versions": [version for version in found.versions(name) if version not in state.tombstones],
        "serving": {
            key: settings.model_dump(mode="json", exclude_unset=True) for key, settings in sorted(state.serving.items())
        },
        "deleted": {version: grave.model_dump(mode="json") for version, grave in sorted(state.tombstones.items())},
        "generation": state.generation,
    }


def _print_model(document: dict[str, Any]) -> None:
    labels: dict[str, list[str]] = {}
    for label, version in document["labels"].items():
        labels.setdefault(version, []).append(label)
    rows = [(version, ", ".join(labels.get(version, ())) or "-") for version in document["versions"]]
    rows += [
        (version, f"deleted {grave['at'][:19]} by {grave['by']}") for version, grave in document["deleted"].items()
    ]
    print_table((document["name"], "labels"), rows)
    for key, settings in document["serving"].items():
        typer.echo(f"serving overridden for {'all versions' if key == '*' else key}: {json.dumps(settings)}")


def _version(found: Registry, record: VersionRecord) -> dict[str, Any]:
    state = found.state(record.name)
    return {
        "record": record.model_dump(mode="json"),
        "labels": sorted(label for label, at in state.labels.items() if at == record.version),
        "serving": state.serving_for(record).model_dump(mode="json"),
        "proofs": [proof.model_dump(mode="json") for proof in found.proofs(record.archive.sha256)],
    }


def _flat(document: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for field, value in document["record"].items():
        if field == "serving":
            continue  # shown as it is now, below
        if isinstance(value, dict):
            rows += [(f"{field}.{key}", _text(each)) for key, each in value.items()]
        else:
            rows.append((field, _text(value)))
    rows.append(("labels", ", ".join(document["labels"]) or "-"))
    rows += [(f"serving.{key}", _text(value)) for key, value in document["serving"].items()]
    for proof in document["proofs"]:
        answers = "reproduced its golden answers" if proof["golden_sha256"] else "loaded (it has no golden answers)"
        rows.append((f"proof ({proof['kind']})", f"{proof['server']} {answers}, {proof['at'][:19]}, {proof['by']}"))
    return rows


def _text(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
