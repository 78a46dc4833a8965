"""The background duties of a gateway: which there are, and what they need.

Another duty is another `Job` in the list below. Its function is a coroutine: what blocks, such as the store, it runs in
threads, and what computes, in a process of its own, as the event loop here is the one that serves predictions. It may
be cancelled at any await, when the lease is lost or the gateway ends.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from marway.registry import Registry
from marway_gateway.duties.duties import Duties, DutyMetrics, Job
from marway_gateway.duties.evaluation import Evaluator
from marway_gateway.duties.figures import Figures
from marway_gateway.duties.lease import Lease
from marway_gateway.events.delivery import Delivery
from marway_gateway.events.history import HistoryScan
from marway_gateway.settings import GatewaySettings
from marway_observations.evaluate.results import Kind

__all__ = ["delivery_of", "duties_of"]

_FIRST_S: Final = 2.0
"""A gateway that starts has requests to serve first."""
_HISTORY_S: Final = 5.0
"""Between two looks through all histories: so late is the event of a change that no gateway made."""

_DELIVERY_S: Final = 5.0
"""Between two looks for events to send, each of which lists what waits: usually nothing."""


def duties_of(settings: GatewaySettings, registry: Registry, history: HistoryScan, *, metrics: DutyMetrics) -> Duties:
    """Return the duties of a gateway, which are to be started.

    Args:
        settings: All of them.
        registry: In whose store the lease is.
        history: Raises the events of what others changed.
        metrics: Where to say what is done.
    """
    figures = Figures()
    metrics.registry.register(figures)
    jobs = [
        Job("history", _HISTORY_S, history.run),
        _evaluation("quality", settings.quality_interval_s, settings, registry, figures),
        _evaluation("drift", settings.drift_interval_s, settings, registry, figures),
    ]
    return Duties(
        Lease(registry.store),
        jobs,
        metrics=metrics,
        check=registry.check_there,
        first_s=_FIRST_S,
    )


def _evaluation(kind: Kind, interval_s: float, settings: GatewaySettings, registry: Registry, figures: Figures) -> Job:
    evaluator = Evaluator(
        kind,
        registry=registry.url,
        observations=settings.observations,
        interval_s=interval_s,
        found=partial(figures.found, kind),
    )

    def ended() -> None:
        figures.forget(kind)
        evaluator.close()

    # Not at once: a gateway that has just started has nothing to look at that was not looked at a moment ago, or never.
    return Job(kind, interval_s, evaluator.run, first_s=interval_s, ended=ended)


def delivery_of(delivery: Delivery, registry: Registry, *, metrics: DutyMetrics) -> Duties:
    """Return the duty of a gateway that was told of webhooks, which is to be started.

    It hangs on a lease of its own: where one gateway of many was told of none, it must not keep others from sending.
    """
    jobs = [Job("webhooks", _DELIVERY_S, delivery.run, ended=delivery.ended)]
    return Duties(
        Lease(registry.store, name="webhooks"), jobs, metrics=metrics, check=registry.check_there, first_s=_FIRST_S
    )
