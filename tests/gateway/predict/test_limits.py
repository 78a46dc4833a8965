"""Requests over a limit wait in order, but only so many and only so long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from gateway.fakes import FakePod, answer, running
from marway.errors import Overloaded
from marway.registry import Registry
from marway_gateway.placement import Pod
from marway_gateway.predict.admission import Admission
from marway_gateway.settings import PodAddress
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
KEY = ("intent", "1.0")
OTHER = ("digits", "1.0")


def admission(*, per_version: int = 1, queue_limit: int = 10, queue_timeout_s: float = 10.0) -> Admission:
    return Admission(per_version=per_version, queue_limit=queue_limit, queue_timeout_s=queue_timeout_s)


async def test_turns_come_in_order() -> None:
    """Whoever came first is served first, one version waits for no other, and a place that is left goes to the next."""
    limits = admission(per_version=2)
    order: list[int] = []

    async def take(number: int) -> None:
        await limits.enter(KEY)
        order.append(number)

    for number in range(2):
        await take(number)
    waiting = [asyncio.create_task(take(number)) for number in range(2, 5)]
    await asyncio.sleep(0)
    await limits.enter(OTHER)
    assert order == [0, 1]
    for expected in range(2, 5):
        limits.leave(KEY)
        await waiting[expected - 2]
        assert order[-1] == expected
    for _ in range(2):
        limits.leave(KEY)
    await take(5)
    assert order == [0, 1, 2, 3, 4, 5]


async def test_who_gives_up_leaves_no_gap() -> None:
    """A request that is cancelled while it waits, or in the moment of its turn, passes its turn on."""
    limits = admission()
    await limits.enter(KEY)
    gone = asyncio.create_task(limits.enter(KEY))
    chosen = asyncio.create_task(limits.enter(KEY))
    last = asyncio.create_task(limits.enter(KEY))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    limits.leave(KEY)
    chosen.cancel()  # it has its turn already and has not run yet
    await asyncio.wait({chosen})
    await last
    limits.leave(KEY)
    await limits.enter(KEY)


async def test_queue_is_bounded_in_length_and_time() -> None:
    """Beyond its length the queue refuses at once, and whoever waits in it is refused when the time is over."""
    limits = admission(queue_limit=1, queue_timeout_s=0.05)
    await limits.enter(KEY)
    waiting = asyncio.create_task(limits.enter(KEY))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"1 requests for intent 1\.0 are being .*, and 1 requests wait already"):
        await limits.enter(KEY)
    with pytest.raises(Overloaded, match=r"none of them ended within 0\.05 s") as raised:
        await waiting
    assert raised.value.retry_after_s == 1
    limits.leave(KEY)
    await limits.enter(KEY)


async def test_whoever_can_use_a_free_pod_gets_it() -> None:
    """Of those that wait for pods the first of each version looks again when one is free, and keeps its place."""
    limits = admission()
    free: dict[tuple[str, str], Pod] = {}
    pod = Pod(PodAddress("a", "http://a"))
    got: list[str] = []

    async def take(name: str, key: tuple[str, str]) -> None:
        await limits.pod_for(key, lambda: free.pop(key, None))
        got.append(name)

    tasks = [asyncio.create_task(take(name, key)) for name, key in (("1", KEY), ("2", KEY), ("3", OTHER))]
    await asyncio.sleep(0)
    for key in (OTHER, KEY, KEY):
        free[key] = pod
        limits.pod_freed()
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    assert got == ["3", "1", "2"]


async def test_whoever_finds_the_freed_pod_taken_goes_on_waiting() -> None:
    """Of two that look again at once the one that finds nothing is still told of the next pod that is free."""
    limits = admission()
    free: list[Pod] = []

    async def take() -> None:
        await limits.pod_for(KEY, lambda: free.pop() if free else None)

    tasks = [asyncio.create_task(take()) for _ in range(2)]
    await asyncio.sleep(0)
    for _ in tasks:
        free.append(Pod(PodAddress("a", "http://a")))
        limits.pod_freed()
        limits.pod_freed()
        await asyncio.sleep(0.01)
    assert [task.done() for task in tasks] == [True, True]


async def test_over_http(registry: Registry, tmp_path: Path, make_pod: MakePod) -> None:
    """A version's limit lets one request through at a time, queues one and refuses the third with 429 and a wait."""
    publish(registry, tmp_path)
    go_on = asyncio.Event()

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return await answer(pod, request)

    pod = await make_pod(behave=behave)
    async with running(pod, registry=registry, max_requests_per_version=1, queue_limit=1) as gateway:
        asking = [asyncio.create_task(gateway.predict()) for _ in range(2)]
        while await gateway.metric("marway_gateway_requests_queued") != 1:
            pass
        await until(lambda: len(pod.requests) == 1)
        refused = await gateway.predict()
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert len(pod.requests) == 1
        go_on.set()
        assert [(await each).status_code for each in asking] == [200, 200]
        assert await gateway.metric("marway_gateway_requests_queued") == 0


async def test_pods_limit_over_http(registry: Registry, tmp_path: Path, make_pod: MakePod) -> None:
    """A request that finds every pod at its limit waits until one is free and goes there."""
    publish(registry, tmp_path)
    go_on = asyncio.Event()

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return await answer(pod, request)

    pods = [await make_pod(name, behave=behave) for name in "ab"]
    async with running(*pods, registry=registry, max_requests_per_pod=1, health_interval_s=60) as gateway:
        asking = [asyncio.create_task(gateway.predict()) for _ in range(3)]
        while await gateway.metric("marway_gateway_requests_queued") != 1:
            pass
        await until(lambda: [len(pod.requests) for pod in pods] == [1, 1])
        go_on.set()
        assert [(await each).status_code for each in asking] == [200, 200, 200]
        await until(lambda: sum(len(pod.requests) for pod in pods) == 3)
