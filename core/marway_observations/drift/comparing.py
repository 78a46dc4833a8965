"""Holds rows against the summary of a reference, field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from marway.errors import clip
from marway.features.collecting import Rows
from marway.features.summaries import FeatureSummary, bucket_of
from marway_observations.drift.results import FieldDrift
from marway_observations.drift.statistics import homogeneity_p, ks_distance, ks_p, psi

__all__ = ["ALPHA", "compared"]

ALPHA: Final = 0.001
"""How often chance alone may make any field of a version drift, in one look; shared out evenly among its fields."""
_BINS: Final = 10
_EXPECTED_MIN: Final = 5
_KINDS: Final = ("number", "category", "words")
_CHANGES_MAX: Final = 2
_CHANGE_MIN: Final = 0.005


def compared(reference: Mapping[str, FeatureSummary], rows: Rows, *, psi_maximum: float) -> list[FieldDrift]:
    """Return each field of the reference of whose inputs or outputs there are rows, the farthest first."""
    known = {
        name: summary
        for name, summary in reference.items()
        if summary.kind in _KINDS and summary.rows and rows.rows(name) and (summary.edges or summary.kind != "number")
    }
    alpha = ALPHA / max(1, len(known))
    found = [_field(name, each, rows, psi_maximum=psi_maximum, alpha=alpha) for name, each in known.items()]
    return sorted(found, key=lambda field: (-field.drifted, -field.psi, field.field))


def _field(name: str, summary: FeatureSummary, rows: Rows, *, psi_maximum: float, alpha: float) -> FieldDrift:
    column, count = rows.column(name), rows.rows(name)
    ks = p_of_ks = None
    if summary.kind == "number":
        fine = [each / count for each in column.numbers_in(summary.edges)]
        before, after = _merged(summary, fine, min(count, summary.rows))
        ks, p_of_ks = _ks(summary, fine, count)
        missing = 1 - sum(fine)
        change = _of_numbers(summary, fine)
    else:
        words = summary.kind == "words"
        counts = column.words if words else column.names
        present = column.words_present if words else column.names_present
        shares = {each: number / count for each, number in counts.items()}
        before, after = _of_names(summary, shares, present / count, min(count, summary.rows))
        missing = 1 - present / count
        change = _changed_names(summary, shares)
    missing = min(1.0, max(0.0, missing))
    before, after = [*before, summary.missing], [*after, missing]
    index = psi(before, after, summary.rows, count)
    p_value = homogeneity_p(before, after, summary.rows, count)
    if missing - summary.missing > max(_CHANGE_MIN, 0.05 * index):
        change = f"missing {_percent(summary.missing)} → {_percent(missing)}" + (f"; {change}" if change else "")
    return FieldDrift(
        field=name,
        kind=summary.kind,
        psi=round(index, 4),
        p_value=_rounded(p_value),
        drifted=index >= psi_maximum and p_value < alpha,
        ks=None if ks is None else round(ks, 4),
        ks_p_value=None if p_of_ks is None else _rounded(p_of_ks),
        missing=round(missing, 4),
        reference_missing=round(summary.missing, 4),
        rows=count,
        reference_rows=summary.rows,
        change=change,
    )


def _merged(summary: FeatureSummary, fine: Sequence[float], rows: int) -> tuple[list[float], list[float]]:
    """Return the shares in about ten bins, each of enough rows of the reference; numbers that are few have their own.

    What lies behind the largest number of the reference is a bin of its own only for those.
    """
    present = 1 - summary.missing
    wanted = _EXPECTED_MIN / rows if summary.exact else max(present / _BINS, _EXPECTED_MIN / rows)
    before: list[float] = []
    after: list[float] = []
    open_before = open_after = 0.0
    for share, now in zip(summary.shares, fine, strict=False):
        open_before, open_after = open_before + share, open_after + now
        if open_before >= wanted - 1e-6:
            before, after = [*before, open_before], [*after, open_after]
            open_before = open_after = 0.0
    behind = fine[-1]
    if summary.exact or not before:
        before, after = [*before, open_before], [*after, open_after + behind]
    else:
        before[-1] += open_before
        after[-1] += open_after + behind
    return before, after


def _ks(summary: FeatureSummary, fine: Sequence[float], rows: int) -> tuple[float | None, float | None]:
    """Return the distance of the values that are there, and its p-value; None where there are none."""
    present, here = sum(summary.shares), sum(fine)
    if present <= 0 or here <= 0:
        return None, None
    distance = ks_distance([each / present for each in (*summary.shares, 0.0)], [each / here for each in fine])
    return distance, ks_p(distance, present * summary.rows, here * rows)


def _of_names(
    summary: FeatureSummary, shares: Mapping[str, float], present: float, rows: int
) -> tuple[list[float], list[float]]:
    before: list[float] = []
    after: list[float] = []
    for name, share in zip(summary.names, summary.shares, strict=False):
        if share * rows >= _EXPECTED_MIN:
            before.append(share)
            after.append(shares.get(name, 0.0))
    if summary.buckets:
        old, new = _of_buckets(summary, shares, rows)
        return [*before, *old], [*after, *new]
    rest_before, rest_after = 1 - summary.missing - sum(before), present - sum(after)
    return [*before, max(0.0, rest_before)], [*after, max(0.0, rest_after)]


def _of_buckets(summary: FeatureSummary, shares: Mapping[str, float], rows: int) -> tuple[list[float], list[float]]:
    """Return the shares of words that are too rare to count by themselves, in as many buckets as have rows enough."""
    known = zip(summary.names, summary.shares, strict=False)
    frequent = {name for name, share in known if share * rows >= _EXPECTED_MIN}
    size = len(summary.buckets)
    before, after = list(summary.buckets), [0.0] * size
    for name, share in zip(summary.names, summary.shares, strict=False):
        if name not in frequent:
            before[bucket_of(name, size)] += share
    for name, share in shares.items():
        if name not in frequent:
            after[bucket_of(name, size)] += share
    while size % 2 == 0 and sum(before) * rows < _EXPECTED_MIN * size:
        size //= 2
        before = [before[place] + before[place + size] for place in range(size)]
        after = [after[place] + after[place + size] for place in range(size)]
    return before, after


def _of_numbers(summary: FeatureSummary, fine: Sequence[float]) -> str:
    before, after = _median(summary.edges, (*summary.shares, 0.0)), _median(summary.edges, fine)
    if before is None or after is None or before == after:
        return ""
    return f"median {before} → {after}"


def _median(edges: Sequence[float], shares: Sequence[float]) -> str | None:
    half, done = sum(shares) / 2, 0.0
    if half <= 0:
        return None
    for edge, share in zip(edges, shares, strict=False):
        done += share
        if done >= half:
            return f"{edge:.4g}"
    return f"over {edges[-1]:.4g}"


def _changed_names(summary: FeatureSummary, shares: Mapping[str, float]) -> str:
    """Return the names whose shares changed most; new ones are among them."""
    known = dict(zip(summary.names, summary.shares, strict=False))
    moved = {name: shares.get(name, 0.0) - known.get(name, 0.0) for name in known.keys() | shares.keys() if name}
    most = sorted(moved, key=lambda name: (-abs(moved[name]), name))[:_CHANGES_MAX]
    return ", ".join(
        f"{clip(repr(name), 40)} {_percent(known.get(name, 0.0))} → {_percent(shares.get(name, 0.0))}"
        for name in most
        if abs(moved[name]) >= _CHANGE_MIN
    )


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _rounded(p_value: float) -> float:
    return float(f"{p_value:.3g}")
