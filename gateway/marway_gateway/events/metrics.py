"""What is told of webhooks: what came of attempts, and what waits, as the process that sends last saw it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["DeliveryMetrics", "Waiting"]

OUTCOMES: Final = ("delivered", "failed", "dead")


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that some webhooks do not have: when it happened, which they are, when it is due, when it was read."""

    at: datetime
    webhooks: tuple[str, ...]
    due: datetime
    read_at: float


class DeliveryMetrics(Collector):
    """The metrics of deliveries.

    Args:
        registry: Where they are told.
        now: The time, of this machine.

    Attributes:
        deliveries: Attempts, by webhook and what came of them.
        waiting: What waits for some webhook; None where this process does not send.
        webhooks: The names of those that there are.
    """

    def __init__(self, registry: CollectorRegistry, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self.waiting: Sequence[Waiting] | None = None
        self.webhooks: tuple[str, ...] = ()
        self.deliveries = Counter(
            "marway_gateway_events_deliveries_total",
            "Attempts to send an event to a webhook, by what came of them.",
            ("webhook", "outcome"),
            registry=registry,
        )
        registry.register(self)

    def know(self, webhooks: Sequence[str]) -> None:
        """Tell of webhooks from now on, so that none that is sent nothing is told from none that there is not."""
        self.webhooks = tuple(webhooks)
        for name in webhooks:
            for outcome in OUTCOMES:
                self.deliveries.labels(name, outcome)

    def collect(self) -> Iterator[Metric]:
        """Yield what waits, with values only where this process sends."""
        now = self._now()
        pending = GaugeMetricFamily(
            "marway_gateway_events_pending", "Events that a webhook does not have yet.", labels=("webhook",)
        )
        oldest = GaugeMetricFamily(
            "marway_gateway_events_oldest_pending_seconds",
            "How long ago the oldest of them happened; 0 where there is none.",
            labels=("webhook",),
        )
        for name in self.webhooks if self.waiting is not None else ():
            ages = [(now - each.at).total_seconds() for each in self.waiting or () if name in each.webhooks]
            pending.add_metric([name], float(len(ages)))
            oldest.add_metric([name], max(ages, default=0.0))
        yield pending
        yield oldest
