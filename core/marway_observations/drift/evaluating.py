"""Looks at a model's versions, and says which of their fields have drifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from marway.errors import NotFound, clip
from marway.features.sampling import SAMPLE_ROWS
from marway.features.summaries import FeatureSummary
from marway.features.walking import base_of, root_of
from marway.objects import ObjectStore
from marway.records import VersionRecord, utc_now
from marway.registry import Registry
from marway.serving import DriftRule, period
from marway_observations.drift.comparing import compared
from marway_observations.drift.references import NoReference, golden_reference, training_reference, window_reference
from marway_observations.drift.results import DriftResult
from marway_observations.drift.windows import window_of

__all__ = ["evaluate_drift", "evaluate_version"]

_NAMED_MAX: Final = 8


def evaluate_drift(
    store: ObjectStore,
    registry: Registry,
    model: str,
    *,
    at: datetime | None = None,
    sample_rows: int = SAMPLE_ROWS,
    copies: Path | None = None,
) -> list[DriftResult]:
    """Return how far each version that a label points at has moved, of those whose serving settings have a drift rule.

    Args:
        store: Where observations are (`marway_observations.store.open_observations`).
        registry: Where models are.
        model: The model, as it is written.
        at: Where the windows end; None means now.
        sample_rows: About how many predictions are looked at in each window.
        copies: Where copies of observations in S3 are kept for the next time; None keeps none.

    Raises:
        ModelNotFound: There is no such model.
        RegistryUnavailable: The registry or the observations cannot be read.
    """
    state = registry.state(registry.find(model))
    found = []
    for version in sorted(set(state.labels.values())):
        try:
            record = registry.record(model, version)
        except NotFound:
            continue  # deleted since the state was read
        rule = state.serving_for(record).drift
        if rule is not None:
            found.append(evaluate_version(store, registry, record, rule, at=at, sample_rows=sample_rows, copies=copies))
    return found


def evaluate_version(
    store: ObjectStore,
    registry: Registry,
    record: VersionRecord,
    rule: DriftRule,
    *,
    at: datetime | None = None,
    sample_rows: int = SAMPLE_ROWS,
    copies: Path | None = None,
) -> DriftResult:
    """Return how far a version has moved, by a rule; the arguments are those of `evaluate_drift`.

    Raises:
        RegistryUnavailable: The registry or the observations cannot be read.
    """
    until = at or utc_now()
    since = until - period(rule.window)
    window = window_of(
        store, record.name, record.version, since, until, fields=rule.fields, sample_rows=sample_rows, copies=copies
    )
    known: dict[str, Any] = {
        "model": record.name,
        "version": record.version,
        "against": rule.against,
        "since": since,
        "until": until,
        "predictions": window.predictions,
        "rows": window.read,
        "unreadable": window.unreadable,
        "left_out": tuple(f"{each.key}: {each.why}" for each in window.left_out),
        "psi_maximum": rule.psi_maximum,
    }
    if window.predictions and not window.with_bodies:
        why = (
            "no inputs or answers were kept: set `marway serving "
            f"{record.name} --set observe=bodies`, and look again when there are predictions"
        )
        return DriftResult(**known, status="no_bodies", reason=why)
    if window.with_bodies < rule.min_count:
        why = f"{window.with_bodies} predictions with bodies in {rule.window}, and min_count is {rule.min_count}"
        return DriftResult(**known, status="too_few", reason=why)
    try:
        if rule.against == "training":
            reference = training_reference(record)
        elif rule.against == "golden":
            reference = golden_reference(registry, record, rule.fields)
        else:
            ended = until - period(rule.against)
            begun = ended - period(rule.window)
            earlier = window_of(
                store,
                record.name,
                record.version,
                begun,
                ended,
                fields=rule.fields,
                sample_rows=sample_rows,
                copies=copies,
            )
            reference = window_reference(earlier, rule)
    except NoReference as exc:
        return DriftResult(**known, status="no_reference", reason=str(exc))
    if rule.fields:
        reference = {name: each for name, each in reference.items() if _wanted(name, rule.fields)}
    fields = compared(reference, window.rows, psi_maximum=rule.psi_maximum)
    here = window.rows.summarize()
    if not fields:
        return DriftResult(**known, status="no_reference", reason=_nothing_in_common(rule.against, reference, here))
    roots = {root_of(name) for name in reference}
    return DriftResult(
        **known,
        status="drifted" if any(field.drifted for field in fields) else "steady",
        fields=tuple(fields),
        new_fields=tuple(name for name in here if name not in reference and root_of(name) in roots),
        cut=window.rows.cut,
    )


def _wanted(feature: str, fields: Sequence[str]) -> bool:
    """Return whether a feature is of one of these fields, or of what lies in one."""
    base = base_of(feature)
    return any(feature == each or base == each or base.startswith((f"{each}.", f"{each}[")) for each in fields)


def _nothing_in_common(
    against: str, reference: Mapping[str, FeatureSummary], here: Mapping[str, FeatureSummary]
) -> str:
    before, now = (", ".join(list(names)[:_NAMED_MAX]) or "nothing" for names in (reference, here))
    return clip(f"no field can be compared: the reference ({against}) has {before}; predictions have {now}", 500)
