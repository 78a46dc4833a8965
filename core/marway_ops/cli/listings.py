"""Verbs that show what the registry has: `marway models`, `show` and `history`."""

from __future__ import annotations

import itertools
import json
from typing import Annotated, Any

import typer

from marway.graphs import GRAPH_BACKEND, draw_graph, encode_graph, parse_graph
from marway.protection.contracts import consumers_of
from marway.records import HistoryEntry, Proof, VersionRecord, overrides
from marway.refs import check_label, parse_reference
from marway.registry import ModelSummary, Registry, open_registry
from marway.registry.graphs import pinned_by
from marway.text import printable
from marway.traffic import Traffic
from marway_ops.cli.protect import protection_words
from marway_ops.cli.rollouts.words import rollout_words, traffic_lines
from marway_ops.shell.options import (
    JsonOption,
    LimitOption,
    RegistryOption,
    opened_registry,
    registry_url,
)
from marway_ops.shell.output import history_entry, print_found, print_json, print_table, warn, when

__all__ = ["history", "models", "show"]


def models(
    registry: RegistryOption = None,
    limit: LimitOption = 1000,
    start_after: Annotated[str, typer.Option(metavar="MODEL", help="Begin behind this model.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List models with their labels and versions."""
    url = registry_url(registry)
    found = open_registry(url).summaries(start_after=start_after)
    rows = list(itertools.islice(found, limit))
    print_found(
        [
            {
                "name": row.name,
                "labels": dict(row.state.labels),
                "versions": list(row.versions),
                **({} if row.damage is None else {"damage": row.damage}),
            }
            for row in rows
        ],
        ("model", "labels", "versions"),
        ((row.name, _labels(row), ", ".join(row.versions)) for row in rows),
        as_json=as_json,
        none=f"{url} has no models yet: publish one with `marway publish ARCHIVE --label PROD`",
    )
    if as_json:
        return
    for row in rows:
        if row.damage is not None:
            warn(f"{row.name}: {row.damage}")
    if next(found, None) is not None:
        typer.echo(f"… and more: --start-after {rows[-1].name} goes on, --limit shows more than {limit}", err=True)


def _labels(row: ModelSummary) -> str:
    if row.damage is not None:
        return "damaged"
    return ", ".join(f"{label} → {version}" for label, version in sorted(row.state.labels.items())) or "-"


def show(
    reference: Annotated[str, typer.Argument(metavar="MODEL[/REF]", help="A model, MODEL/VERSION, MODEL/LABEL or id.")],
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a model with its versions and labels, or all facts about one version."""
    wanted = parse_reference(reference)
    found = opened_registry(registry)
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
    print_found(document, ("field", "value"), _flat(document), as_json=as_json)


def _model(found: Registry, name: str) -> dict[str, Any]:
    state = found.state(name)
    return {
        "name": name,
        "labels": dict(sorted(state.labels.items())),
        "versions": [version for version in found.versions(name) if version not in state.tombstones],
        "protected": {
            label: {name: getattr(each, name) for name in ("approvals", "require", "freeze")}
            for label, each in sorted(state.protection.items())
        },
        "contracts": sorted(state.contracts),
        "serving": overrides(state.serving),
        "traffic": {label: each.model_dump(mode="json") for label, each in sorted(state.traffic.items())},
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
    for label in document["protected"]:
        typer.echo(f"{label} is protected: `marway protect {document['name']} --label {label}` says how")
    if document["contracts"]:
        consumers = ", ".join(consumers_of(document["contracts"]))
        typer.echo(f"{len(document['contracts'])} contracts of consumers: {consumers}")
    for label, traffic in document["traffic"].items():
        for line in traffic_lines(label, Traffic.model_validate(traffic)):
            typer.echo(printable(line))
    for key, settings in document["serving"].items():
        typer.echo(f"serving overridden for {'all versions' if key == '*' else key}: {json.dumps(settings)}")


def _version(found: Registry, record: VersionRecord) -> dict[str, Any]:
    state = found.state(record.name)
    return {
        "record": record.model_dump(mode="json"),
        "labels": sorted(label for label, at in state.labels.items() if at == record.version),
        "serving": state.serving_for(record).model_dump(mode="json"),
        **_of_graphs(found, record),
        "proofs": [proof.model_dump(mode="json") for proof in found.proofs(record.archive.sha256)],
    }


def _of_graphs(found: Registry, record: VersionRecord) -> dict[str, Any]:
    """Return a graph's document, and the graphs that name a version by its version; nothing where there are none."""
    facts: dict[str, Any] = {}
    if record.backend == GRAPH_BACKEND:
        facts["graph"] = json.loads(encode_graph(found.graph(record)))
    graphs = [" ".join(each) for each in pinned_by(found, record.name, record.version)]
    return {**facts, **({"graphs": sorted(graphs)} if graphs else {})}


def _flat(document: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for field, value in document["record"].items():
        if field == "serving":
            continue  # shown as it is now, below
        if field == "training":
            value = {**value, "features": list(value["features"])}  # summaries are for programs: --json has them
        if isinstance(value, dict):
            rows += [(f"{field}.{key}", _text(each)) for key, each in value.items()]
        else:
            rows.append((field, _text(value)))
    rows.append(("labels", ", ".join(document["labels"]) or "-"))
    rows += [(f"serving.{key}", _text(value)) for key, value in document["serving"].items()]
    if "graphs" in document:
        rows.append(("named by graphs", ", ".join(document["graphs"])))
    if "graph" in document:
        drawn = draw_graph(parse_graph(json.dumps(document["graph"])))
        rows += [("graph" if number == 0 else "", line) for number, line in enumerate(drawn.splitlines())]
    for proof in document["proofs"]:
        finding = Proof.model_validate(proof).finding
        rows.append((f"proof ({proof['kind']})", f"{finding}, {proof['at'][:19]}, {proof['by']}"))
    return rows


def _text(value: object) -> str:
    if value is None or value == "":  # no handler, in a bundle
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def history(
    model: Annotated[str, typer.Argument(help="Model name.")],
    label: Annotated[str | None, typer.Option(help="Only changes of this label.")] = None,
    limit: LimitOption = 100,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who changed what about a model, when and why; newest first."""
    if label is not None:
        check_label(label)
    found = opened_registry(registry)
    name = found.find(model)
    wanted = (entry for entry in found.history(name) if label in (None, entry.label))
    entries = list(itertools.islice(wanted, limit))
    print_found(
        [history_entry(entry) for entry in entries],
        ("#", "at (UTC)", "by", "what", "note"),
        ((str(each.generation), when(each.at), each.by, _what(each), each.note or "") for each in entries),
        as_json=as_json,
        none=f"{name} has not been changed yet: release a version with `marway release {name} VERSION`",
    )
    if not as_json and next(wanted, None) is not None:
        typer.echo(f"… and older ones: --limit shows more than {limit}", err=True)


def _what(entry: HistoryEntry) -> str:
    if (said := protection_words(entry)) is not None:
        return said
    if entry.rollout is not None:
        return rollout_words(entry, entry.rollout)
    if entry.copied is not None and entry.serving is not None:
        return f"{entry.serving.version} copied from {entry.copied}"
    if entry.kind == "serving" and entry.serving is not None:
        changes = [f"{name}={json.dumps(value)}" for name, value in entry.serving.set.items()]
        changes += [f"{name} unset" for name in entry.serving.unset]
        return f"serving of {'all' if entry.serving.version == '*' else entry.serving.version}: {', '.join(changes)}"
    if entry.kind == "tombstone":
        return f"deleted {entry.from_version}"
    how = {"rollback": " (rollback)", "label": " (forced)" if entry.forced else ""}.get(entry.kind, "")
    if entry.approved_by:
        how += f" (agreed: {', '.join(entry.approved_by)})"
    return f"{entry.label} {entry.from_version or 'none'} → {entry.to_version}{how}"
