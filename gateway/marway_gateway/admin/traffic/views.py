"""What the admin routes of rollouts take and answer, with examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from marway.registry.traffic.status import RolloutStatus
from marway.traffic import STEPS
from marway.wire.comparison import Comparison
from marway.wire.rollouts import RolloutPlan
from marway_gateway.admin.views import ChangeView, Note, PodLoadView
from marway_gateway.json_models import JsonModel, examples

__all__ = ["RolloutStart", "RolloutStartView", "RolloutTurn", "RolloutView"]


_MOVE: Final[JsonDict] = {
    "at": "2026-11-30T12:00:00Z",
    "by": "ana@laptop",
    "action": "start",
    "step": 0,
    "percent": 1.0,
    "guard": None,
    "reason": None,
    "generation": 8,
    "op_id": "01JD0Z6Y8Q6V5T4S3R2P1N0M9K",
}
_STATUS: Final[JsonDict] = {
    "model": "intent",
    "label": "PROD",
    "rollout": "01JD0Z6Y8QTR4P3N2M1K0J9H8G",
    "state": "running",
    "base": "1.0",
    "candidate": "1.1",
    "steps": [1, 5, 25, 100],
    "step": 0,
    "percent": 1.0,
    "step_time_s": 60.0,
    "step_s": 12.5,
    "sticky": "request",
    "shadow_percent": 100.0,
    "policy": "steps",
    "floor": 0.0,
    "cap": 100.0,
    "guards": {"errors": None, "latency": None},
    "alpha": 0.01,
    "by": "ana@laptop",
    "note": None,
    "began": "2026-11-30T12:00:00Z",
    "step_began": "2026-11-30T12:00:00Z",
    "ended": None,
    "guard": None,
    "reason": None,
    "evidence": {},
    "evidence_missing": None,
    "changes": [_MOVE],
}


class RolloutStart(JsonModel):
    """How a label goes from its version to another one."""

    model_config = ConfigDict(
        extra="forbid",
        **examples(
            {
                "version": "1.1",
                "steps": [1, 5, 25, 100],
                "step_time_s": 60,
                "guards": {"errors": None, "disagreement": 0.05},
                "note": "smaller, and as good on the test set",
            }
        ),
    )

    version: str = Field(max_length=128, description="The candidate; it must be published.", examples=["1.1"])
    steps: tuple[float, ...] = Field(
        default=STEPS,
        max_length=20,
        description="How many requests in a hundred go to the candidate, one after the other. The last is 100, at "
        "which the label moves; it is added where it is left out.",
    )
    step_time_s: float = Field(
        default=60.0, gt=0, description="How long a step may take, in seconds, before a person is to look at it."
    )
    sticky: str = Field(
        default="request",
        max_length=120,
        description="What a caller keeps its side by: `request`, `group` (X-Request-Group-Id) or `header:NAME`.",
    )
    shadow_percent: float = Field(
        default=100.0,
        ge=0,
        le=100,
        description="Of how many of the base's answers in a hundred the candidate is asked as well; nobody gets those.",
    )
    guards: Mapping[str, float | None] | None = Field(
        default=None,
        description="What is watched, and the limit of each; null is its default. Left out: all that can be judged.",
    )
    alpha: float = Field(
        default=0.01, gt=0, lt=1, description="Bound for the probability that a candidate no worse is rolled back."
    )
    policy: str = Field(
        default="steps", max_length=20, description="`steps`, or `thompson`: by the scores of feedback."
    )
    floor: float = Field(default=0.0, ge=0, le=100, description="A policy gives the candidate at least this percent.")
    cap: float = Field(default=100.0, ge=0, le=100, description="A policy gives the candidate at most this percent.")
    if_currently: str | None = Field(
        default=None, max_length=128, description="Only if the label points at this version now."
    )
    note: Note = None
    force: bool = Field(
        default=False, description="Without a pod that proves and compares it first; the history says so."
    )

    def settings(self) -> dict[str, Any]:
        """Return what `Registry.start_rollout` takes beside names and who asks."""
        return {name: getattr(self, name) for name in _SETTINGS}


_SETTINGS: Final = (
    *("steps", "step_time_s", "sticky", "shadow_percent", "guards", "alpha", "policy", "floor", "cap", "note"),
)


class RolloutTurn(JsonModel):
    """What a person does to a rollout, and which one is meant."""

    model_config = ConfigDict(extra="forbid", **examples({"note": "seen enough"}))

    rollout: str | None = Field(default=None, max_length=64, description="Only if this rollout runs; its id.")
    note: Note = None


class RolloutView(RolloutStatus):
    """How a rollout stands, or how it ended."""

    model_config = ConfigDict(**examples(_STATUS))


class RolloutStartView(JsonModel):
    """A rollout that is planned, or that was started: where its candidate was loaded, and how it compares."""

    model_config = examples(
        {"plan": None, "base": "1.0", "rollout": _STATUS, "change": None, "loads": [], "comparison": None}
    )

    plan: RolloutPlan | None = Field(description="What it would do and notice, where only that was asked for.")
    base: str = Field(description="The version that the label points at.")
    rollout: RolloutView | None = Field(description="Null where only the plan was asked for.")
    change: ChangeView | None
    loads: tuple[PodLoadView, ...] = Field(description="None for a plan, and for a start that was forced.")
    comparison: Comparison | None
