"""What the registry adds to what was kept of a prediction: its version, who proved it, and what led to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from marway.errors import MarwayError, ModelNotFound, VersionNotFound
from marway.records import HistoryEntry, VersionRecord
from marway.registry import Registry
from marway_observations.why.finding import Found

__all__ = ["explained"]

_DECISIONS: Final = {
    "base": "the version itself: nobody was diverted",
    "candidate": "diverted to the candidate of a rollout",
    "shadow": "a copy of somebody's request, whose answer nobody got",
    "batch": "a row of a job, such as a replay",
}
_ASKED: Final = ("prediction_id", "request_id", "group_id", "at", "surface", "client", "status", "outcome", "error")
_ANSWER: Final = ("finite", "request_bytes", "response_bytes", "prompt_tokens", "completion_tokens", "rate", "bodies")
_TYPES: Final = ("input_type", "output_type")


def explained(found: Found, registry: Registry, steps: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Return all that is known of how an answer came about, as one JSON document. Blocks.

    Its parts are `prediction`, `version`, `proofs`, `label`, `traffic`, `pod`, `timings` (seconds), `graph` (which
    graph's node asked), `steps` (what the nodes of a graph asked), `feedback` and `others`; what nobody knows, or is
    not, is null.

    Args:
        found: What was kept of it.
        registry: Where its version is.
        steps: As `marway_observations.why.steps.steps_of` gives them.

    Raises:
        RegistryUnavailable: The registry cannot be read.
    """
    row = found.row
    version, proofs = _version(registry, row)
    own = {each["prediction_id"] for each in steps or ()}
    return {
        "prediction": {name: _json(row[name]) for name in (*_ASKED, *_ANSWER, *_TYPES)},
        "version": version,
        "proofs": proofs,
        "label": _label(registry, row),
        "traffic": {"role": row["role"], "decision": _DECISIONS.get(row["role"])},
        "pod": {name: row[name] for name in ("pod", "attempts", "cache", "batch_rows")},
        "timings": _timings(row),
        "graph": None if row["graph"] is None else {"prediction_id": row["graph"], "node": row["node"]},
        "steps": None if steps is None else [{name: _json(value) for name, value in each.items()} for each in steps],
        "feedback": {
            "counts": {name: _as_json(name, value) for name, value in found.counts.items()},
            "given": [{name: _as_json(name, value) for name, value in each.items()} for each in found.feedback],
        },
        "others": [each for each in found.others if each not in own],
    }


def _version(registry: Registry, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what the record of the version says, or why it is not there, and its proofs."""
    facts: dict[str, Any] = {"model": row["model"], "version": row["version"]}
    try:
        record = registry.record(row["model"], row["version"])
        grave = registry.state(record.name).tombstones.get(record.version)
    except (ModelNotFound, VersionNotFound) as exc:
        return {**facts, "missing": exc.message}, []
    facts |= _facts(record)
    if grave is not None:
        facts["deleted"] = grave.summary()
    proofs = [proof.model_dump(mode="json") for proof in registry.proofs(record.archive.sha256, skip_damaged=True)]
    return facts, proofs


def _facts(record: VersionRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "archive_sha256": record.archive.sha256,
        "golden_sha256": record.golden_sha256,
        "backend": record.backend,
        "created_at": record.created_at.isoformat(),
        "publisher": record.publisher,
        "training": record.training.model_dump(mode="json", exclude_defaults=True, exclude={"features"}),
    }


def _label(registry: Registry, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the label that led to the version, the change that had it point there, and where it points now."""
    label = row["label"]
    if label is None:
        return None
    try:
        entry = _set_by(registry, row["model"], label, row["version"], row["at"])
        now = registry.state(row["model"]).labels.get(label)
    except MarwayError as exc:  # the answer is no less explained where its history is damaged
        return {"label": label, "entry": None, "points_at": None, "unknown": exc.message}
    return {
        "label": label,
        "entry": None if entry is None else entry.model_dump(mode="json", by_alias=True),
        "points_at": now,
    }


def _set_by(registry: Registry, model: str, label: str, version: str, at: datetime) -> HistoryEntry | None:
    """Return the newest change before a moment that had the label point at the version.

    A newer one to another version may be there: a gateway follows a change within two seconds, not at once.
    """
    for entry in registry.history(model):
        if entry.label == label and entry.to_version == version and entry.at <= at:
            return entry
    return None


def _timings(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return where the time went, in seconds.

    `way_s` is what the pod took beside its queue and its model server: the way there and back, and the sidecar.
    `gateway_s` is all that was neither resolving nor the last pod: reading, converting and writing, attempts before.
    """
    duration_s, resolve_s, pod_s = row["duration_s"], row["resolve_s"], row["pod_s"]
    queue_s, model_s = row["queue_s"], row["model_s"]
    way_s = None
    if None not in (pod_s, queue_s, model_s):
        way_s = max(0.0, pod_s - queue_s - model_s)
    return {
        "duration_s": duration_s,
        "resolve_s": resolve_s,
        "queue_s": queue_s,
        "model_s": model_s,
        "way_s": way_s,
        "pod_s": pod_s,
        "gateway_s": max(0.0, duration_s - (resolve_s or 0.0) - (pod_s or 0.0)),
    }


def _as_json(name: str, value: Any) -> Any:
    """Return a part of feedback as JSON has it; a truth is JSON already."""
    if name != "truth" or value is None:
        return _json(value)
    try:
        return json.loads(value)
    except ValueError:
        return value


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
