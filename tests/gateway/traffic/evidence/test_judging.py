"""Counts of a rollout, and the verdicts that follow from them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marway.traffic import GUARDS
from marway.wire.rollouts import GUARD_LIMITS, GuardEvidence
from marway_gateway.traffic.evidence import MemorySample, QualityCounts, Side, Tally, judged, merged, plan_of
from marway_gateway.traffic.evidence.counts import LiveQuality

COUNTED = ("errors", "latency", "finite", "shape", "disagreement")
ALL: Mapping[str, float | None] = dict.fromkeys(COUNTED)
GOOD = Side(failed=False, finite=True, model_s=0.02)
Answer = Callable[[random.Random], Side]


def usual(draw: random.Random) -> Side:
    return Side(failed=False, finite=True, model_s=draw.gauss(0.02, 0.002))


def traffic(
    candidate: Answer,
    *,
    base: Answer = usual,
    calls: int = 3000,
    step: int = 0,
    share: float = 0.01,
    shadow: bool = True,
    shape: float = 0.0,
    disagrees: float = 0.01,
    tally: Tally | None = None,
    seed: int = 3,
) -> Tally:
    """Return the counts after so many calls, a share of which went to the candidate and the others were copied."""
    draw = random.Random(seed)
    tally = tally or Tally(COUNTED)
    for _ in range(calls):
        if draw.random() < share:
            tally.live(step, share, candidate(draw), candidate=True)
        else:
            answer = base(draw)
            tally.live(step, share, answer, candidate=False)
            if shadow:
                copy = candidate(draw)
                tally.pair(
                    step,
                    answer,
                    copy,
                    shape_differs=None if copy.failed else draw.random() < shape,
                    disagrees=None if copy.failed else draw.random() < disagrees,
                )
    return tally


def verdicts(tally: Tally, step: int = 0, sticky: str = "request") -> dict[str, str]:
    return {
        guard: each.verdict
        for guard, each in judged(merged([tally.document()]), ALL, 0.01, step, sticky=sticky).items()
    }


def test_every_guard_has_a_limit() -> None:
    """What a rollout can be told to watch is what has a limit."""
    assert set(GUARD_LIMITS) == set(GUARDS)


def test_a_good_candidate_passes_every_guard_within_1500_calls() -> None:
    """At 100 requests/s a candidate as good as its base has passed after 15 seconds at one percent."""
    assert set(verdicts(traffic(usual, calls=1500)).values()) == {"not_worse"}


@pytest.mark.parametrize(
    ("guard", "calls", "candidate", "more"),
    [
        ("errors", 5000, lambda draw: usual(draw)._replace(failed=draw.random() < 0.02), {}),
        ("errors", 200, lambda draw: Side(failed=True, finite=None, model_s=None), {}),
        ("finite", 3000, lambda draw: usual(draw)._replace(finite=draw.random() > 0.02), {}),
        ("latency", 600, lambda draw: usual(draw)._replace(model_s=draw.gauss(0.04, 0.004)), {}),
        ("latency", 3000, lambda draw: usual(draw)._replace(model_s=0.02 if draw.random() > 0.06 else 0.2), {}),
        ("shape", 200, usual, {"shape": 1.0}),
        ("disagreement", 400, usual, {"disagrees": 0.5}),
    ],
)
def test_what_is_worse_is_found(guard: str, calls: int, candidate: Answer, more: dict[str, float]) -> None:
    """The guard whose matter it is says so, and no other does."""
    found = verdicts(traffic(candidate, calls=calls, **more))  # type: ignore[arg-type]  # numbers only
    assert [name for name, verdict in found.items() if verdict == "worse"] == [guard]


def test_without_copies_callers_alone_find_what_is_very_wrong() -> None:
    """Errors of half of its answers are found from 1 percent of callers; shape and disagreement stay unclear."""
    found = verdicts(traffic(lambda draw: usual(draw)._replace(failed=draw.random() < 0.5), calls=4000, shadow=False))
    assert found["errors"] == "worse"
    assert found["shape"] == found["disagreement"] == "unclear"


def test_callers_who_keep_their_side_are_not_judged() -> None:
    """One caller who always fails, and whom chance gave to the candidate, rolls nothing back."""
    tally = traffic(usual, calls=2000)
    for _ in range(500):
        tally.live(0, 0.01, Side(failed=True, finite=None, model_s=None), candidate=True)
    assert verdicts(tally)["errors"] == "worse"
    assert verdicts(tally, sticky="group")["errors"] == "not_worse"
    alone = judged(merged([traffic(usual, calls=500, shadow=False).document()]), ALL, 0.01, 0, sticky="group")
    assert (
        alone["errors"].missing
        == "callers keep their side, so that only copies are judged, and there are none: see --shadow"
    )


def test_nothing_passes_in_a_step_whose_callers_the_candidate_has_not_answered() -> None:
    """Evidence of the first step is enough for the next one only when the candidate has answered there too."""
    tally = traffic(usual, calls=2000)
    assert set(verdicts(tally, step=1).values()) == {"unclear"}
    tally.live(1, 0.05, GOOD, candidate=True)
    assert set(verdicts(tally, step=1).values()) == {"not_worse"}


def test_a_candidate_that_becomes_bad_late_does_not_live_on_its_good_name() -> None:
    """After 20,000 good answers in the first step, one failure in ten is found in the second within 300 calls."""
    tally = traffic(usual, calls=20_000)
    traffic(lambda draw: usual(draw)._replace(failed=draw.random() < 0.1), calls=300, step=1, share=0.05, tally=tally)
    assert verdicts(tally, step=1)["errors"] == "worse"


def test_each_step_is_weighed_by_its_own_share() -> None:
    """Callers at 1, 5 and 25 percent add up to one case against a candidate that fails one request in five."""
    tally = Tally(["errors"])
    draw = random.Random(2)
    for step, share in enumerate((0.01, 0.05, 0.25)):
        for _ in range(400):
            candidate = draw.random() < share
            failed = draw.random() < (0.2 if candidate else 0.0)
            tally.live(step, share, Side(failed=failed, finite=None, model_s=None), candidate=candidate)
    found = judged(merged([tally.document()]), {"errors": None}, 0.01, 2)["errors"]
    assert found.verdict == "worse"
    assert found.estimate == pytest.approx(0.2, abs=0.1)
    assert found.counts["candidate_events"] > 5


def test_words_say_what_is_missing() -> None:
    """A guard without a verdict says why, before there is anything, and while there is too little."""
    empty = judged(merged([]), dict.fromkeys(GUARDS), 0.01, 0)
    assert {guard: each.verdict for guard, each in empty.items()} == dict.fromkeys(GUARDS, "unclear")
    assert all(each.missing for each in empty.values())
    some = judged(merged([traffic(usual, calls=300).document()]), ALL, 0.01, 0)["errors"]
    assert some.missing is not None
    assert some.missing.startswith("it is worse by at most ")
    assert some.missing.endswith("which has to come down to 1.00%")


def test_an_unknown_guard_is_refused() -> None:
    """A guard that is mistyped is named, and those there are."""
    with pytest.raises(ValueError, match="no such guard: error"):
        judged(merged([]), {"error": None}, 0.01, 0)
    with pytest.raises(ValueError, match="no such guard: error"):
        plan_of({"error": None}, 0.01, [1, 100], 10, 100)


def test_documents_of_later_gateways_are_refused() -> None:
    """What a newer gateway counts otherwise is not added up as if it were the same."""
    with pytest.raises(ValueError, match="format 2"):
        merged([{"format": 2}])


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_gateways_are_added_in_any_order(order: list[int]) -> None:
    """All gateways judge alike, whichever document they read first; and one that has all the calls judges like them."""
    documents = [traffic(usual, calls=100, share=0.1, seed=seed).document() for seed in range(4)]
    assert merged([documents[at] for at in order]) == merged(documents)
    assert merged([merged(documents[:2]), *documents[2:]]) == merged(documents)


def test_slow_is_what_is_slower_than_the_first_answers_of_the_base() -> None:
    """Nothing is counted as slow before 200 answers of the base; copies alone do as well."""
    tally = Tally(["latency"])
    for _ in range(199):
        tally.pair(0, GOOD, GOOD._replace(model_s=9.0), shape_differs=None, disagrees=None)
    assert merged([tally.document()]).pairs[0].tests == {}
    for _ in range(10):
        tally.pair(0, GOOD, GOOD._replace(model_s=0.0264), shape_differs=None, disagrees=None)
        tally.pair(0, GOOD, GOOD._replace(model_s=0.0266), shape_differs=None, disagrees=None)
    counted = merged([tally.document()]).pairs[0].tests
    assert (counted["p50"].pairs, counted["p50"].worse) == (20, 10)
    assert (counted["p99"].pairs, counted["p99"].worse) == (20, 0)


def quality(lost: int, gained: int, same: int) -> GuardEvidence:
    counts = QualityCounts(pairs={"1": lost, "-1": gained, "0": same})
    tally = traffic(usual, calls=50, share=0.5)
    return judged(merged([tally.document()]), {"quality": None}, 0.01, 0, quality=counts)["quality"]


def test_three_in_a_hundred_more_wrong_are_found_by_feedback() -> None:
    """3 % of accuracy is found within 6,000 pairs of which the truth is known; as good a version is not accused."""
    assert quality(lost=225, gained=45, same=5730).verdict == "worse"
    assert quality(lost=60, gained=60, same=5880).verdict == "not_worse"
    assert quality(lost=2, gained=1, same=60).verdict == "unclear"


def test_feedback_on_callers_answers_counts_by_share() -> None:
    """Without copies, what feedback says of both sides is weighed by how callers were divided."""
    live = (LiveQuality(step=0, share=0.5, base={"0": 900, "1": 100}, candidate={"0": 700, "1": 300}),)
    tally = traffic(usual, calls=50, share=0.5)
    found = judged(merged([tally.document()]), {"quality": 0.02}, 0.01, 0, quality=QualityCounts(live=live))["quality"]
    assert found.verdict == "worse"
    assert found.estimate == pytest.approx(0.2)
    assert found.counts == {"pairs": 0, "base": 1000, "candidate": 1000}


def test_values_that_are_no_wrongness_are_refused() -> None:
    """How wrong an answer was lies within -1 and 1."""
    with pytest.raises(ValueError, match="is not a value within -1 and 1"):
        QualityCounts(pairs={"2": 1})


MIB = 1 << 20


@pytest.mark.parametrize(
    ("grows", "base", "verdict"),
    [
        (lambda second: 300 * MIB, lambda second: 300 * MIB, "not_worse"),
        (lambda second: (300 + 3 * second) * MIB, lambda second: 300 * MIB, "worse"),
        (lambda second: (300 + 3 * second) * MIB, lambda second: (300 + 3 * second) * MIB, "not_worse"),
        (lambda second: (300 + (100 if second > 30 else 0)) * MIB, None, "unclear"),
        (lambda second: (300 + 30 * (second // 10)) * MIB, lambda second: 300 * MIB, "worse"),
        (lambda second: (300 + (100 if 15 < second < 35 else 0)) * MIB, None, "not_worse"),
        (lambda second: (20 + second / 10) * MIB, None, "not_worse"),
    ],
    ids=["level", "leak", "both grow", "one step", "leak, measured each ten seconds", "given back", "within noise"],
)
def test_a_leak_is_a_slope(grows: Callable[[int], float], base: Callable[[int], float] | None, verdict: str) -> None:
    """Memory that keeps growing past the base's is a leak; one step, and the noise of allocators, are none."""
    samples = [MemorySample(second, int(grows(second)), base and int(base(second))) for second in range(40)]
    tally = traffic(usual, calls=50, share=0.5)
    found = judged(merged([tally.document()]), {"memory": None}, 0.01, 0, memory=samples)["memory"]
    assert found.verdict == verdict


def test_a_few_samples_of_memory_say_nothing() -> None:
    """Just after its start a worker's memory always grows."""
    found = judged(merged([]), {"memory": None}, 0.01, 0, memory=[MemorySample(1.0, 5 * MIB)])["memory"]
    assert found.verdict == "unclear"
    assert found.missing == "8 samples after the first 6 seconds, of 0 so far"


def test_a_plan_says_what_the_verdicts_then_do() -> None:
    """A good candidate passes about when the plan says, and a change that it says is found is found about then."""
    plan = plan_of(ALL, 0.01, [1, 25, 100], rate_per_s=100, shadow_percent=100)
    passes = max(each.passes_after_s or 1e9 for each in plan.guards.values())
    assert set(verdicts(traffic(usual, calls=int(passes * 100 * 1.5))).values()) == {"not_worse"}
    assert verdicts(traffic(usual, calls=int(passes * 100 * 0.4)))["finite"] == "unclear"
    found = plan.guards["errors"].found["0.05"]
    assert 1 < found < 10
    failing = traffic(lambda draw: usual(draw)._replace(failed=draw.random() < 0.05), calls=int(found * 100 * 2))
    assert verdicts(failing)["errors"] == "worse"
    assert [step.at_least_s for step in plan.steps] == [10.0, 10.0, 0.0]
    assert plan.expected_s == pytest.approx(max(10.0, passes) + 10.0)
    assert plan.notes == ()


def test_a_plan_says_when_there_is_too_little_traffic() -> None:
    """At one request a second nothing can be told within a minute, and what to change is said."""
    plan = plan_of(dict.fromkeys(GUARDS), 0.01, [1, 100], rate_per_s=1, shadow_percent=0, sticky="group")
    assert plan.expected_s is None
    assert plan.steps[0].expected_s is None
    text = " ".join(plan.notes)
    assert "the rollout will pause for a person" in text
    assert "Without copies" in text
    assert "Callers keep their side" in text
    idle = plan_of(ALL, 0.01, [1, 100], rate_per_s=0, shadow_percent=100)
    assert idle.notes[0].startswith("No request of this label has come lately")
    with pytest.raises(ValueError, match="at least one step"):
        plan_of(ALL, 0.01, [], 1, 1)
