"""What each guard of a rollout has seen so far."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from pydantic import Field

from marway.stored import Frozen

__all__ = ["GUARD_LIMITS", "EvidencePoint", "GuardEvidence", "GuardPoint", "Verdict"]

Verdict = Literal["worse", "not_worse", "unclear"]

GUARD_LIMITS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "errors": 0.01,
        "latency": 0.2,
        "finite": 0.005,
        "shape": 0.01,
        "disagreement": 0.1,
        "quality": 0.02,
        "memory": 0.2,
    }
)
"""How much worse a candidate may be where a rollout does not say: fractions of requests, of memory for `memory`.

`latency` is of requests that are slower than most of the base's; a tenth of it holds for the slowest ones.
"""


class GuardEvidence(Frozen):
    """What one guard has seen of a candidate beside its base, over all steps and all gateways.

    Attributes:
        verdict: `worse` by more than the limit, `not_worse` than that, or not known yet.
        counts: What was counted, by name.
        estimate: How much worse the candidate is so far: a fraction of requests; negative where it is better.
        bound: It is not worse than this, at the rollout's level; None where nothing is known.
        limit: How much worse it may be.
        evidence: How far the case against the candidate has come: 0 is none, 1 is the verdict `worse`. It is the
            logarithm of the capital that betting against the candidate has won, over that of what is needed.
        missing: Why there is no verdict yet, or why there will be none; None where there is a verdict.
    """

    verdict: Verdict
    counts: Mapping[str, float] = Field(default_factory=dict)
    estimate: float | None = None
    bound: float | None = None
    limit: float
    evidence: float = 0.0
    missing: str | None = None


class GuardPoint(NamedTuple):
    """How a guard stood at one time, as `GuardEvidence` says it."""

    estimate: float | None
    bound: float | None
    evidence: float


class EvidencePoint(Frozen):
    """How the guards of a rollout stood at one time.

    Attributes:
        at: When.
        step: The step that the rollout was at.
        percent: How many requests in a hundred went to the candidate.
        guards: How each guard stood.
    """

    at: datetime
    step: int
    percent: float
    guards: Mapping[str, GuardPoint]

    @classmethod
    def of(cls, at: datetime, step: int, percent: float, evidence: Mapping[str, GuardEvidence]) -> EvidencePoint:
        """Return the point that evidence makes."""
        guards = {name: GuardPoint(each.estimate, each.bound, each.evidence) for name, each in evidence.items()}
        return cls(at=at, step=step, percent=percent, guards=guards)
