"""Raises and sends events as a gateway does, under leases that last a second. Run as a program, until it is killed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from marway.objects import DirectoryStore
from marway.records import utc_now
from marway.registry import Registry
from marway_gateway.duties import Duties, DutyMetrics, Job, Lease
from marway_gateway.events.delivery import Delivery
from marway_gateway.events.history import HistoryScan
from marway_gateway.events.metrics import DeliveryMetrics
from marway_gateway.events.sending import Sender
from marway_gateway.events.webhooks import WebhooksFile


async def send(root: Path, webhooks: Path) -> None:
    """Do both duties until the end."""
    store = DirectoryStore(root)
    registry = CollectorRegistry()
    metrics = DutyMetrics(registry)
    scan = HistoryScan(Registry(store, must_exist=True), pace_s=0)
    delivery = Delivery(
        store,
        WebhooksFile(webhooks).current,
        sender=Sender(),
        metrics=DeliveryMetrics(registry, now=utc_now),
    )
    for name, run in (("duties", scan.run), ("webhooks", delivery.run)):
        lease = Lease(store, name=name, holder=str(os.getpid()), lasts_s=1.0)
        Duties(lease, [Job(name, 0.1, run)], metrics=metrics, renew_s=0.2).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(send(Path(sys.argv[1]), Path(sys.argv[2])))
