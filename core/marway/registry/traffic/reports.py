"""On what the changes of a rollout were decided, kept beside it: written before the change, and never again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from marway.objects import ObjectExists, ObjectMissing
from marway.registry import keys
from marway.registry.base import RegistryBase
from marway.stored import Frozen
from marway.traffic import RolloutAction
from marway.wire.rollouts import EvidencePoint, GuardEvidence

__all__ = ["RolloutReport", "RolloutReports"]


class RolloutReport(Frozen):
    """`rollouts/<model>/<rollout>/reports/<op_id>.json`: how a rollout stood when somebody decided to change it.

    That it is there does not say that the change was made: the model's history has the `op_id` then.

    Attributes:
        op_id: Of the change.
        at: When.
        action: What was decided.
        step: The step that the rollout was at.
        percent: How many requests in a hundred went to the candidate then.
        step_s: How long that step had been watched, in seconds.
        guard: Which guard decided; None where none alone did.
        reason: Why, in words.
        evidence: How each guard stood.
        processes: How many gateway processes had counted.
        course: How the guards stood before, as the process that wrote this saw it.
    """

    format: Literal[1] = 1
    op_id: str
    at: datetime
    action: RolloutAction
    step: int
    percent: float
    step_s: float
    guard: str | None = None
    reason: str | None = None
    evidence: Mapping[str, GuardEvidence]
    processes: int
    course: tuple[EvidencePoint, ...] = ()


class RolloutReports(RegistryBase):
    """Keeps reports."""

    def store_report(self, model: str, rollout: str, report: RolloutReport) -> None:
        """Keep how a rollout stands, for a change that is about to be made.

        Args:
            model: The model's name as it is written.
            rollout: Its ULID.
            report: With the `op_id` that the change will have.

        Raises:
            RegistryUnavailable, OutcomeUnknown: It was not, or may not have been.
        """
        self.check_there()
        with contextlib.suppress(ObjectExists):  # by this very call, whose answer was lost: nobody else has the op_id
            self._create(keys.report_key(model, rollout, report.op_id), report)

    def report(self, model: str, rollout: str, op_id: str) -> RolloutReport | None:
        """Return on what a change was decided, or None where nobody said, such as a person without a gateway.

        Raises:
            InvalidRecord: It is damaged.
        """
        try:
            return self._read(RolloutReport, keys.report_key(model, rollout, op_id))
        except ObjectMissing:
            return None
