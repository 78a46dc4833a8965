"""The guard `quality`: what it makes of the counts that are read from feedback."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from marway.wire.rollouts import GuardEvidence
from marway_gateway.traffic.evidence import Evidence, QualityCounts, judged
from marway_gateway.traffic.rollouts.quality import explained, quality_counts
from marway_observations.rollouts.results import Comparison, RolloutQuality, StepCounts

GUARDS = dict.fromkeys(("errors", "latency", "finite", "shape", "disagreement", "quality", "memory"))
AT = datetime(2026, 11, 30, tzinfo=UTC)


def found(*steps: StepCounts, **left_out: int) -> RolloutQuality:
    comparison = Comparison(metric="accuracy", kind="classification", steps=steps, left_out=left_out)
    return RolloutQuality(at=AT, guard=comparison)


def quality(counts: QualityCounts | None) -> GuardEvidence:
    return judged(Evidence(), GUARDS, 0.01, 0, quality=counts)["quality"]


def pairs(draw: random.Random, many: int, worse: float, better: float) -> Counter[int]:
    return Counter(draw.choices((8, -8, 0), (worse, better, 1 - worse - better), k=many))


@pytest.mark.parametrize("seed", range(4))
def test_three_in_a_hundred_more_wrong_answers_are_found_in_a_minute(seed: int) -> None:
    """At 100 pairs a second: found before 50 s of them, though versions differ about 7 % of the requests."""
    draw, seen = random.Random(seed), Counter[int]()
    for _ in range(10):
        seen += pairs(draw, 500, 0.05, 0.02)
        if quality(quality_counts(found(StepCounts(step=0, share=0.01, pairs=seen)))).verdict == "worse":
            return
    pytest.fail(f"not found by {seen}")


@pytest.mark.parametrize("seed", range(4))
def test_as_many_wrong_answers_are_not_worse(seed: int) -> None:
    """A candidate that errs about other requests, and as often, is never called worse, and passes."""
    draw, seen = random.Random(seed), Counter[int]()
    for _ in range(12):
        seen += pairs(draw, 500, 0.03, 0.03)
        verdict = quality(quality_counts(found(StepCounts(step=0, share=0.01, pairs=seen))))
        assert verdict.verdict != "worse"
    assert verdict.bound is not None
    assert verdict.bound <= 0.02


def test_callers_answers_count_by_their_chance() -> None:
    """Without copies what callers got decides: half and half, 12 % more wrong answers are found in 2,000."""
    losses = {"base": {0: 920, 8: 80}, "candidate": {0: 800, 8: 200}}
    step = StepCounts(step=0, share=0.5, **losses, base_answers=3000, candidate_answers=2950)
    verdict = quality(quality_counts(found(step)))
    assert (verdict.verdict, verdict.counts) == ("worse", {"pairs": 0, "base": 1000, "candidate": 1000})
    assert verdict.estimate == pytest.approx(0.12)
    for base, candidate in ((4000, 2000), (1000, 3000)):  # not ready for a while; the base's were sampled
        other = step.model_copy(update={"base_answers": base, "candidate_answers": candidate})
        assert quality(quality_counts(found(other))).verdict == "unclear"


def test_why_there_is_nothing_yet() -> None:
    """What came and could not be used is told in place of "nothing came"."""
    nothing = found(unkept=7)
    told = explained({"quality": quality(quality_counts(nothing))}, nothing)["quality"]
    assert (told.verdict, told.missing) == ("unclear", "7 answers do not count: unkept")
    assert "no feedback" in (quality(None).missing or "")
