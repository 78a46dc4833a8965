"""Does what was decided about a rollout: the evidence is stored, then the state changes, by compare-and-swap.

Of many gateways with one verdict one applies it; to the others the registry says that the rollout is elsewhere by now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from marway.errors import MarwayError, OutcomeUnknown, StateConflict
from marway.records import utc_now
from marway.refs import new_ulid
from marway.registry import Change, Registry
from marway.registry.traffic.reports import RolloutReport
from marway.traffic import RolloutAction
from marway.wire.rollouts import GuardEvidence
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.traffic.rollouts.candidate import CandidateLoads
from marway_gateway.traffic.rollouts.deciding import Decision
from marway_gateway.traffic.rollouts.metrics import RolloutMetrics
from marway_gateway.traffic.rollouts.running import Running

__all__ = ["Acting"]

_BY: Final = "gateway"
_CHANGES: Final[Mapping[RolloutAction, Callable[..., Change]]] = {
    "step": Registry.advance_rollout,
    "promote": Registry.advance_rollout,
    "pause": Registry.pause_rollout,
    "roll_back": Registry.roll_back_rollout,
}
_log = logging.getLogger(__name__)


class Acting:
    """Applies decisions.

    Args:
        writer: Changes the registry.
        candidates: Have a candidate prove its golden answers again before more callers get it.
        metrics: Where to count.
    """

    def __init__(self, writer: RegistryWriter, candidates: CandidateLoads, metrics: RolloutMetrics) -> None:
        self._writer = writer
        self._candidates = candidates
        self._metrics = metrics

    async def apply(self, running: Running, decision: Decision, evidence: Mapping[str, GuardEvidence]) -> bool:
        """Do what was decided, and return whether that was done here; somebody else may have done it meanwhile."""
        if decision.action in ("step", "promote"):
            if not await self._candidates.prove(running):
                return False  # no pod could: it is tried again, until the step's time is over
            if running.failure is not None:
                decision = Decision("roll_back", *running.failure)
        try:
            await self._change(running, decision, evidence)
        except StateConflict as exc:
            _log.info("%s %s: nothing was left to do: %s", running.model, running.label, exc.message)
        except OutcomeUnknown as exc:
            _log.warning("%s %s: the next look sees what became of it: %s", running.model, running.label, exc.message)
        except MarwayError as exc:
            _log.warning("%s %s: not done yet: %s", running.model, running.label, exc.message)
        else:
            return True
        return False

    async def report(
        self,
        running: Running,
        op_id: str,
        action: RolloutAction,
        evidence: Mapping[str, GuardEvidence],
        *,
        guard: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Store how a rollout stands, for the change with this `op_id`, which is about to be made.

        Raises:
            RegistryUnavailable, OutcomeUnknown: It was not, or may not have been.
        """
        report = RolloutReport(
            op_id=op_id,
            at=utc_now(),
            action=action,
            step=running.traffic.step,
            percent=running.traffic.percent,
            step_s=running.step_s,
            guard=guard,
            reason=reason,
            evidence=evidence,
            processes=1 + len(running.others),
            course=tuple(running.course.points),
        )
        await self._writer.call(self._writer.registry.store_report, running.model, running.run, report)

    async def _change(self, running: Running, decision: Decision, evidence: Mapping[str, GuardEvidence]) -> None:
        traffic, registry, op_id = running.traffic, self._writer.registry, new_ulid()
        action: RolloutAction
        action, guard, reason = decision
        await self.report(running, op_id, action, evidence, guard=guard, reason=reason)
        assert traffic.rollout is not None
        change = partial(
            _CHANGES[action],
            registry,
            label=running.label,
            rollout=traffic.rollout,
            step=traffic.step,
            guard=guard,
            reason=reason,
            by=_BY,
            op_id=op_id,
        )
        _, made = await self._writer.change(change, running.model)
        if made.entry.rollout is not None and made.entry.rollout.action != action:
            # The label is protected, and may not move yet: the registry has a person look instead.
            action, reason = made.entry.rollout.action, made.entry.rollout.reason or reason
        self._metrics.changed(running, action)
        _log.log(
            logging.WARNING if action in ("roll_back", "pause") else logging.INFO,
            "rollout of %s %s to %s: %s: %s",
            *(running.model, traffic.candidate, running.label, action, reason),
        )
