"""The background duties of a gateway: which there are, and what they need.

Another duty is another `Job` in the list below. Its function is a coroutine: what blocks, such as the store, it runs in
threads, and what computes, in a process of its own, as the event loop here is the one that serves predictions. It may
be cancelled at any await, when the lease is lost or the gateway ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from marway.records import utc_now
from marway.registry import Registry
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.duties.duties import Duties, DutyMetrics, Job
from marway_gateway.duties.evaluation import Evaluator
from marway_gateway.duties.figures import Figures
from marway_gateway.duties.lease import Lease
from marway_gateway.duties.rollout_quality import INTERVAL_S, RolloutQualityDuty
from marway_gateway.events.delivery import Delivery
from marway_gateway.events.history import HistoryScan
from marway_gateway.events.metrics import DeliveryMetrics
from marway_gateway.events.sending import Sender
from marway_gateway.events.webhooks import WebhooksFile
from marway_gateway.settings import GatewaySettings
from marway_gateway.traffic.rollouts.finding import Finding
from marway_observations.evaluate.results import Kind

__all__ = ["doing_duties"]

_FIRST_S: Final = 2.0
"""A gateway that starts has requests to serve first."""
_HISTORY_S: Final = 5.0
"""Between two looks through all histories: so late is the event of a change that no gateway made."""
_ROLLOUTS_S: Final = 10.0
"""Between two looks for rollouts that no gateway has requests of: so much longer one of those takes."""
_DELIVERY_S: Final = 5.0
"""Between two looks for events to send, each of which lists what waits: usually nothing."""


@asynccontextmanager
async def doing_duties(
    settings: GatewaySettings,
    writer: RegistryWriter,
    history: HistoryScan,
    webhooks: WebhooksFile | None,
    rollouts: Finding,
    *,
    metrics: CollectorRegistry,
) -> AsyncIterator[None]:
    """Take part in the background duties of all gateways for as long as the context lasts.

    Args:
        settings: All of them.
        writer: Changes the registry in whose store the leases are.
        history: Raises the events of what others changed.
        webhooks: Where events are sent to; None where this gateway was told of none.
        rollouts: Finds those that no gateway has requests of.
        metrics: Where to say what is done.
    """
    registry = writer.registry
    duty_metrics = DutyMetrics(metrics)
    figures = Figures()
    metrics.register(figures)
    jobs = [
        Job("history", _HISTORY_S, history.run),
        Job("rollouts", _ROLLOUTS_S, rollouts.run),
        _evaluation("quality", settings.quality_interval_s, settings, registry, figures),
        _evaluation("drift", settings.drift_interval_s, settings, registry, figures),
        _rollout_quality(settings, writer),
    ]
    async with AsyncExitStack() as stack:
        main = _duties("duties", jobs, registry, duty_metrics)
        duty_metrics.held.set_function(lambda: float(main.holding))
        duties = [main]
        sent = DeliveryMetrics(metrics, now=utc_now)
        if webhooks is not None:
            delivery = Delivery(registry.store, webhooks.current, sender=Sender(), metrics=sent)
            stack.push_async_callback(delivery.aclose)
            # On a lease of its own: where one gateway of many was told of none, it must not keep others from sending.
            sending = [Job("webhooks", _DELIVERY_S, delivery.run, ended=delivery.ended)]
            duties.append(_duties("webhooks", sending, registry, duty_metrics))
        for each in duties:
            stack.push_async_callback(each.aclose)
            each.start()
        yield


def _duties(lease: str, jobs: list[Job], registry: Registry, metrics: DutyMetrics) -> Duties:
    held = Lease(registry.store, name=lease)
    return Duties(held, jobs, metrics=metrics, check=registry.check_there, first_s=_FIRST_S)


def _evaluation(kind: Kind, interval_s: float, settings: GatewaySettings, registry: Registry, figures: Figures) -> Job:
    evaluator = Evaluator(
        kind,
        registry=registry.url,
        observations=settings.observations,
        disk_bytes=settings.evaluation_disk_bytes,
        interval_s=interval_s,
        found=partial(figures.found, kind),
    )

    def ended() -> None:
        figures.forget(kind)
        evaluator.close()

    # Not at once: a gateway that has just started has nothing to look at that was not looked at a moment ago, or never.
    return Job(kind, interval_s, evaluator.run, first_s=interval_s, ended=ended)


def _rollout_quality(settings: GatewaySettings, writer: RegistryWriter) -> Job:
    duty = RolloutQualityDuty(writer, observations=settings.observations, disk_bytes=settings.evaluation_disk_bytes)
    return Job("rollout_quality", INTERVAL_S, duty.run, ended=duty.close)
