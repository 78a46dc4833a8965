"""`GET /watch`: what a listener is told, and when."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from marway.registry import Registry
from marway.wire.pods import ModelStatus, PodEvent, PodStatus
from marway_sidecar import changes as watch
from marway_sidecar.changes import Changes, difference, events
from support.pod import FakeServer, Pod, serving
from support.registry import publish, until


@contextlib.asynccontextmanager
async def watched(pod: Pod) -> AsyncIterator[AsyncIterator[PodEvent]]:
    """Yield the events of a pod as they come."""

    async def read(lines: AsyncIterator[str]) -> AsyncIterator[PodEvent]:
        async for line in lines:
            yield PodEvent.model_validate_json(line)

    async with pod.client.stream("GET", "/watch") as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        yield read(response.aiter_lines())


async def told(events: AsyncIterator[PodEvent]) -> PodEvent:
    """Return the next event that says something."""
    async with asyncio.timeout(20):
        async for event in events:
            if event != PodEvent():
                return event
    raise AssertionError("the watch ended")


def pod_with(*models: ModelStatus, **facts: object) -> PodStatus:
    known: dict[str, object] = {"name": "a", "boot_id": "1", "backend": "torchserve", "ready": True, **facts}
    return PodStatus(models=models, **known)  # type: ignore[arg-type]


def model(name: str, **facts: object) -> ModelStatus:
    known: dict[str, object] = {"id": name, "name": name, "version": "1", "state": "ready", **facts}
    return ModelStatus(**known)  # type: ignore[arg-type]


async def test_a_listener_hears_of_loads_drains_and_the_model_server(registry: Registry, tmp_path: Path) -> None:
    """The pod comes whole first; then each change of a version, and the pod whole again when it changed itself."""
    record = publish(registry, tmp_path, "some", "1.0")
    server = FakeServer()
    server.may_load.clear()
    async with serving(registry, tmp_path, server=server) as pod, watched(pod) as heard:
        first = await told(heard)
        assert first.pod is not None
        assert (first.pod.name, first.pod.ready, first.pod.models) == ("pod-0", True, ())
        loading = asyncio.create_task(pod.predict("some"))
        states = [(await told(heard)).models[0]]
        server.may_load.set()
        while states[-1].state != "ready":
            states.append((await told(heard)).models[0])
        assert {status.id for status in states} == {record.id}
        assert states[0].state in ("fetching", "loading")
        assert (await loading).status_code == 200
        await pod.client.post("/drain")
        drained = await told(heard)
        assert drained.pod is not None
        assert (drained.pod.draining, drained.pod.ready) == (True, False)
        assert [status.id for status in drained.pod.models] == [record.id]
        await pod.client.delete("/drain")
        assert (await told(heard)).pod is not None
        await pod.client.post("/models/some/1.0/unload")
        while (event := await told(heard)).models:
            assert event.models[0].state in ("draining", "absent")
            if event.models[0].state == "absent":
                return
        assert event.removed == (record.id,)


async def test_requests_are_no_news(registry: Registry, tmp_path: Path) -> None:
    """While requests come and go, and nothing else changes, a listener hears heartbeats only."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        await pod.predict("some")
        async with watched(pod) as heard:
            await anext(heard)
            while await anext(heard) != PodEvent():
                pass  # the memory that was measured after the load
            busy = asyncio.create_task(_ask(pod))
            assert [await anext(heard) for _ in range(2)] == [PodEvent(), PodEvent()]
            busy.cancel()


async def _ask(pod: Pod) -> None:
    while True:
        await pod.predict("some")


async def test_a_burst_makes_few_lines_and_loses_nothing(registry: Registry, tmp_path: Path) -> None:
    """40 versions loaded at once are told in few lines, and the listener then knows all of them."""
    for number in range(40):
        publish(registry, tmp_path, f"some-{number}", "1.0")
    async with serving(registry, tmp_path) as pod, watched(pod) as heard:
        first = await anext(heard)
        assert first.pod is not None
        loads = asyncio.gather(*(pod.predict(f"some-{number}") for number in range(40)))
        known: dict[str, ModelStatus] = {}
        lines = 0
        while sum(status.state == "ready" for status in known.values()) < 40:
            event = await told(heard)
            lines += 1
            known |= {status.id: status for status in event.models}
        assert {answer.status_code for answer in await loads} == {200}
        assert lines < 60  # 40 versions pass through three states each


async def test_a_listener_that_does_not_read_is_told_one_difference() -> None:
    """Changes that a listener did not take are told as one difference when it reads on, however many there were."""
    changes = Changes()
    now = pod_with()
    stopped = False
    heard = events(lambda: now, changes, stopped=lambda: stopped)
    assert await anext(heard) == PodEvent(pod=now)
    for number in range(1000):
        now = pod_with(*(model(f"m{each}") for each in range(number % 3)), model("last", workers=number))
        changes.bump()
    assert await anext(heard) == PodEvent(models=now.models)
    stopped = True
    changes.bump()
    assert [event async for event in heard] == []


async def test_a_change_after_a_quiet_moment_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a change that follows another is held back to be told with its neighbours."""
    clock = SimpleNamespace(monotonic=lambda: now_s)
    monkeypatch.setattr(watch, "time", clock)
    monkeypatch.setattr(watch, "_COALESCE_S", 1000.0)
    changes, now_s, pod = Changes(), 0.0, pod_with()
    heard = events(lambda: pod, changes, stopped=lambda: False)
    assert await anext(heard) == PodEvent(pod=pod)
    now_s, pod = 1001.0, pod_with(model("a"))
    changes.bump()
    assert await asyncio.wait_for(anext(heard), 20) == PodEvent(models=pod.models)
    changes.bump()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(heard), 0.1)


def test_differences() -> None:
    """An event leads from one status to the next: changed, new and gone versions, or the pod whole."""
    before = pod_with(model("a"), model("b"), model("c", requests_in_flight=1))
    after = pod_with(model("a", workers=2), model("c", requests_in_flight=7), model("d"), requests_in_flight=7)
    assert difference(before, after) == PodEvent(models=(model("a", workers=2), model("d")), removed=("b",))
    assert difference(after, after) == PodEvent()
    down = pod_with(model("a"), ready=False)
    assert difference(before, down) == PodEvent(pod=down)


async def test_a_stopping_pod_ends_its_watches_cleanly(registry: Registry, tmp_path: Path) -> None:
    """On a stop each listener hears that the pod drains, and its stream ends as it should; the process then ends."""
    async with serving(registry, tmp_path) as pod:
        heard: list[PodEvent] = []

        async def listen() -> None:
            async with (
                httpx.AsyncClient(base_url=pod.url, timeout=20, trust_env=False) as client,
                client.stream("GET", "/watch") as response,
            ):
                async for line in response.aiter_lines():
                    heard.append(PodEvent.model_validate_json(line))  # noqa: PERF401 - seen as they come

        listeners = [asyncio.create_task(listen()) for _ in range(5)]
        await until(lambda: len(heard) >= 5)
        pod.stop.set()
        await asyncio.wait_for(asyncio.gather(*listeners, pod.task), 20)
        drains = [event.pod for event in heard if event.pod is not None and event.pod.draining]
        assert len(drains) == 5
