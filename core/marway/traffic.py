"""How the requests of a label are divided: between its version and a candidate, and of which versions get copies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from marway.errors import InvalidInput, clip
from marway.refs import check_version
from marway.stored import Extensible, Frozen

__all__ = [
    "GUARDS",
    "STEPS",
    "RolloutAction",
    "RolloutChange",
    "RolloutRecord",
    "ShadowRule",
    "Traffic",
    "check_sticky",
    "run_of",
    "whole_steps",
]

Version = Annotated[str, AfterValidator(check_version)]
Percent = Annotated[float, Field(ge=0, le=100)]

GUARDS: Final = ("errors", "latency", "finite", "shape", "disagreement", "quality", "memory")
"""What a candidate is watched for."""
STEPS: Final = (1.0, 5.0, 25.0, 100.0)
"""Percents of a rollout that names none."""
_STEPS_MAX: Final = 20
_HEADER: Final = re.compile(r"header:[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")

RolloutAction = Literal["start", "step", "weights", "pause", "resume", "promote", "roll_back", "abort", "shadow"]


def check_sticky(text: str) -> str:
    """Return what callers keep their side by: `request`, `group` or `header:NAME`.

    Raises:
        ValueError: It is none of them.
    """
    if text in ("request", "group") or _HEADER.fullmatch(text):
        return text
    raise ValueError(f"{clip(text, 60)!r} is neither request, group nor header:NAME, such as header:X-User")


def whole_steps(steps: Sequence[float]) -> tuple[float, ...]:
    """Return a rollout's steps as they are carried out: the last is 100 %, at which the label moves.

    Raises:
        InvalidInput: They do not grow from more than 0 to at most 100, or there is none before 100.
    """
    given = tuple(float(step) for step in steps)
    if given and given[-1] < 100:
        given = (*given, 100.0)
    grow = all(before < after for before, after in zip((0.0, *given), given, strict=False))
    if not grow or len(given) < 2 or len(given) > _STEPS_MAX or given[-1] != 100:
        raise InvalidInput(
            f"steps {','.join(f'{step:g}' for step in steps) or 'of nothing'} are no way from the base to the "
            f"candidate: give 1 to {_STEPS_MAX - 1} growing percents below 100, such as 1,5,25,100"
        )
    return given


class ShadowRule(Frozen):
    """A version that is sent copies of a label's requests, whose answers nobody gets: so many in a hundred."""

    version: Version
    percent: Percent


class Traffic(Extensible):
    """How a label's requests are divided, in `ModelState.traffic`. It is there while a rollout or shadow copies run.

    Attributes:
        rollout: ULID of the rollout; None where there are shadow copies alone.
        base: The version that the label points at while the rollout runs.
        candidate: The version that is to take its place.
        percent: Of the requests, in how many of a hundred the candidate answers.
        sticky: What one caller keeps its side by.
        shadow: Who gets copies.
        steps: Percents, one after the other; the last is 100, at which the label moves.
        step: Which of them, from 0.
        step_time_s: How long a step may take, in seconds, before a person is to look at it.
        guards: What is watched, and the limit of each; None is its default.
        alpha: Bound for the probability that a candidate no worse than the base is rolled back, over all guards.
        status: Whether it goes on by itself.
        reason: Why it is paused.
        began: When the rollout was started.
        step_began: When this step was begun, or went on after a pause.
        policy: `steps`, or `thompson`: the percent follows the scores that feedback has.
        floor, cap: Between which percents a policy may move.
        by: Who started it.
        note: Why.
    """

    rollout: str | None = None
    base: Version | None = None
    candidate: Version | None = None
    percent: Percent = 0.0
    sticky: Annotated[str, AfterValidator(check_sticky)] = "request"
    shadow: tuple[ShadowRule, ...] = ()
    steps: tuple[Percent, ...] = ()
    step: Annotated[int, Field(ge=0)] = 0
    step_time_s: Annotated[float, Field(gt=0)] = 60.0
    guards: Mapping[str, float | None] = Field(default_factory=dict)
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.01
    status: Literal["running", "paused"] = "running"
    reason: str | None = None
    began: datetime
    step_began: datetime
    policy: Literal["steps", "thompson"] = "steps"
    floor: Percent = 0.0
    cap: Percent = 100.0
    by: str
    note: str | None = None


class RolloutChange(Frozen):
    """What one change did to a rollout, in its history entry.

    Such an entry is of the kind `label`, from the base to the base: the label stays, except where a rollout is
    promoted. So readers from before there were rollouts take it for a release that changes nothing.

    Attributes:
        id: The rollout; None for shadow copies alone.
        action: What was done.
        candidate: Which version it is about; for `shadow` which gets copies.
        step: Which step it is at from then on.
        percent: How many requests in a hundred go to the candidate from then on; for `shadow`, are copied to it.
        guard: Which guard decided; None where a person or the time limit did.
        reason: Why, in words.
    """

    id: str | None
    action: RolloutAction
    candidate: str | None = None
    step: int = 0
    percent: float = 0.0
    guard: str | None = None
    reason: str | None = None


class RolloutRecord(Frozen):
    """That a rollout was begun: `rollouts/<model>/<id>/rollout.json`, written before the state says that it runs.

    Whether it still runs, or ever did, says the model's state: this is for who looks for those that run, and tells
    whose evidence is beside it, and how it was to go when it is over.
    """

    format: Literal[1] = 1
    id: str
    model: str
    label: str
    base: Version
    candidate: Version
    traffic: Traffic
    at: datetime
    by: str


def run_of(label: str, traffic: Traffic) -> str:
    """Return the name under which counts of a rollout are kept: its ULID; copies alone have label and beginning.

    A label has one of them at a time, so both are unique within a model.
    """
    return traffic.rollout or f"shadow-{label}-{traffic.began:%Y%m%dT%H%M%S%f}"
