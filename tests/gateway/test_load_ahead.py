"""Pods load versions before requests go there, and pods are found by DNS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, running
from marway.errors import InvalidSettings, LoadFailed
from marway.registry import Registry
from marway.settings import load_settings
from marway.wire.pods import ModelStatus
from marway_gateway.discovery import Discovery, look_up
from marway_gateway.placement import PodSet, score
from marway_gateway.placement.ejection import Ejection
from marway_gateway.pod_api import PodApi
from marway_gateway.pods import PodWatcher
from marway_gateway.settings import GatewaySettings, PodAddress, PodService
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


async def test_pods_by_dns(registry: Registry, tmp_path: Path, make_pod: MakePod) -> None:
    """All addresses of a name are pods, called by address and port."""
    publish(registry, tmp_path)
    pod = await make_pod()
    async with running(registry=registry, pods=(PodService("localhost", pod.port),)) as gateway:
        shown = (await gateway.admin.get("/pods")).json()
        assert f"127.0.0.1:{pod.port}" in [each["name"] for each in shown]
        assert (await gateway.predict()).status_code == 200
    assert len(pod.requests) == 1


async def test_addresses_of_a_name_change(make_pod: MakePod) -> None:
    """Addresses that come are asked, ones that go are left alone, and a name that is not found changes nothing."""
    first, second = await make_pod("a"), await make_pod("b")
    found: list[PodAddress] = [first.address]
    failing = False

    async def resolve(_: PodService) -> list[PodAddress]:
        if failing:
            raise socket.gaierror("no such name")
        return found

    api = PodApi(connect_timeout_s=1)
    pods = PodSet([], ejection=Ejection(after_failures=5, eject_s=30, eject_max_s=300))
    watcher = PodWatcher(pods, api, interval_s=0.05)
    discovery = Discovery([PodService("pods", 9000)], pods, watcher, interval_s=60, resolve=resolve)
    try:
        await discovery.start()
        await until(pods.ready)
        found = [second.address]
        await discovery.look()
        assert [pod.name for pod in pods.pods] == ["b"]
        await until(pods.ready)
        asked = first.polls
        await until(lambda: second.polls > 3)
        assert first.polls == asked
        failing = True
        await discovery.look()
        assert [pod.name for pod in pods.pods] == ["b"]
    finally:
        await discovery.aclose()
        await watcher.aclose()
        await api.aclose()


async def test_look_up() -> None:
    """A name's addresses are found once each; an unknown name is an error."""
    found = await look_up(PodService("localhost", 9000))
    assert PodAddress("127.0.0.1:9000", "http://127.0.0.1:9000") in found
    assert len(found) == len(set(found))


def test_pods_in_settings() -> None:
    """Names for DNS and addresses may be mixed; a name without a port is refused with an example."""
    settings = load_settings(GatewaySettings, pods="a=http://127.0.0.1:9000, dns://pods.marway.svc:9000")
    assert settings.pods == (PodAddress("a", "http://127.0.0.1:9000"), PodService("pods.marway.svc", 9000))
    assert str(settings.pods[1]) == "dns://pods.marway.svc:9000"
    with pytest.raises(InvalidSettings, match="write dns://NAME:PORT"):
        load_settings(GatewaySettings, pods="dns://pods")
