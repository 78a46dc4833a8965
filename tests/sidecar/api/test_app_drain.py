"""Stopping: nobody is lost, nobody hangs, and it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, Pod, serving
from support.registry import publish, until


class Held:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = 0

    async def __call__(self, model: ServedModel, row: Row) -> Answer:
        self.asked += 1
        await self.go.wait()
        return Answer(200, b"held", "text")


async def test_what_is_in_flight_is_finished_and_what_is_new_refused(registry: Registry, tmp_path: Path) -> None:
    """On a stop a request in flight gets its answer, new ones are told to go elsewhere, and the process ends."""
    held = Held()
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=held), golden_warm_examples=0) as pod:
        waiting = asyncio.create_task(pod.predict("some"))
        await until(lambda: held.asked == 1)
        pod.stop.set()
        await until(lambda: pod.sidecar.draining.stopping)
        refused = await pod.predict("some", b"x" * 300_000)
        assert (refused.status_code, refused.headers["x-marway-outcome"]) == (503, "not_accepted")
        assert refused.headers["connection"] == "close"
        assert (await pod.client.get("/readyz")).status_code == 503
        assert (await pod.client.get("/healthz")).status_code == 200
        held.go.set()
        answer = await waiting
        assert (answer.content, answer.headers["connection"]) == (b"held", "close")
        await asyncio.wait_for(pod.task, 20)


async def test_a_lame_duck_takes_requests_and_loads_nothing(registry: Registry, tmp_path: Path) -> None:
    """Before anybody can have heard of the stop, loaded versions are served and no load is begun."""
    publish(registry, tmp_path, "some", "1.0")
    publish(registry, tmp_path, "other", "1.0")
    async with serving(registry, tmp_path, lame_duck_s=1.5) as pod:
        assert (await pod.predict("some")).status_code == 200
        pod.stop.set()
        await until(lambda: pod.sidecar.draining.stopping)
        assert (await pod.client.get("/readyz")).status_code == 503
        served = await pod.predict("some")
        assert (served.status_code, served.headers["connection"]) == (200, "close")
        refused = await pod.predict("other")
        assert (refused.status_code, refused.headers["x-marway-outcome"]) == (503, "not_accepted")
        assert len(pod.server.loaded) == 1
        await until(lambda: pod.sidecar.draining.refusing)
        assert (await pod.predict("some")).headers["x-marway-outcome"] == "not_accepted"


async def test_what_never_ends_is_cut_off(registry: Registry, tmp_path: Path) -> None:
    """A request that outlasts the drain is told so, and the process ends."""
    held = Held()
    publish(registry, tmp_path, "some", "1.0")
    server = FakeServer(predict_with=held)
    async with serving(registry, tmp_path, server=server, golden_warm_examples=0, drain_timeout_s=0.3) as pod:
        waiting = asyncio.create_task(pod.predict("some"))
        await until(lambda: held.asked == 1)
        pod.stop.set()
        answer = await waiting
        assert (answer.status_code, answer.headers["x-marway-outcome"]) == (503, "runtime_down")
        assert answer.json()["code"] == "draining"
        await asyncio.wait_for(pod.task, 20)


@pytest.mark.parametrize("orphaned", [False, True], ids=["SIGTERM", "orphaned"])
async def test_nobody_is_lost_under_load(registry: Registry, tmp_path: Path, orphaned: bool) -> None:
    """Clients that place again only what was not accepted lose nothing while a pod stops, its lame duck or not."""

    async def slow(model: ServedModel, row: Row) -> Answer:
        await asyncio.sleep(0.01)
        return Answer(200, row.parts[0].value, "bytes")

    publish(registry, tmp_path, "some", "1.0")
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    async with (
        serving(registry, one, server=FakeServer(predict_with=slow), lame_duck_s=0.3) as first,
        serving(registry, two, server=FakeServer(predict_with=slow)) as second,
    ):
        pods: list[Pod] = [first, second]
        done: list[int] = []
        moved = 0

        async def client(number: int) -> None:
            nonlocal moved
            while not (first.task.done() and len(done) > 200):
                body = f"{number} {len(done)}".encode()
                pod = pods[number % len(pods)]
                try:
                    answer = await pod.predict("some", body)
                except httpx.ConnectError:
                    answer = None
                if answer is None or answer.headers["x-marway-outcome"] == "not_accepted":
                    assert pod is first
                    moved += 1
                    if first in pods:
                        pods.remove(first)
                    answer = await second.predict("some", body)
                assert (answer.status_code, answer.content) == (200, body)
                done.append(number)

        clients = [asyncio.create_task(client(number)) for number in range(8)]
        await until(lambda: len(done) > 100)
        first.stop.set(orphaned=orphaned)
        await asyncio.wait_for(asyncio.gather(*clients), 60)
        assert moved >= 1
