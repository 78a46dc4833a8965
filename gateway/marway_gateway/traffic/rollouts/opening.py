"""What watches rollouts in a gateway, opened together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from marway.refs import new_ulid
from marway.resolve.resolver import Resolver
from marway_gateway.admin.contracts import ContractChecks
from marway_gateway.admin.loading import Loader
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.placement import PodSet
from marway_gateway.traffic.rollouts.acting import Acting
from marway_gateway.traffic.rollouts.candidate import CandidateLoads
from marway_gateway.traffic.rollouts.exchange import Exchange
from marway_gateway.traffic.rollouts.metrics import RolloutMetrics
from marway_gateway.traffic.rollouts.rollouts import Rollouts
from marway_gateway.traffic.rollouts.watcher import Watcher

__all__ = ["watching_rollouts"]


@asynccontextmanager
async def watching_rollouts(
    rollouts: Rollouts,
    *,
    resolver: Resolver,
    writer: RegistryWriter,
    loader: Loader,
    contracts: ContractChecks,
    pods: PodSet,
    metrics: CollectorRegistry,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Watcher]:
    """Watch the rollouts that this process knows of for as long as the context lasts.

    Args:
        rollouts: Which these are.
        resolver: Says how labels are divided now.
        writer: Changes the registry, in whose store processes tell one another what they counted.
        loader: Has candidates loaded and proved.
        contracts: Has them asked what consumers rely on.
        pods: All pods.
        metrics: Where to tell of it.
        clock: Monotonic seconds.
    """
    rollout_metrics = RolloutMetrics(metrics)
    candidates = CandidateLoads(resolver, loader, pods, contracts=contracts, clock=clock)
    watcher = Watcher(
        rollouts,
        resolver=resolver,
        exchange=Exchange(writer.registry.store, new_ulid()),
        candidates=candidates,
        acting=Acting(writer, candidates, rollout_metrics),
        pods=pods,
        metrics=rollout_metrics,
        clock=clock,
    )
    watcher.start()
    try:
        yield watcher
    finally:
        await watcher.aclose()
