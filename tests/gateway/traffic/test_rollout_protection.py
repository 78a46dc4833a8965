"""Rollouts of protected labels, and of models whose consumers have contracts, as a gateway moves them on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.traffic.test_rollout_watching import Process
from marway.errors import ContractBroken
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway_gateway.traffic.rollouts.acting import Acting
from marway_gateway.traffic.rollouts.candidate import CandidateLoads
from marway_gateway.traffic.rollouts.deciding import Decision
from marway_gateway.traffic.rollouts.metrics import RolloutMetrics
from support.registry import publish


class Pods:
    """A loader whose one pod takes everything, and consumers whose contract the candidate breaks from some time on."""

    def __init__(self) -> None:
        self.broken = False

    async def load(self, record: Any, serving: Any, **asked: Any) -> tuple[Any, ...]:
        return (SimpleNamespace(pod=SimpleNamespace(name="pod-0")),)

    async def keep(self, pod: Any, record: Any, label: str, *, deadline: Any) -> None:
        if self.broken:
            raise ContractBroken("intent 2 breaks what consumers rely on: search (contract alarm: …)")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """intent 1 at PROD, which is protected, and a rollout of 2, to which bo had agreed."""
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, version="1")
    publish(registry, tmp_path, version="2", label=None)
    registry.protect("intent", approvals=1, by="root")
    registry.approve("intent", "2", by="bo")
    registry.start_rollout("intent", "2", steps=(50,), by="ana")
    return registry


async def test_what_is_missing_at_the_last_step_is_for_people(registry: Registry) -> None:
    """A candidate that is good is not promoted where sign-off was taken back: the rollout is paused, and says so."""
    process, pods, counted = Process(registry.store, "a"), Pods(), CollectorRegistry()
    candidates = CandidateLoads(process.resolver, pods, SimpleNamespace(pods=()))  # type: ignore[arg-type]
    acting = Acting(process.writer, candidates, RolloutMetrics(counted))
    try:
        process.join()
        registry.approve("intent", "2", withdraw=True, by="bo")
        await acting.apply(process.running, Decision("promote", None, "all guards are clear"), {})
        traffic, of = registry.state("intent").traffic["PROD"], {"model": "intent", "label": "PROD", "action": "pause"}
        assert (traffic.status, "0 of 1 approvals" in str(traffic.reason)) == ("paused", True)
        assert counted.get_sample_value("marway_gateway_rollout_changes_total", of) == 1
    finally:
        await process.aclose()


async def test_a_contract_that_was_added_meanwhile_ends_it(registry: Registry) -> None:
    """A candidate that breaks what a consumer has come to rely on since leaves before more callers get it."""
    process, pods = Process(registry.store, "a"), Pods()
    contracts: Any = pods
    candidates = CandidateLoads(
        process.resolver,
        pods,
        SimpleNamespace(pods=()),
        contracts=contracts,  # type: ignore[arg-type]
    )
    acting = Acting(process.writer, candidates, RolloutMetrics(CollectorRegistry()))
    try:
        process.join()
        pods.broken = True
        await acting.apply(process.running, Decision("promote", None, "all guards are clear"), {})
        state = registry.state("intent")
        assert (state.labels, state.traffic) == ({"PROD": "1"}, {})
        done = state.history[-1].rollout
        assert done is not None
        assert (done.action, done.guard, "search (contract alarm" in str(done.reason)) == (
            "roll_back",
            "contracts",
            True,
        )
    finally:
        await process.aclose()
