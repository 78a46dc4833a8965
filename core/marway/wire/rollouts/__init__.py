"""What gateways say of a rollout: what it would do, before it starts, and what is known of the candidate so far."""

from marway.wire.rollouts.evidence import GUARD_LIMITS, GuardEvidence, Verdict
from marway.wire.rollouts.plan import GuardPlan, RolloutPlan, StepPlan

__all__ = ["GUARD_LIMITS", "GuardEvidence", "GuardPlan", "RolloutPlan", "StepPlan", "Verdict"]
