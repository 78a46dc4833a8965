"""Rollouts over gateways that are processes: one is killed, one is stopped, and one has a clock that jumps."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from gateway.admin_pod import AdminPod
from gateway.fakes import answer, broken_model
from marway.registry import Registry, open_registry
from marway.traffic import GUARDS
from support.gateways import GatewayProcess
from support.jumping_clock import JumpingClock
from support.registry import publish

# What these look at in whole, test_rollout_watching.py looks at part by part, in moments.
pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(JumpingClock.reason_not() is not None, reason=str(JumpingClock.reason_not())),
]
WATCHED = {guard: None for guard in GUARDS if guard in ("errors", "disagreement")}


class Cluster:
    """Gateways as processes over one pod of this one, and requests that go round among those that answer."""

    def __init__(self, registry: Registry, pod: AdminPod, home: Path, stack: AsyncExitStack) -> None:
        self.registry = registry
        self.pod = pod
        self.gateways: list[GatewayProcess] = []
        self.versions: set[str] = set()
        self._home = home
        self._stack = stack

    async def begin(self, **environment: str) -> GatewayProcess:
        number = len(list(self._home.iterdir()))
        (home := self._home / str(number)).mkdir()
        gateway = GatewayProcess(
            home,
            registry=self.registry.url,
            pods=[f"{self.pod.name}={self.pod.url}"],
            environment=environment,
            access_log="false",
        )
        await asyncio.to_thread(gateway.__enter__)
        self._stack.push_async_callback(asyncio.to_thread, gateway.__exit__)
        self.gateways.append(gateway)
        return gateway

    def kill(self, gateway: GatewayProcess) -> None:
        gateway.process.kill()
        self.gateways.remove(gateway)

    async def ask(self) -> None:
        """Ask, of several callers at once, until cancelled."""

        async def caller(client: httpx.AsyncClient, number: int) -> None:
            while True:
                number += 1
                gateway = self.gateways[number % len(self.gateways)]
                try:
                    reply = await client.post(f"{gateway.url}/predict/intent", content=b"hello")
                except httpx.HTTPError:
                    continue  # it was killed meanwhile
                self.versions.add(reply.headers.get("x-model-version", "none"))

        async with httpx.AsyncClient(timeout=10, trust_env=False) as client, asyncio.TaskGroup() as callers:
            for number in range(8):
                callers.create_task(caller(client, number))

    def begin_rollout(self, version: str, **changes: Any) -> str:
        asked = {"guards": WATCHED, "steps": (20, 50), "step_time_s": 14, "label": "PROD", "by": "ann", **changes}
        change = self.registry.start_rollout("intent", version, **asked)
        assert change.entry.rollout is not None
        return change.entry.rollout.id or ""

    def changes(self, rollout: str) -> list[str]:
        """What the history says of a rollout, oldest first."""
        entries = [entry.rollout for entry in self.registry.history("intent") if entry.rollout is not None]
        return [entry.action for entry in entries[::-1] if entry.id == rollout]

    async def until(self, rollout: str, *actions: str, within_s: float = 90) -> None:
        async with asyncio.timeout(within_s):
            while not set(actions) & set(self.changes(rollout)):
                await asyncio.sleep(0.05)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A registry with intent 1.0 at PROD, 1.1, which answers as that does, and 1.2, which fails."""
    registry = open_registry(f"file://{tmp_path}/registry", create=True)
    for version in ("1.0", "1.1", "1.2"):
        publish(registry, tmp_path, version=version, label="PROD" if version == "1.0" else None)

    async def behave(pod: AdminPod, request: web.Request) -> web.StreamResponse:
        failing = request.match_info["version"] == "1.2"
        return await (broken_model if failing else answer)(pod, request)

    async with AsyncExitStack() as stack:
        pod = AdminPod("a", registry=registry, behave=behave)  # type: ignore[arg-type]
        await pod.start()
        stack.push_async_callback(pod.stop)
        (home := tmp_path / "homes").mkdir()
        yield Cluster(registry, pod, home, stack)


async def test_fault_gateways_die_in_a_rollout(cluster: Cluster, tmp_path: Path) -> None:
    """A good candidate is promoted and a bad one rolled back, each change made once, whatever becomes of gateways.

    One is killed in the middle of a step, one begins then, one is stopped and goes on, and the wall clock of one jumps
    by a year, forth and back.
    """
    clock = JumpingClock(tmp_path)
    killed, _ = await asyncio.gather(cluster.begin(), cluster.begin(**clock.environment))
    asking = asyncio.create_task(cluster.ask())
    good = cluster.begin_rollout("1.1")
    await asyncio.sleep(3)
    cluster.kill(killed)
    clock.jump_to(365 * 86400)
    await cluster.begin()
    await cluster.until(good, "step", "roll_back", "pause")
    clock.jump_to(-365 * 86400)
    await cluster.until(good, "promote", "roll_back", "pause")
    assert cluster.changes(good) == ["start", "step", "promote"]
    assert cluster.registry.state("intent").labels["PROD"] == "1.1"

    stopped = await cluster.begin()
    bad = cluster.begin_rollout("1.2", steps=(5,))
    os.kill(stopped.process.pid, signal.SIGSTOP)
    cluster.gateways.remove(stopped)
    try:
        await cluster.until(bad, "roll_back", "promote", "pause")
    finally:
        os.kill(stopped.process.pid, signal.SIGCONT)
    cluster.gateways.append(stopped)
    cluster.versions.clear()
    await asyncio.sleep(4)
    assert cluster.changes(bad) == ["start", "roll_back"]
    cluster.versions.clear()
    await asyncio.sleep(1)
    assert cluster.versions == {"1.1"}, "the stopped one follows as well"
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    generations = [entry.generation for entry in cluster.registry.history("intent")]
    assert generations == list(range(len(generations), 0, -1))
