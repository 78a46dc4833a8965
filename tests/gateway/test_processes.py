"""A gateway of several processes: they share the ports, tell one another's metrics, are replaced, and end together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.fakes import FakePod, answer, free_port
from marway.process.stop_request import StopRequest
from marway.registry import Registry
from marway.settings import load_settings
from marway_gateway.observe.peers import Peers, merged
from marway_gateway.processes.parent import Parent
from marway_gateway.settings import GatewaySettings
from support.gateways import GatewayProcess, metric
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]
REQUESTS = 40
SERVING = health_pb2.HealthCheckResponse.SERVING


def registry_of(number: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("asked", "How often\nit was asked.", ["model"], registry=registry).labels('in"tent {x} ').inc(number)
    Gauge("open", "Open now.", registry=registry).set(number)
    Histogram("took_seconds", "Time.", registry=registry, buckets=(1,)).observe(number)
    return registry


def test_metrics_of_several_are_one_exposition() -> None:
    """Each family is there once, and every sample of every process with that process's number."""
    text = merged({number: generate_latest(registry_of(number)) for number in (2, 1)}).decode()
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert sorted(names) == sorted(set(names))
    assert {"asked", "open", "took_seconds"} <= set(names)
    for family in families:
        (alone,) = (each for each in text_string_to_metric_families(generate_latest(registry_of(1)).decode())
                    if each.name == family.name)  # fmt: skip
        assert (family.documentation, family.type) == (alone.documentation, alone.type)
        first = [each for each in family.samples if each.labels["process"] == "1"]
        assert [(each.name, each.value) for each in first] == [(each.name, each.value) for each in alone.samples]
        assert [{**each.labels, "process": "1"} for each in alone.samples] == [each.labels for each in first]
        assert {each.labels["process"] for each in family.samples} == {"1", "2"}


async def test_who_does_not_answer_is_left_out(tmp_path: Path) -> None:
    """A process that is gone, or hangs, does not keep the others from telling; how many told is told."""
    one, two, three = (Peers(tmp_path, number, 4) for number in range(3))
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(tmp_path / "3.sock"))
        stuck.listen()
        async with one.answering(registry_of(1)), two.answering(registry_of(2)):
            text = (await three.exposed(registry_of(3))).decode()
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert [values["open", ("process", str(number))] for number in range(3)] == [1, 2, 3]
    assert values["marway_gateway_processes", ("state", "started")] == 4
    assert values["marway_gateway_processes", ("state", "answered")] == 3


@contextlib.asynccontextmanager
async def started(gateway: GatewayProcess) -> AsyncIterator[psutil.Process]:
    """Have it run beside this loop, in which its pod is; give its parent process."""
    await asyncio.to_thread(gateway.__enter__)
    try:
        yield psutil.Process(gateway.process.pid)
    finally:
        await asyncio.to_thread(gateway.__exit__)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something is so; processes are started meanwhile."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.05)


async def asked(url: str) -> str:
    """Predict over a connection of its own, and return the answer."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        said = await client.post(f"{url}/predict/intent/1.0", content=b"hello")
        return said.raise_for_status().text


# Extended, as it starts four processes: above are the metrics, below is who keeps the ports.
@pytest.mark.extended
async def test_they_are_one_gateway(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Connections go to all of them, each port tells of all, a killed one is replaced, and SIGTERM drains every one."""
    go_on = asyncio.Event()

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        if pod.requests[-1].body == b"slow":
            await go_on.wait()
        return await answer(pod, request)

    publish(registry, tmp_path)
    pod = await make_pod(behave=behave)
    gateway = GatewayProcess(
        tmp_path / "home", registry=registry.url, pods=[f"{pod.name}={pod.url}"], processes=2, lame_duck_s=0
    )
    async with started(gateway) as parent:
        members = parent.children()
        assert len(members) == 2
        assert all(str(tmp_path / "home") in member.cmdline() for member in members)
        assert set(await asyncio.gather(*(asked(gateway.url) for _ in range(REQUESTS)))) == {"hello"}

        count = "marway_gateway_request_duration_seconds_count"
        for url in (gateway.url, str(gateway.addresses["admin"])):
            each = [await asyncio.to_thread(metric, url, count, process=str(number)) for number in range(2)]
            assert sum(each) == REQUESTS
            assert min(each) >= 1
        # One of them does what is done once for all gateways.
        held = partial(metric, gateway.url, "marway_gateway_duties_held")
        of_each = [partial(held, process=str(number)) for number in range(2)]
        await eventually(lambda: sum(of() for of in of_each) == 1)
        async with grpc.aio.insecure_channel(gateway.addresses["grpc"]) as channel, asyncio.timeout(20):
            health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            while (await health.Check(health_pb2.HealthCheckRequest())).status != SERVING:
                await asyncio.sleep(0.05)

        members[0].kill()
        await eventually(lambda: len([each for each in parent.children() if each.pid != members[0].pid]) == 2)
        assert [await asked(gateway.url) for _ in range(10)] == 10 * ["hello"]
        await eventually(lambda: "ended with status -9; starting it again at once" in gateway.said)

        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            url = f"{gateway.url}/predict/intent/1.0"
            slow = [asyncio.create_task(client.post(url, content=b"slow")) for _ in range(8)]
            await eventually(lambda: sum(seen.body == b"slow" for seen in pod.requests) == 8)
            gateway.process.send_signal(signal.SIGTERM)
            await eventually(lambda: _closed(int(gateway.url.rpartition(":")[2])))
            go_on.set()
            assert [(await each).text for each in slow] == 8 * ["slow"]
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0
        assert [each for each in members if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


def _closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# Extended: tests/ops/test_reaper.py has the lifeline of `marway up`, which is the same.
@pytest.mark.extended
async def test_they_end_with_their_parent(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Kill -9 of the parent leaves no process, and no port taken."""
    pod = await make_pod()
    gateway = GatewayProcess(tmp_path / "home", registry=registry.url, pods=[f"{pod.name}={pod.url}"], processes=2)
    async with started(gateway) as parent:
        members = parent.children()
        parent.kill()
        await asyncio.to_thread(psutil.wait_procs, members, 10)
        assert [each for each in members if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
        assert _closed(int(gateway.url.rpartition(":")[2]))


def members() -> list[psutil.Process]:
    """Return the processes of a gateway that this process has started."""
    return [each for each in psutil.Process().children() if "marway_gateway.processes" in each.cmdline()]


# Extended: it takes the seconds of silence that it is about.
@pytest.mark.extended
async def test_one_that_hangs_is_replaced(
    registry: Registry, make_pod: MakePod, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process whose loop stands still is killed and started again; one that fails to come up is tried once more."""
    pod = await make_pod()
    ports = {name: free_port() for name in ("port", "admin_port", "grpc_port")}
    settings = load_settings(
        GatewaySettings, registry=registry.url, pods=f"{pod.name}={pod.url}", processes=2, lame_duck_s=0, **ports
    )
    stop = StopRequest()
    with caplog.at_level(logging.INFO):
        running = asyncio.create_task(Parent(settings, tmp_path, home=None, hangs_s=2).run(stop, {}))
        try:
            await eventually(lambda: "ready" in caplog.messages)
            hung = members()[0]
            hung.suspend()
            await eventually(lambda: any("hung for 2 s" in each for each in caplog.messages))
            await eventually(lambda: len(members()) == 2)
        finally:
            stop.set()
            await asyncio.wait_for(running, 60)
    assert not hung.is_running()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--port", "{taken}"], "port {taken} on 127.0.0.1 is taken"),
        pytest.param(
            ["--port", "0", "--registry", "ftp://host/x"], "of no known kind", marks=pytest.mark.extended
        ),  # as the port, and found by the processes themselves
        (["--port", "0", "--processes", "0"], "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments: list[str], why: str, tmp_path: Path) -> None:
    """A port that is taken, and what a process finds wrong when it starts, is one line, and nothing is left."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = str(server.getsockname()[1])
        command = [sys.executable, "-m", "marway", "gateway", "--admin-port", "0", "--grpc-port", "0"]
        command += ["--registry", tmp_path.as_uri(), "--processes", "2", "--home", str(tmp_path)]
        command += [each.format(taken=taken) for each in arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert why.format(taken=taken) in line
