"""Counts how two versions answered the same inputs, and makes a replay's report of that."""

from __future__ import annotations

import heapq
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from marway.answers.pairs import Pair
from marway.errors import clip
from marway.proofs.replays import ReplayCounts, ReplayExample, ReplaySegment, ReplaySide, ReplaySlow
from marway_observations.replay.asking import Answered

__all__ = ["Tally", "breaches"]

_FIELDS_MAX: Final = 50
_SEGMENTS_MAX: Final = 20
_SEGMENTS_KEPT: Final = 1_000
_EXAMPLES_MAX: Final = 5
"""Of each kind."""
_SLOWEST: Final = 10
_LINE_MAX: Final = 300
_OTHERS: Final = "(others)"
KINDS: Final = ("failed", "nonfinite", "shape", "decision", "value")
"""The kinds of differences, the gravest first."""
_GUARDS: Final[Mapping[str, str]] = {
    "errors": "{} fails inputs that {} answers",
    "finite": "{} answers with NaN or an infinity where {} does not",
    "shape": "{} answers in other fields or types than {}",
    "disagreement": "{} decides otherwise than {}",
}


@dataclass(slots=True)
class Tally:
    """Takes in pairs of answers.

    Attributes:
        counts: By name of a field of `ReplayCounts`.
        skipped: Inputs of which nothing could be compared, by why.
    """

    counts: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    _fields: Counter[str] = field(default_factory=Counter)
    _segments: dict[str | None, Counter[str]] = field(default_factory=dict)
    _times: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    _slowest: list[tuple[float, str, float | None]] = field(default_factory=list)
    _examples: dict[str, list[ReplayExample]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add(
        self, prediction_id: str, base: Answered, candidate: Answered, pair: Pair, *, segment: str | None = None
    ) -> None:
        """Take in what both versions answered to one input, which is of a segment."""
        found = _found(pair)
        self.counts.update(found)
        if segment not in self._segments and len(self._segments) >= _SEGMENTS_KEPT:
            segment = _OTHERS
        self._segments.setdefault(segment, Counter()).update(found)
        self._fields.update(pair.fields)
        for times, each in zip(self._times, (base, candidate), strict=True):
            if each.model_s is not None:
                times.append(each.model_s)
        if candidate.model_s is not None:
            slow = (candidate.model_s, prediction_id, base.model_s)
            (heapq.heappush if len(self._slowest) < _SLOWEST else heapq.heappushpop)(self._slowest, slow)
        differs = _difference_of(pair, candidate)
        if differs is not None and len(self._examples[differs[0]]) < _EXAMPLES_MAX:
            example = ReplayExample(
                prediction_id=prediction_id, kind=differs[0], segment=segment, difference=clip(differs[1], _LINE_MAX)
            )
            self._examples[differs[0]].append(example)

    @property
    def differing(self) -> int:
        """How many inputs were not answered the same so far."""
        return self.counts["compared"] - self.counts["equal"]

    @property
    def fields(self) -> dict[str, int]:
        return dict(self._fields.most_common(_FIELDS_MAX))

    def segments(self) -> tuple[ReplaySegment, ...]:
        """Return the largest segments, the largest first."""
        largest = sorted(self._segments.items(), key=lambda each: -each[1]["compared"])[:_SEGMENTS_MAX]
        return tuple(ReplaySegment(value=value, counts=ReplayCounts(**counts)) for value, counts in largest)

    def sides(self, base: str, candidate: str) -> tuple[ReplaySide, ...]:
        """Return how long both versions took."""
        return tuple(
            ReplaySide(version=version, p50_s=_quantile(times, 50), p99_s=_quantile(times, 99))
            for version, times in zip((base, candidate), self._times, strict=True)
        )

    def slowest(self) -> tuple[ReplaySlow, ...]:
        """Return what the candidate took longest for, the slowest first."""
        return tuple(
            ReplaySlow(prediction_id=which, base_s=base_s, candidate_s=candidate_s)
            for candidate_s, which, base_s in sorted(self._slowest, reverse=True)
        )

    def examples(self) -> tuple[ReplayExample, ...]:
        """Return some inputs that were answered otherwise, the gravest first."""
        return tuple(each for kind in KINDS for each in self._examples[kind])


def breaches(counts: ReplayCounts, limits: Mapping[str, float], *, base: str, candidate: str) -> tuple[str, ...]:
    """Return in words which limits are breached, each a part of the inputs for which the candidate may do worse.

    What the candidate does better on counts against what it does worse on, save for shape and disagreement, where
    there is no better.
    """
    worse = {
        "errors": counts.failed - counts.base_failed,
        "finite": counts.nonfinite - counts.base_nonfinite,
        "shape": counts.shape,
        "disagreement": counts.compared - counts.agree,
    }
    return tuple(
        f"{guard}: {_GUARDS[guard].format(candidate, base)}, {number} of {counts.compared} "
        f"({number / counts.compared:.2%}, at most {limits[guard]:.2%})"
        for guard, number in worse.items()
        if guard in limits and number > limits[guard] * counts.compared
    )


def _found(pair: Pair) -> list[str]:
    """Return which of `ReplayCounts` a pair counts in."""
    alike = {
        "compared": True,
        "equal": pair.difference is None,
        "agree": not pair.decides_otherwise,
        "failed": pair.failed and not pair.base_failed,
        "base_failed": pair.base_failed and not pair.failed,
        "both_failed": pair.failed and pair.base_failed,
        "nonfinite": pair.nonfinite is not None and pair.base_nonfinite is None,
        "base_nonfinite": pair.base_nonfinite is not None and pair.nonfinite is None,
        "shape": pair.shape is not None,
    }
    return [name for name, counted in alike.items() if counted]


def _difference_of(pair: Pair, candidate: Answered) -> tuple[str, str] | None:
    """Return the gravest difference and that in one line; None where there is none."""
    if pair.failed and not pair.base_failed:
        message = candidate.answer.value if isinstance(candidate.answer.value, str) else ""
        return "failed", f"it fails with status {candidate.answer.status}" + (
            f": {' '.join(message.split())}" if message else ""
        )
    if pair.nonfinite is not None and pair.base_nonfinite is None:
        return "nonfinite", pair.nonfinite
    if pair.shape is not None:
        return "shape", pair.shape
    if pair.decides_otherwise:
        return "decision", pair.decisions or "it answers what the base fails"
    return None if pair.difference is None else ("value", pair.difference)


def _quantile(times: list[float], percent: int) -> float | None:
    if len(times) < 2:
        return times[0] if times else None
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]
