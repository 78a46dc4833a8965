"""The model pool over real TorchServe: cold crowds, many models in little memory, changes under load."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from marway.deadline import Deadline
from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.runtime import RUNTIME_FILE
from marway_archiver import pack
from marway_sidecar.backends.torchserve import TorchServeAdapter
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.threads import Threads
from support.pod_processes import Pod, gather_answers
from support.pools import PoolRoom, predict
from support.registry import publish, until
from support.up import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
LONG = os.environ.get("MARWAY_TEST_LONG") == "1"
MODELS, LOADED, SECONDS = (200, 10, 180.0) if LONG else (24, 4, 15.0)
CLIENTS = 8
PROBE = Path(__file__).parent / "models" / "probe.py"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[VersionRecord]]:
    """A registry directory with so many models, each with an archive of its own."""
    directory = tmp_path_factory.mktemp("published")
    registry = Registry(DirectoryStore(directory / "registry"))
    records = []
    for number in range(MODELS):
        name = f"m{number}"
        (directory / "which.txt").write_text(name)
        pack(
            model_name=name,
            version="1.0",
            handler=str(PROBE),
            extra_files=str(directory / "which.txt"),
            export_path=directory,
        )
        serving = ServingSettings(max_workers=1)
        data = (directory / f"{name}.mar").read_bytes()
        records.append(publish(registry, directory, name, "1.0", data=data, serving=serving))
    return directory / "registry", records


@pytest.fixture
def pod(tmp_path: Path, published: tuple[Path, list[VersionRecord]]) -> Iterator[Pod]:
    """A pod with TorchServe up and no sidecar yet."""
    with Pod(tmp_path / "pod", registry=published[0], store=tmp_path / "pod" / "store") as started:
        yield started


def worker_bytes(pod: Pod) -> int:
    """Return what one loaded version was measured to take, once it was: a real size, and no longer the reservation."""
    (reserved,) = {model["memory_bytes"] for model in pod.ready_models().values()}

    def measured() -> set[int]:
        return {model["memory_bytes"] for model in pod.ready_models().values()} - {reserved}

    if reserved > 160 << 20:  # still the guess
        wait_until(measured, timeout_s=60, what="a measurement by the runtime")
    size = max(model["memory_bytes"] for model in pod.ready_models().values())
    assert size > 2 << 20, "a Python worker takes more: nothing was measured"
    return size


def check_agreement(pod: Pod) -> None:
    """Wait until TorchServe's models, live workers and unpacked archives are those that the sidecar says are loaded."""

    def agrees() -> bool:
        loaded = pod.ready_models()
        registered = pod.registered()
        return (
            set(registered) == set(loaded)
            and all(len(registered[name]) == loaded[name]["workers"] for name in loaded)
            and pod.unpacked() == len(loaded)
            and pod.metric("marway_runtime_workers") == sum(model["workers"] for model in loaded.values())
        )

    wait_until(agrees, timeout_s=60, what="sidecar and TorchServe agree on what is loaded")


@pytest.mark.extended  # tests/sidecar/lifecycle/test_pool*.py, with a model server of the tests' own
def test_fifty_cold_requests_through_two_pods(tmp_path: Path, published: tuple[Path, list[VersionRecord]]) -> None:
    """Fifty cold requests through two sidecars on one store make one download, one registration in each TorchServe,
    and fifty right answers."""
    registry, records = published
    store = tmp_path / "store"
    with (
        Pod(tmp_path / "one", registry=registry, store=store) as one,
        Pod(tmp_path / "two", registry=registry, store=store) as two,
    ):
        pods = (one, two)
        for pod in pods:
            pod.start_sidecar()
        urls = [f"{pods[number % 2].url}/predict/m0" for number in range(50)]
        answers = asyncio.run(gather_answers(urls, text="hello"))
        assert [answer.status_code for answer in answers] == [200] * 50, answers[0].text
        assert all(answer.json()["value"] == "hello" for answer in answers)
        assert {answer.headers["x-model-id"] for answer in answers} == {records[0].id}
        assert sum(pod.metric("marway_sidecar_archive_fetches_total", outcome="ok") for pod in pods) == 1
        for pod in pods:
            assert pod.metric("marway_sidecar_model_loads_total", outcome="ok") == 1
            assert pod.metric("marway_sidecar_model_loads_total") == 1
            assert pod.unpacked() == 1  # a second registration would have left a second one
            check_agreement(pod)


@pytest.mark.extended  # tests/sidecar/memory/test_pool_memory.py
def test_many_models_in_the_memory_of_a_few(pod: Pod, published: tuple[Path, list[VersionRecord]]) -> None:
    """Random requests from eight clients to many more models than fit all succeed, what is loaded stays within the
    budget, and at the end workers and temporary directories are those of what is loaded."""
    records = published[1]
    pod.start_sidecar()
    asyncio.run(gather_answers([f"{pod.url}/predict/m0"], text="measure me"))
    budget = int(worker_bytes(pod) * LOADED * 1.1)
    pod.kill_sidecar()  # what it leaves is reconciled by the next
    pod.start_sidecar(memory_budget_bytes=budget)
    seen: list[tuple[float, float]] = []
    asked = asyncio.run(_random_requests(pod, records, seen))
    assert asked >= MODELS
    assert seen
    # No load is granted beyond the budget (test_pool_properties.py). A running worker may be measured larger than it
    # was when its load was granted; then an idle version goes, so that such samples are few and little over.
    over = [used for used, _ in seen if used > budget]
    assert max(over, default=0) <= budget * 1.05
    assert len(over) <= len(seen) / 10
    assert {limit for _, limit in seen} == {budget}
    assert pod.metric("marway_sidecar_model_evictions_total", reason="memory") > 0
    assert pod.metric("marway_sidecar_model_loads_total", outcome="ok") == pod.metric(
        "marway_sidecar_model_loads_total"
    )
    ready = pod.ready_models().values()
    assert sum(model["memory_bytes"] for model in ready) <= budget
    assert len(ready) < 2 * LOADED  # about as many as the budget was made for: not all workers take the same
    check_agreement(pod)
    print(f"\n{asked} requests, {pod.metric('marway_sidecar_model_loads_total'):.0f} loads, budget {budget >> 20} MiB")


async def _random_requests(pod: Pod, records: list[VersionRecord], seen: list[tuple[float, float]]) -> int:
    """Ask random models until the time is over and every model was asked; return how many requests there were."""
    ends = time.monotonic() + SECONDS
    order = random.Random(4)
    # Every model is asked at least once, so that there are more loads than places; the rest is chance.
    turns = order.sample(records, len(records))
    asked = 0
    sampling = asyncio.Event()

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal asked
        while turns or time.monotonic() < ends:
            record = turns.pop() if turns else order.choice(records)
            answer = await http.post(
                f"{pod.url}/predict/{record.name}", content=record.name, headers={"content-type": "text/plain"}
            )
            assert answer.status_code == 200, answer.text
            assert answer.json()["value"] == record.name
            assert answer.headers["x-model-id"] == record.id
            asked += 1

    async def sample() -> None:
        while not sampling.is_set():
            used, limit = await asyncio.gather(
                asyncio.to_thread(pod.metric, "marway_sidecar_memory_bytes"),
                asyncio.to_thread(pod.metric, "marway_sidecar_memory_budget_bytes"),
            )
            seen.append((used, limit))
            await asyncio.sleep(0.1)

    async with httpx.AsyncClient(timeout=120, trust_env=False) as http:
        sampler = asyncio.create_task(sample())
        try:
            await asyncio.gather(*[client(http) for _ in range(CLIENTS)])
        finally:
            sampling.set()
            await sampler
    return asked


@pytest.mark.extended  # tests/sidecar/lifecycle/test_pool*.py, with a model server of the tests' own
async def test_changes_under_load_lose_nobody(pod: Pod, published: tuple[Path, list[VersionRecord]]) -> None:
    """Versions that are scaled up, unloaded and scaled down under load answer every request: nobody hangs, nobody
    fails. (Evictions under load are the test above.)"""
    wait_until(lambda: (pod.runtime_dir / RUNTIME_FILE).exists(), timeout_s=120, what="TorchServe is up")
    threads, registry = Threads(4), Registry(DirectoryStore(published[0]))
    room = PoolRoom(pod.home, registry, threads)
    adapter = TorchServeAdapter(pod.info, runtime_dir=pod.runtime_dir)
    # `store` is what the room's pools fetch to, and TorchServe reads from.
    pool = room.pool(runtime_dir=pod.runtime_dir, worker_base_bytes=160 << 20, scale_down_s=1.0)
    pool.attach(adapter)
    first, second = published[1][:2]
    two = ServingSettings(max_workers=2, max_batch_rows=1)
    answered: Counter[str] = Counter()
    ended = asyncio.Event()

    async def client(record: VersionRecord, serving: ServingSettings) -> None:
        while not ended.is_set():
            await predict(pool, record, serving, timeout_s=60)
            answered[record.name] += 1

    try:
        clients = [asyncio.create_task(client(first, two)) for _ in range(6)]
        clients.append(asyncio.create_task(client(second, ServingSettings(max_workers=1))))
        await until(lambda: _workers(pool, first) == 2, within_s=120)  # up, under load
        for _ in range(3):
            before = answered[second.name]
            assert (await pool.unload(second.id, Deadline.after(60))).state == "absent"
            await until(lambda before=before: answered[second.name] > before + 5, within_s=120)
        for idle in clients[1:6]:
            idle.cancel()
        await asyncio.gather(*clients[1:6], return_exceptions=True)
        await until(lambda: _workers(pool, first) == 1, within_s=120)  # down, under load
        ended.set()
        await asyncio.wait_for(asyncio.gather(clients[0], *clients[6:]), 120)
    finally:
        ended.set()
        await room.aclose()
        await adapter.aclose()
        threads.close()
    assert min(answered.values()) > 5


def _workers(pool: ModelPool, record: VersionRecord) -> int:
    status = pool.status_of(record.id)
    return status.workers if status is not None else 0
