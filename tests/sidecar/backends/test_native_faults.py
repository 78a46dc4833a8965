"""Rows of docs/faults.md that name a worker, on the engine `native`: a runtime of the tests' own, and its backend."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from marway.errors import Unavailable
from marway_sidecar.backends.base import ServedModel, WorkerDied
from sidecar.backends.test_native import Pod, workers_of
from support.registry import until
from support.torchserve import OurTorchServe, archive, served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]
LIMIT = 512 << 20
HANDLER = """
import os, subprocess, sys, time
kept = []
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
DAEMON = f"import subprocess; print(subprocess.Popen({SLEEP!r}, stdout=subprocess.DEVNULL).pid)"

def answer(asked):
    verb, _, rest = asked.partition(" ")
    if verb in ("eat", "starve"):
        kept.append(b"x" * (int(rest) << 20))
    if verb == "starve":
        time.sleep(600)  # until it is killed: it may have all of it between two looks of the guard
    if verb == "exit":
        os._exit(3)
    if verb == "session":
        return subprocess.Popen(SLEEP, start_new_session=True).pid
    if verb == "daemon":
        parent = [sys.executable, "-c", DAEMON]
        return int(subprocess.run(parent, start_new_session=True, stdout=subprocess.PIPE).stdout)
    return os.getpid()

def handle(data, context):
    return [str(answer(row["data"])) for row in data] if data is not None else None
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OurTorchServe]:
    home = tmp_path_factory.mktemp("native")
    with OurTorchServe(home, engine="native", worker_memory_bytes=LIMIT) as running:
        yield running


@pytest.fixture
async def pod(runtime: OurTorchServe) -> AsyncIterator[Pod]:
    found = Pod(runtime)
    yield found
    for name in (await found.server.status()).server_names:
        await found.server.unload(served(Path(name), name, server_name=name))
    await found.server.aclose()


async def ask(pod: Pod, model: ServedModel, said: str) -> int:
    return int((await pod.say(model, said)).body)


async def test_fault_a_greedy_worker(pod: Pod) -> None:
    """A worker over its limit of memory is killed and started again; the runtime and other models' workers are not."""
    greedy, other = await pod.load(HANDLER), await pod.load(HANDLER)
    first, beside = await ask(pod, greedy, "eat 64"), await ask(pod, other, "pid")
    with pytest.raises(WorkerDied):
        await ask(pod, greedy, "starve 2048")
    assert await ask(pod, greedy, "pid") != first
    await until(lambda: not psutil.pid_exists(first))
    assert await ask(pod, other, "pid") == beside
    deaths = [each for each in (await pod.server.status()).deaths if each.server_name == greedy.server_name]
    assert [(each.reason, each.count) for each in deaths] == [("memory", 1)]
    assert Path(f"/proc/{beside}/oom_score_adj").read_text().strip() == "1000"  # the kernel takes workers first, too


@pytest.mark.parametrize("kind", ["session", "daemon"])
@pytest.mark.parametrize("how", ["unloaded", "killed", "exits"])
async def test_fault_children_in_a_session_of_their_own(pod: Pod, kind: str, how: str) -> None:
    """What a handler started ends with its worker, however that ends, in a session of its own or with no parent."""
    model = await pod.load(HANDLER)
    worker = await pod.worker(model)
    child = await ask(pod, model, kind)
    assert os.getsid(child) != os.getsid(worker.pid)
    assert psutil.pid_exists(child)
    match how:
        case "unloaded":
            await pod.server.unload(model)
        case "killed":
            os.kill(worker.pid, signal.SIGKILL)
        case "exits":
            with pytest.raises(WorkerDied):
                await ask(pod, model, "exit")
    await until(lambda: not psutil.pid_exists(child))
    if how != "unloaded":
        assert await ask(pod, model, "pid") != worker.pid


async def test_fault_archive_lies_about_workers(pod: Pod) -> None:
    """An archive that asks for more workers than its version may have gets what it is given."""
    model = await pod.load(HANDLER, config="minWorkers: 3\nmaxWorkers: 3\n", max_workers=2)
    assert (await pod.worker(model)).mode == "forked"
    assert (await pod.server.scale(model, 2)).workers == 2


async def test_fault_worker_that_keeps_dying(pod: Pod) -> None:
    """A worker that dies with every call is started again each time, and its version stays loaded."""
    model = await pod.load(HANDLER)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await ask(pod, model, "exit")
    description = await pod.server.describe(model)
    assert description is not None
    assert description.workers == 1
    assert await ask(pod, model, "pid")


class Harm:
    """Does one thing after the other to a version whose workers share their weights, while it is asked."""

    def __init__(self, pod: Pod, model: ServedModel, *, seconds: float) -> None:
        self.right = 0
        self._pod = pod
        self._model = model
        self._ends_at = time.monotonic() + seconds
        self._choices = random.Random()

    async def run(self) -> None:
        await asyncio.gather(self._harm(), *(self._ask(caller) for caller in range(12)))

    async def _ask(self, caller: int) -> None:
        number = 0
        while time.monotonic() < self._ends_at:
            number += 1
            said = b"%d of %d " % (number, caller) * self._choices.choice((1, 3000, 200_000))
            call = asyncio.ensure_future(self._pod.say(self._model, said, within_s=60))
            if self._choices.random() < 0.1:
                await asyncio.sleep(self._choices.random() / 100)
                call.cancel()
            await asyncio.wait({call})
            if call.cancelled():
                continue
            if (error := call.exception()) is None:
                assert call.result().body == said
                self.right += 1
            else:
                assert isinstance(error, Unavailable), error  # what another pod is asked after
                await asyncio.sleep(0.01)

    async def _harm(self) -> None:
        kinds = (self._kill, self._kill_parent, self._freeze, self._scale, self._load_again, self._leave_a_load)
        while time.monotonic() < self._ends_at:
            await asyncio.sleep(self._choices.random() / 2)
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                await self._choices.choice(kinds)()

    async def _worker(self) -> psutil.Process:
        live = await workers_of(self._pod, self._model)
        if not live:
            raise ProcessLookupError
        return psutil.Process(self._choices.choice(live).pid)

    async def _kill(self) -> None:
        (await self._worker()).kill()

    async def _kill_parent(self) -> None:
        parent = (await self._worker()).parent()
        if parent is not None and parent.name() == "marway-worker":  # and not the fork server
            parent.kill()

    async def _freeze(self) -> None:
        worker = await self._worker()
        worker.suspend()
        await asyncio.sleep(self._choices.random())
        worker.resume()

    async def _scale(self) -> None:
        await self._pod.server.scale(self._model, self._choices.choice((1, 2, 3)))

    async def _load_again(self) -> None:
        await self._pod.server.unload(self._model)
        await self._pod.server.load(self._model)

    async def _leave_a_load(self) -> None:
        await self._pod.server.unload(self._model)
        loading = asyncio.ensure_future(self._pod.server.load(self._model))
        await asyncio.sleep(self._choices.random() / 2)
        loading.cancel()
        await asyncio.wait({loading})
        await self._pod.server.load(self._model)


@pytest.mark.extended  # test_native.py kills workers and leaves calls in `make test`
async def test_fault_random_harm(pod: Pod) -> None:
    """Kills, freezes, scaling, loads and calls that are left mix up no answer, and nothing stays behind."""
    source = HANDLER.replace('[str(answer(row["data"])) for row in data]', '[bytes(row["data"]) for row in data]')
    path = archive(pod.runtime.store, "harmed", source)
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("w.pt", bytes(1000) + os.urandom(40 << 20))  # as large as weights that are shared
    model = served(path, "harmed", workers=2, golden=True, max_workers=4)
    await pod.server.load(model)
    harm = Harm(pod, model, seconds=20)
    await harm.run()
    assert harm.right > 20
    await pod.server.unload(model)
    runtime, directory = psutil.Process(pod.runtime.info.pid), pod.runtime.runtime_dir
    await until(lambda: len(runtime.children(recursive=True)) == 1)  # the fork server
    assert [*(directory / "tmp" / "t").glob("native-*"), *(directory / "sockets").iterdir()] == []
