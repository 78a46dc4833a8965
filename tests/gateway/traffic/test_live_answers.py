"""What an answer to a caller of a divided label says of the two versions."""

from __future__ import annotations

from typing import Any

import pytest

from marway.traffic import GUARDS
from marway.wire.request import RequestIds
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.traffic.assignment import Assignment
from marway_gateway.traffic.rollouts.rollouts import Rollouts
from support.dividing import traffic_of

TRAFFIC = traffic_of(percent=25, guards=dict.fromkeys(GUARDS))


def counted(*answers: tuple[Assignment, dict[str, Any]]) -> dict[str, list[int]]:
    """Return what was counted by test: answers and events of the base, then of the candidate."""
    rollouts = Rollouts()
    for assignment, facts in answers:
        info = RequestInfo(method="POST", path="/predict/intent", ids=RequestIds("r"))
        info.model, info.label = "intent", "PROD"
        for name, value in facts.items():
            setattr(info, name, value)
        rollouts.answered(info, assignment)
    steps: Any = rollouts.tally("intent", "PROD", TRAFFIC).document()["live"]
    assert all((step["step"], step["share"]) == (0, 0.25) for step in steps)
    return {test: list(row.values()) for step in steps for test, row in step["tests"].items()}


@pytest.mark.parametrize("outcome", ["model_error", "timeout", "unavailable", "client_error", "cancelled"])
def test_whatever_is_no_answer_is_a_failure(outcome: str) -> None:
    """A candidate that refuses what the base takes, or that callers leave, is found as one whose code fails."""
    base, candidate = Assignment(TRAFFIC, candidate=False), Assignment(TRAFFIC, candidate=True)
    found = counted((base, {}), (base, {}), (candidate, {}), (candidate, {"outcome": outcome}))
    assert found["errors"] == [2, 0, 2, 1]


def test_what_the_candidate_began_and_lost_is_its_failure() -> None:
    """The base answered in its place, and well: that says nothing of the base."""
    lost = Assignment(TRAFFIC, candidate=True, failed=True)
    assert counted((lost, {"role": "base", "run": b"10,20,1,0"}))["errors"] == [0, 0, 1, 1]


def test_numbers_that_are_not_finite_are_told_by_the_pod() -> None:
    """They are counted for the side that answered."""
    base, candidate = Assignment(TRAFFIC, candidate=False), Assignment(TRAFFIC, candidate=True)
    found = counted((base, {"run": b"10,20,1,1"}), (candidate, {"run": b"10,20,1,0"}))
    assert found["finite"] == [1, 0, 1, 1]


def test_what_does_not_count() -> None:
    """Moments when the candidate could not be asked, whichever side was drawn; and that there was no room."""
    for candidate in (False, True):
        assert counted((Assignment(TRAFFIC, candidate, counted=False), {})) == {}
    no_room = {"outcome": "unavailable", "error": "overloaded"}
    assert counted((Assignment(TRAFFIC, candidate=False), no_room)) == {}
