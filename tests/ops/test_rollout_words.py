"""What `marway rollout` says of a plan and of a status, without a gateway."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from marway.records import utc_now
from marway.registry.traffic.status import RolloutMove, RolloutStatus
from marway.wire.rollouts import GuardEvidence, GuardPlan, RolloutPlan, StepPlan
from marway_ops.cli.rollouts.watching import _followed, _picture
from marway_ops.cli.rollouts.words import guard_rows, plan_lines, status_lines

NOW = utc_now()
ERRORS = GuardEvidence(
    verdict="unclear",
    counts={"pairs": 767, "worse": 0, "bytes_now": 2**21},
    estimate=0.0,
    bound=0.0889,
    limit=0.01,
    evidence=0.25,
    missing="it is worse by at most 8.9 %",
)


def status(state: str = "running", **facts: Any) -> RolloutStatus:
    moves = [
        RolloutMove(at=NOW, by="ann", action="start", step=0, percent=1, generation=3, op_id="a"),
        RolloutMove(at=NOW, by="gateway", action="step", step=1, percent=5, generation=4, op_id="b"),
    ]
    known: dict[str, Any] = {
        "model": "intent",
        "label": "PROD",
        "rollout": "01R",
        "state": state,
        "base": "1.0",
        "candidate": "1.1",
        "steps": (1, 5, 100),
        "step": 1,
        "percent": 5,
        "step_time_s": 60,
        "step_s": 15,
        "by": "ann",
        "began": NOW,
        "evidence": {"errors": ERRORS},
        "changes": moves,
    }
    return RolloutStatus.model_validate({**known, **facts})


def test_a_step_for_which_evidence_will_not_suffice() -> None:
    """A plan says where a person will have to look, what is not found, and what else there is to know."""
    plan = RolloutPlan(
        steps=(StepPlan(percent=1, at_least_s=10), StepPlan(percent=100, at_least_s=0, expected_s=0)),
        step_time_s=900,
        guards={"errors": GuardPlan(limit=0.01, smallest=0.2, found={"1": 7200.0}, note="slow")},
        rate_per_s=0.5,
        shadow_percent=0,
        alpha=0.01,
        notes=("Few requests come.",),
    )
    lines = list(plan_lines(plan, model="intent", candidate="1.1", base="1.0", label="PROD"))
    assert lines[1] == "  step 1  1 % of requests, 15 min, then a person has to look: evidence will not suffice by then"
    assert "  copies  none: only callers' requests count" in lines
    assert lines[-2].endswith("found: 100 % in 2.0 h; not found within the first step: less than 20 % (slow)")
    assert lines[-1] == "note: Few requests come."
    assert not any(line.startswith("  in all") for line in lines)


def test_what_was_counted_is_short() -> None:
    """A row says what was counted, not what never was, and what is missing for a verdict."""
    ((guard, verdict, worse_by, at_most, allowed, against, counted),) = guard_rows(status())
    assert (guard, verdict, worse_by, at_most, allowed, against) == (
        "errors",
        "unclear",
        "0 %",
        "8.89 %",
        "1 %",
        "25 %",
    )
    assert counted == "pairs 767, bytes now 2.0 MiB; it is worse by at most 8.9 %"


def test_a_reason_is_told_once() -> None:
    """Why a rollout ended is not said again beside the change that ended it."""
    last = RolloutMove(
        at=NOW, by="gateway", action="roll_back", step=1, percent=0, reason="too slow", generation=5, op_id="c"
    )
    ended = status("rolled_back", reason="too slow", changes=[last, last], ended=NOW)
    assert sum(line.count("too slow") for line in status_lines(ended)) == 1


def test_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal the steps, the time in this one and the guards are drawn; control characters are not."""
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(_picture(status(note="better\x1b[31m")))
    text = drawn.getvalue()
    assert "running: step 2 of 3, 5 % of requests" in text
    assert "15 of 60 s" in text
    assert "unclear" in text
    assert "\\x1b[31m" in text


def test_changes_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the output is no terminal each change is one line, told once, and the end with its reason."""
    moves = status().changes
    end = RolloutMove(at=NOW, by="gateway", action="promote", step=2, percent=100, generation=5, op_id="c")
    came = [status(), status(), status("promoted", changes=(*moves, end), reason="no guard found it worse")]
    _followed(iter(came), drawn=False, quiet=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ", 1)[-1] for line in lines[1:-1]] == [
        "started by ann",
        "went on at 5 % by gateway",
        "promoted by gateway",
    ]
    assert lines[-1] == "promoted: PROD is at 1.1: no guard found it worse"
