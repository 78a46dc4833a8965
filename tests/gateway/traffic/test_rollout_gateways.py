"""Rollouts over whole gateways: requests come, and the rollout does by itself what follows from their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from gateway.admin_pod import AdminPod
from gateway.fakes import Running, answer, broken_model, running
from marway.registry import Registry
from support.registry import publish


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    """intent 1.0 at PROD and 1.1."""
    publish(registry, tmp_path, version="1.0")
    publish(registry, tmp_path, version="1.1", label=None)


async def candidate_fails(pod: AdminPod, request: web.Request) -> web.StreamResponse:
    """The candidate raises for every request."""
    failing = request.match_info["version"] == "1.1"
    return await (broken_model if failing else answer)(pod, request)


@pytest.fixture
async def two(registry: Registry) -> AsyncIterator[tuple[Running, Running, AdminPod]]:
    """Two gateways of one registry, over one pod."""
    async with AsyncExitStack() as stack:
        pod = AdminPod("a", registry=registry)
        await pod.start()
        stack.push_async_callback(pod.stop)
        first = await stack.enter_async_context(running(pod, registry=registry))
        second = await stack.enter_async_context(running(pod, registry=registry))
        for gateway in (first, second):
            while not all(each["status"] for each in (await gateway.admin.get("/pods")).json()):
                await asyncio.sleep(0.01)
        yield first, second, pod


def changes(registry: Registry) -> list[str]:
    entries = list(registry.history("intent"))[::-1]
    return [entry.rollout.action for entry in entries if entry.rollout is not None]


async def test_a_bad_candidate_leaves_by_itself(registry: Registry, two: tuple[Running, Running, AdminPod]) -> None:
    """Callers of both gateways get errors of the candidate; it is rolled back, once, and none gets one any more."""
    first, second, pod = two
    pod.behave = candidate_fails  # type: ignore[assignment]
    body = {"version": "1.1", "steps": [20], "guards": {"errors": None}, "shadow_percent": 0}
    started = await first.admin.post("/models/intent/labels/PROD/rollout", json=body)
    assert started.status_code == 200, started.text
    sides: set[str] = set()

    async def ask(gateway: Running) -> None:
        while "roll_back" not in changes(registry):
            reply = await gateway.predict()
            side = reply.headers.get("x-marway-traffic")
            assert (reply.status_code == 200) == (side != "candidate")
            sides.add(side or "none")
            await asyncio.sleep(0.005)

    async with asyncio.timeout(60):
        await asyncio.gather(ask(first), ask(second))
    assert sides >= {"base", "candidate"}
    for gateway in (first, second):
        async with asyncio.timeout(10):
            while "x-marway-traffic" in (await gateway.predict()).headers:
                await asyncio.sleep(0.1)
    assert changes(registry) == ["start", "roll_back"]
    assert registry.state("intent").labels["PROD"] == "1.0"
    told = (await second.admin.get("/models/intent/labels/PROD/rollout")).json()
    assert (told["state"], told["guard"]) == ("rolled_back", "errors")
    assert told["evidence"]["errors"]["verdict"] == "worse"
