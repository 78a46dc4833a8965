"""What gateways say of a rollout: what it would do, before it starts, and what is known of the candidate so far."""

from marway.wire.rollouts.evidence import GUARD_LIMITS, EvidencePoint, GuardEvidence, GuardPoint, Verdict
from marway.wire.rollouts.plan import GuardPlan, RolloutPlan, StepPlan

__all__ = [
    "GUARD_LIMITS",
    "EvidencePoint",
    "GuardEvidence",
    "GuardPlan",
    "GuardPoint",
    "RolloutPlan",
    "StepPlan",
    "Verdict",
]
