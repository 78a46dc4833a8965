"""What is to be done about a rollout, by what is known of it."""

from typing import Any

import pytest

from marway.records import utc_now
from marway.traffic import Traffic
from marway.wire.rollouts import GuardEvidence
from marway_gateway.traffic.evidence.planning import least_s
from marway_gateway.traffic.rollouts.deciding import decide
from marway_gateway.traffic.rollouts.running import Failure


def rollout(**changes: Any) -> Traffic:
    known = {"rollout": "R", "base": "1", "candidate": "2", "percent": 1, "steps": (1, 5, 100), "step_time_s": 60}
    return Traffic.model_validate({**known, "began": utc_now(), "step_began": utc_now(), "by": "ann", **changes})


def found(**verdicts: str) -> dict[str, GuardEvidence]:
    return {
        name: GuardEvidence.model_validate({"verdict": verdict, "limit": 0.01, "estimate": 0.2, "counts": {"pairs": 9}})
        for name, verdict in verdicts.items()
    }


@pytest.mark.parametrize(
    ("traffic", "evidence", "step_s", "action"),
    [
        (rollout(), found(errors="unclear", finite="worse"), 0.1, "roll_back"),
        (rollout(), found(errors="worse"), 1e6, "roll_back"),
        (rollout(), found(errors="not_worse", finite="not_worse"), 9.9, None),
        (rollout(), found(errors="not_worse", finite="not_worse"), 10, "step"),
        (rollout(step=1, percent=5), found(errors="not_worse"), 10, "promote"),
        (rollout(), found(errors="not_worse", finite="unclear"), 59, None),
        (rollout(), found(errors="not_worse", finite="unclear"), 60, "pause"),
        (rollout(), {}, 60, "pause"),
        (rollout(policy="thompson"), found(errors="not_worse"), 600, None),
        (rollout(policy="thompson"), found(errors="not_worse", quality="worse"), 1, "roll_back"),
        (rollout(status="paused"), found(errors="worse"), 60, "roll_back"),
        (rollout(status="paused"), found(errors="not_worse"), 60, None),
        (rollout(rollout=None, candidate=None), found(errors="worse"), 60, None),
    ],
)
def test_decided(traffic: Traffic, evidence: dict[str, GuardEvidence], step_s: float, action: str | None) -> None:
    """Worse rolls back at once; all not worse goes on, after a while; the step's end without that is for a person."""
    decision = decide(traffic, evidence, step_s)
    assert (None if decision is None else decision.action) == action


def test_told() -> None:
    """The reason says which guard, how much worse and by what counts; a pause says what is missing."""
    worse = decide(rollout(), found(errors="not_worse", finite="worse"), 1)
    assert worse is not None
    assert (worse.guard, worse.reason) == ("finite", "finite is worse: +0.2, allowed 0.0025 (pairs 9)")
    unclear = decide(rollout(), found(errors="not_worse", finite="unclear"), 60)
    assert unclear is not None
    assert "finite (not enough answers yet)" in unclear.reason


def test_a_failure_ends_it_whatever_was_counted() -> None:
    """Golden answers that differ roll a candidate back that no guard finds worse."""
    decision = decide(rollout(), found(errors="not_worse"), 60, Failure("golden", "it says no"))
    assert decision == ("roll_back", "golden", "it says no")


def test_least_s() -> None:
    """A step lasts 10 s, or half of its time where that is less."""
    assert (least_s(rollout().step_time_s), least_s(4)) == (10, 2)
