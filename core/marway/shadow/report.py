"""The report on a label's copies: what each gateway process keeps beside the models, and the sum of all.

::

    rollouts/<model>/<run>/shadow/<process>.json     one process's counts, written over every few seconds

A run is a rollout, with its id; copies beside none have one named after the label and the moment when they began.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marway.errors import InvalidRecord, RolloutNotFound
from marway.objects import ObjectMissing, ObjectStore
from marway.registry import Registry, keys
from marway.shadow.counts import ShadowCounts, most
from marway.stored import Frozen
from marway.traffic import run_of

__all__ = ["ProcessCounts", "ShadowReport", "VersionReport", "counts_key", "read_report"]

_SHADOW: Final = "/shadow/"
_SHOWN: Final = 20


class ProcessCounts(BaseModel):
    """What one gateway process counted of one run."""

    model_config = ConfigDict(extra="ignore")

    format: Literal[1] = 1
    model: str
    label: str
    run: str
    base: str | None = None
    began: datetime
    versions: dict[str, ShadowCounts] = Field(default_factory=dict)


class Named(Frozen):
    """Something that was seen, and how often."""

    name: str
    count: int


class Latency(Frozen):
    """Of calls of the model server, in milliseconds; None where there were none."""

    p50_ms: float | None
    p99_ms: float | None


class ReportedExample(Frozen):
    """A request that was answered differently; see `marway.shadow.counts.Example`."""

    at: datetime
    kind: str
    request_id: str | None
    base_prediction_id: str | None
    prediction_id: str | None
    text: str | None


class VersionReport(Frozen):
    """What the copies to one version told of it. Counts are of requests; see `marway.shadow.counts.ShadowCounts`.

    Attributes:
        percent: How many requests in a hundred are copied; None where none are any more.
        agreement: The part of those compared in which both decide alike; None of none.
        equal: The part that is the same altogether.
        dropped: Copies that were not made or not answered, by why.
        fields: In how many of those compared a field differs.
    """

    version: str
    percent: float | None
    answered: int
    failed: int
    base_failed: int
    compared: int
    not_comparable: int
    agreement: float | None
    equal: float | None
    shape_differs: int
    nonfinite: int
    base_nonfinite: int
    rows: int
    dropped: dict[str, int]
    fields: tuple[Named, ...]
    shapes: tuple[Named, ...]
    decisions: tuple[Named, ...]
    errors: tuple[Named, ...]
    latency: Latency
    base_latency: Latency
    examples: tuple[ReportedExample, ...]


class ShadowReport(Frozen):
    """The copies of a label's requests, of the run that is under way or was last.

    Attributes:
        run: The rollout's id, or the name of a run of copies alone.
        running: Whether requests are copied now.
        base: The version whose answers callers got.
        processes: How many gateway processes have counted.
    """

    model: str
    label: str
    run: str
    running: bool
    base: str | None
    began: datetime
    processes: int
    versions: tuple[VersionReport, ...]


def counts_key(model: str, run: str, process: str) -> str:
    """Return where one process keeps what it has counted."""
    return f"{keys.rollout_prefix(model, run)}shadow/{process}.json"


def read_report(registry: Registry, model: str, label: str) -> ShadowReport:
    """Return what all gateways counted of the copies that are made now, or else were last. Blocks.

    Args:
        registry: Whose.
        model: Its name or id.
        label: Whose requests are copied.

    Raises:
        ModelNotFound: There is no such model.
        RolloutNotFound: No requests of the label were ever copied.
        InvalidRecord: What a gateway wrote cannot be read.
        RegistryUnavailable: The store cannot be reached.
    """
    name = registry.find(model)
    state = registry.state(name)
    traffic = state.traffic.get(label)
    total: dict[str, ShadowCounts] = {}
    percents: dict[str, float] = {}
    if traffic is not None and traffic.shadow:
        running, run, began, base = True, run_of(label, traffic), traffic.began, state.labels.get(label)
        found = list(_counts(registry.store, keys.rollout_prefix(name, run)))
        percents = {rule.version: rule.percent for rule in traffic.shadow}
        total = {version: ShadowCounts() for version in percents}
    else:
        found = [each for each in _counts(registry.store, f"{keys.ROLLOUTS}{name}/") if each.label == label]
        if not found:
            raise RolloutNotFound(
                f"no requests of {name} {label} were copied: `marway shadow start {name} VERSION --label {label}` "
                "has copies sent",
                model=name,
            )
        last = max(found, key=lambda each: each.began)
        running, run, began, base = False, last.run, last.began, last.base
        found = [each for each in found if each.run == run]
    for each in found:
        for version, counts in each.versions.items():
            total.setdefault(version, ShadowCounts()).add(counts)
    return ShadowReport(
        model=name,
        label=label,
        run=run,
        running=running,
        base=base,
        began=began,
        processes=len(found),
        versions=tuple(_version(each, counts, percents.get(each)) for each, counts in sorted(total.items())),
    )


def _counts(store: ObjectStore, prefix: str) -> Iterator[ProcessCounts]:
    for key in store.keys(prefix):
        if _SHADOW in key:
            try:
                yield ProcessCounts.model_validate_json(store.get(key).data)
            except ObjectMissing:
                continue  # removed meanwhile
            except ValidationError as exc:
                raise InvalidRecord(f"{key} holds no counts of copies: remove it, and the others are shown") from exc


def _version(version: str, counts: ShadowCounts, percent: float | None) -> VersionReport:
    def part(count: int) -> float | None:
        return count / counts.compared if counts.compared else None

    def named(name: str) -> tuple[Named, ...]:
        return tuple(Named(name=each, count=count) for each, count in most(getattr(counts, name), _SHOWN))

    whole: dict[str, Any] = {name: getattr(counts, name) for name in VersionReport.model_fields if name in _AS_COUNTED}
    return VersionReport(
        version=version,
        percent=percent,
        agreement=part(counts.agreed),
        equal=part(counts.equal),
        dropped=dict(counts.dropped),
        fields=named("fields"),
        shapes=named("shapes"),
        decisions=named("decisions"),
        errors=named("errors"),
        latency=_latency(counts, "model_s"),
        base_latency=_latency(counts, "base_model_s"),
        examples=tuple(
            ReportedExample(
                at=datetime.fromtimestamp(each.at, UTC),
                kind=each.kind,
                request_id=each.request_id,
                base_prediction_id=each.base_prediction_id,
                prediction_id=each.prediction_id,
                text=each.text,
            )
            for each in reversed(counts.examples)
        ),
        **whole,
    )


def _latency(counts: ShadowCounts, name: str) -> Latency:
    durations = getattr(counts, name)
    p50, p99 = (durations.quantile(part) for part in (0.5, 0.99))
    return Latency(p50_ms=_ms(p50), p99_ms=_ms(p99))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


_AS_COUNTED: Final = frozenset(
    {
        *("answered", "failed", "base_failed", "compared", "not_comparable", "shape_differs", "nonfinite"),
        *("base_nonfinite", "rows"),
    }
)
