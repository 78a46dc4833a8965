"""What a gateway process tells of rollouts in its metrics."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from marway.traffic import RolloutAction
from marway.wire.rollouts import GuardEvidence
from marway_gateway.traffic.rollouts.running import Running

__all__ = ["RolloutMetrics"]


class RolloutMetrics:
    """Series of the rollouts that this process watches; those of one that ended go with it.

    Args:
        registry: Where they are told.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._percent = Gauge(
            "marway_gateway_rollout_percent",
            "Requests of a label in a hundred that the candidate of its rollout answers.",
            ("model", "label"),
            registry=registry,
        )
        self._paused = Gauge(
            "marway_gateway_rollout_paused",
            "Whether a label's rollout waits for a person.",
            ("model", "label"),
            registry=registry,
        )
        self._evidence = Gauge(
            "marway_gateway_rollout_evidence",
            "How far the evidence is that a candidate is worse than its base: the logarithm of its capital over that "
            "of its threshold; from 1 on it is rolled back.",
            ("model", "label", "guard"),
            registry=registry,
        )
        self._changes = Counter(
            "marway_gateway_rollout_changes_total",
            "Changes of rollouts that this process made by itself.",
            ("model", "label", "action"),
            registry=registry,
        )
        self._guards: dict[tuple[str, str], set[str]] = {}

    def watched(self, running: Running, evidence: Mapping[str, GuardEvidence]) -> None:
        """Tell how a rollout stands."""
        labels = running.model, running.label
        self._percent.labels(*labels).set(running.traffic.percent)
        self._paused.labels(*labels).set(float(running.traffic.status == "paused"))
        for guard, found in evidence.items():
            self._evidence.labels(*labels, guard).set(found.evidence)
        self._guards.setdefault(labels, set()).update(evidence)

    def changed(self, running: Running, action: RolloutAction) -> None:
        """Count a change that was made here."""
        self._changes.labels(running.model, running.label, action).inc()

    def ended(self, running: Running) -> None:
        """Tell no more of a rollout."""
        labels = running.model, running.label
        guards = self._guards.pop(labels, None)
        if guards is None:
            return
        self._percent.remove(*labels)
        self._paused.remove(*labels)
        for guard in guards:
            self._evidence.remove(*labels, guard)
