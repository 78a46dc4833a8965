"""What is counted of a candidate and its base, by step: documents of several processes that add up to one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from marway.stored import Frozen
from marway_gateway.traffic.evidence.capital import Batch

__all__ = [
    "FORMAT",
    "TESTS",
    "Evidence",
    "LiveCounts",
    "LiveQuality",
    "LiveStep",
    "Outcomes",
    "PairCounts",
    "PairStep",
    "QualityCounts",
    "live_batch",
    "merged",
]

FORMAT: Final = 1

TESTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "errors": ("errors",),
        "latency": ("p50", "p99"),
        "finite": ("finite",),
        "shape": ("shape",),
        "disagreement": ("disagreement",),
    }
)
"""Which differences each guard that counts answers looks at; `quality` and `memory` are told by others."""

Outcomes = Mapping[str, int]
"""How often each value came; the value as text, for it is the key of a JSON object."""
Count = Annotated[int, Field(ge=0)]


def _values(outcomes: Outcomes) -> Outcomes:
    for value, count in outcomes.items():
        if not -1 <= float(value) <= 1 or count < 0:
            raise ValueError(f"{value!r}: {count} is not a value within -1 and 1 with a count")
    return outcomes


_LIVE_SCALE: Final = 8.0
"""The largest bet on live outcomes, in candidate's shares: above it, two events of the candidate alone would decide."""


def live_batch(
    share: float, calls: float, candidate: Iterable[tuple[float, float]], base: Iterable[tuple[float, float]]
) -> Batch:
    """Return callers' answers as outcomes whose mean is by how much more of something the candidate has.

    A caller gets the candidate with the probability `share`, whatever they ask and whenever: so v/share for a value v
    of the candidate and -v/(1 - share) for one of the base has that mean, also while what callers ask changes over the
    day (Horvitz and Thompson, 1952: A generalization of sampling without replacement from a finite universe).

    Args:
        share: Between 0 and 1.
        calls: All answers.
        candidate: (value from 0 to 1, in how many of its answers); those that are not told have 0.
        base: The same of the base.
    """
    outcomes = [(value / share, count) for value, count in candidate if value]
    outcomes += [(-value / (1 - share), count) for value, count in base if value]
    nothing = calls - sum(count for _, count in outcomes)
    return Batch(-1 / (1 - share), 1 / share, (*outcomes, (0.0, nothing)), scale=_LIVE_SCALE * share)


def _numbers(outcomes: Outcomes) -> list[tuple[float, float]]:
    return [(float(value), count) for value, count in outcomes.items()]


class LiveCounts(Frozen):
    """Answers to callers who were divided by chance: how many there were, and how many of them had the event."""

    base: Count = 0
    base_events: Count = 0
    candidate: Count = 0
    candidate_events: Count = 0

    def __add__(self, other: LiveCounts) -> LiveCounts:
        """Return both."""
        return LiveCounts(
            base=self.base + other.base,
            base_events=self.base_events + other.base_events,
            candidate=self.candidate + other.candidate,
            candidate_events=self.candidate_events + other.candidate_events,
        )

    def batch(self, share: float) -> Batch:
        """Return them as outcomes whose mean is by how much the candidate has the event more often."""
        calls = self.base + self.candidate
        return live_batch(share, calls, [(1.0, self.candidate_events)], [(1.0, self.base_events)])


class PairCounts(Frozen):
    """Requests that both answered: how many, and in how many the candidate was worse, or better, than the base."""

    pairs: Count = 0
    worse: Count = 0
    better: Count = 0

    def __add__(self, other: PairCounts) -> PairCounts:
        """Return both."""
        return PairCounts(
            pairs=self.pairs + other.pairs, worse=self.worse + other.worse, better=self.better + other.better
        )

    def batch(self, *, signed: bool = True) -> Batch:
        """Return them as outcomes 1, -1 and 0; where the candidate cannot be better, none is below 0."""
        same = self.pairs - self.worse - self.better
        return Batch(-1.0 if signed else 0.0, 1.0, ((1.0, self.worse), (-1.0, self.better), (0.0, same)))


class LiveStep(Frozen):
    """Callers' answers while the candidate had one share of the callers.

    Attributes:
        step: Which step.
        share: The candidate's, from 0 to 1. A policy may change it within a step: then there are several of a step.
        tests: What was counted, by test.
    """

    step: Count
    share: Annotated[float, Field(ge=0, le=1)]
    tests: Mapping[str, LiveCounts] = Field(default_factory=dict)


class PairStep(Frozen):
    """Requests of one step that both answered.

    Attributes:
        step: Which step.
        tests: What was counted, by test.
    """

    step: Count
    tests: Mapping[str, PairCounts] = Field(default_factory=dict)


class Evidence(Frozen):
    """What one process has counted of a rollout, or all of them together; the counts only grow.

    Attributes:
        format: Of this document.
        live: Ordered by step and share.
        pairs: Ordered by step.
    """

    format: int = FORMAT
    live: tuple[LiveStep, ...] = ()
    pairs: tuple[PairStep, ...] = ()


class LiveQuality(Frozen):
    """Answers to callers of which the truth is known, in one step.

    Attributes:
        step: Which step.
        share: The candidate's share of the callers.
        base, candidate: How wrong the answers were, from 0 to 1 (text, such as "0" and "1"), and how many were so
            wrong.
    """

    step: Count
    share: Annotated[float, Field(gt=0, lt=1)]
    base: Annotated[Outcomes, AfterValidator(_values)] = Field(default_factory=dict)
    candidate: Annotated[Outcomes, AfterValidator(_values)] = Field(default_factory=dict)

    def batch(self) -> Batch:
        """Return them as outcomes whose mean is by how much more the candidate is wrong."""
        calls = sum(self.base.values()) + sum(self.candidate.values())
        return live_batch(self.share, calls, _numbers(self.candidate), _numbers(self.base))


class QualityCounts(Frozen):
    """What feedback says of both versions.

    Attributes:
        pairs: Of requests that both answered: how much more wrong the candidate was than the base, from -1 to 1: "1"
            where the base was right and the candidate wrong, "0" where they were equally right.
        live: Of callers' answers, one for each step (and share) in their order.
    """

    pairs: Annotated[Outcomes, AfterValidator(_values)] = Field(default_factory=dict)
    live: tuple[LiveQuality, ...] = ()


def merged(documents: Iterable[Mapping[str, object] | Evidence]) -> Evidence:
    """Return the counts of all processes together.

    Args:
        documents: `Tally.document()` of each, the newest of each.

    Raises:
        ValueError: One is not such a document, or of a later format.
    """
    live: dict[tuple[int, float], dict[str, LiveCounts]] = {}
    pairs: dict[int, dict[str, PairCounts]] = {}
    for document in documents:
        one = document if isinstance(document, Evidence) else Evidence.model_validate(document)
        if one.format > FORMAT:
            raise ValueError(f"evidence of format {one.format}, but this gateway knows {FORMAT}: bring it up to date")
        for step in one.live:
            of_live = live.setdefault((step.step, step.share), {})
            for test, counts in step.tests.items():
                of_live[test] = of_live.get(test, _NO_LIVE) + counts
        for copied in one.pairs:
            of_pairs = pairs.setdefault(copied.step, {})
            for test, both in copied.tests.items():
                of_pairs[test] = of_pairs.get(test, _NO_PAIRS) + both
    return Evidence(
        live=tuple(LiveStep(step=step, share=share, tests=live[step, share]) for step, share in sorted(live)),
        pairs=tuple(PairStep(step=step, tests=pairs[step]) for step in sorted(pairs)),
    )


_NO_LIVE: Final = LiveCounts()
_NO_PAIRS: Final = PairCounts()
