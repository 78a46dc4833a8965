"""Pods load versions before requests go there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, busy, running
from marway.errors import LoadFailed
from marway.registry import Registry
from marway.wire.pods import ModelStatus
from marway_gateway.placement import score
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
READY = ModelStatus(id="run-intent-1.0", name="intent", version="1.0", state="ready")


@pytest.fixture
async def pods(registry: Registry, tmp_path: Path, make_pod: MakePod) -> list[FakePod]:
    """Three pods in the order in which intent 1.0 asks them."""
    publish(registry, tmp_path)
    made = [await make_pod(f"pod-{number}") for number in range(3)]
    return sorted(made, key=lambda pod: score(pod.name, "intent", "1.0"), reverse=True)


async def test_a_new_home_loads_before_requests_move(registry: Registry, pods: list[FakePod]) -> None:
    """Requests stay with the pod that has the version until its home has loaded it, which is asked once."""
    home, _, last = pods
    home.may_load = asyncio.Event()
    last.models = (READY,)
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls and pod.watches for pod in pods))
        while (await gateway.predict()).status_code == 200 and not home.loads:
            pass
        for _ in range(5):
            assert (await gateway.predict()).status_code == 200
        assert home.requests == []
        assert home.loads == ["/models/intent/1.0/load"]
        home.may_load.set()
        while not home.requests:
            assert (await gateway.predict()).status_code == 200
        assert await gateway.metric('marway_gateway_load_aheads_total{outcome="ok"}') == 1


async def test_the_next_home_begins_when_a_pod_drains(registry: Registry, pods: list[FakePod]) -> None:
    """When a pod drains, the next one is asked to load the versions in use with no request in between."""
    home, following, _ = pods
    home.models = (READY,)
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls and pod.watches for pod in pods))
        assert (await gateway.predict()).status_code == 200
        home.ready, home.draining = False, True
        home.tell()
        await until(lambda: following.loads)
        assert following.requests == []


async def test_a_load_that_fails_harms_nobody(registry: Registry, pods: list[FakePod]) -> None:
    """A home that cannot load the version is not asked over and over, and requests stay where they are answered."""
    home, _, last = pods
    home.load_error = LoadFailed("no space on its device")
    last.models = (READY,)
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls and pod.watches for pod in pods))
        while not await gateway.metric('marway_gateway_load_aheads_total{outcome="failed"}'):
            assert (await gateway.predict()).status_code == 200
        for _ in range(5):
            assert (await gateway.predict()).status_code == 200
    assert home.loads == ["/models/intent/1.0/load"]
    assert home.requests == []


async def test_a_draining_pod_hands_its_versions_over(registry: Registry, pods: list[FakePod]) -> None:
    """A version that only a draining pod has is answered there until its next home has loaded it, and then never."""
    home, following, _ = pods
    home.models = (READY,)
    following.may_load = asyncio.Event()
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls and pod.watches for pod in pods))
        assert (await gateway.predict()).status_code == 200
        home.ready, home.draining = False, True
        home.tell()
        await until(lambda: following.loads)
        for _ in range(5):
            assert (await gateway.predict()).status_code == 200
        assert (len(home.requests), len(following.requests)) == (6, 0)
        following.may_load.set()
        while not following.requests:
            assert (await gateway.predict()).status_code == 200
        asked = len(home.requests)
        for _ in range(5):
            assert (await gateway.predict()).status_code == 200
        assert len(home.requests) == asked
        assert following.loads == ["/models/intent/1.0/load"]


async def test_a_draining_pod_that_refuses_costs_no_request(registry: Registry, pods: list[FakePod]) -> None:
    """When the draining pod takes nothing more before the next home is ready, requests wait for that one's load."""
    home, following, _ = pods
    home.models = (READY,)
    following.may_load = asyncio.Event()
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls and pod.watches for pod in pods))
        assert (await gateway.predict()).status_code == 200
        home.ready, home.draining, home.behave = False, True, busy
        home.tell()
        await until(lambda: following.loads)
        assert (await gateway.predict()).status_code == 200
        assert len(following.requests) == 1
        following.may_load.set()
        await until(lambda: following.models)


async def test_a_pod_that_has_not_spoken_is_not_asked_to_load(registry: Registry, pods: list[FakePod]) -> None:
    """A pod that is still starting is asked for a load when it says that it is there, not refused before."""
    home, following, last = pods
    following.models = last.models = (READY,)
    home.silent, home.status_code = True, 503
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: following.watches and last.watches and home.polls and home.watches)
        for _ in range(5):
            assert (await gateway.predict()).status_code == 200
        assert (home.requests, home.loads) == ([], [])
        home.silent, home.status_code = False, 200
        await until(lambda: home.loads)
        assert home.requests == []
