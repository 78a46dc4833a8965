"""Pods are found by DNS."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, running
from marway.errors import InvalidSettings
from marway.registry import Registry
from marway.settings import load_settings
from marway_gateway.discovery import Discovery, DnsSource
from marway_gateway.discovery.discovery import look_up
from marway_gateway.placement import Ejection, PodSet
from marway_gateway.placement.pod_api import PodApi
from marway_gateway.placement.pod_watch import PodWatcher
from marway_gateway.settings import GatewaySettings, PodAddress, PodService
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]


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
    source = DnsSource(PodService("pods", 9000), interval_s=60, resolve=resolve)
    discovery = Discovery([], [source], pods, watcher)
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


async def test_pods_of_one_name_are_one_pod(make_pod: MakePod, caplog: pytest.LogCaptureFixture) -> None:
    """Of two pods of one name the later source's is used, a configured one before all, and it is said once."""
    first, second, fixed = await make_pod("a"), await make_pod("a"), await make_pod("b")
    found = {"one": [first.address], "two": [second.address, PodAddress("b", "http://127.0.0.1:9")]}

    async def resolve(service: PodService) -> list[PodAddress]:
        return found[service.host]

    api = PodApi(connect_timeout_s=1)
    pods = PodSet([], ejection=Ejection(after_failures=5, eject_s=30, eject_max_s=300))
    watcher = PodWatcher(pods, api, interval_s=0.05)
    sources = [DnsSource(PodService(name, 9000), interval_s=60, resolve=resolve) for name in found]
    discovery = Discovery([fixed.address], sources, pods, watcher)
    try:
        await discovery.look()
        await discovery.look()
        assert {pod.name: pod.url for pod in pods.pods} == {"a": second.url, "b": fixed.url}
        assert caplog.text.count("two pods are called") == 2
    finally:
        await discovery.aclose()
        await watcher.aclose()
        await api.aclose()
