"""The native engine's changes to one version."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from marway.wire import envelope
from marway.wire.native import LoadRequest, worker_socket
from marway_http.frames import HEADER, Kind, frame_header
from marway_runtime.devices import Devices, Gpu
from marway_runtime.directories import Directories, prepare, remove
from marway_runtime.engines.native.engine import NativeEngine
from marway_runtime.environments.environments import open_environments
from marway_runtime.metrics import Deaths, RuntimeMetrics
from marway_runtime.settings import RuntimeSettings
from support.torchserve import archive


async def test_changes_of_a_version_never_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes when one change has just ended, and another that waited for it has begun, waits for that one."""
    settings = RuntimeSettings(flags={"runtime_dir": tmp_path / "run", "model_store": tmp_path / "store"})  # type: ignore[call-arg]
    directories = Directories(tmp_path / "run", tmp_path / "short")
    engine = NativeEngine(
        settings,
        directories,
        home=tmp_path,
        fork_socket=None,
        deaths=Deaths(RuntimeMetrics()),
        devices=Devices(list),
        environments=open_environments(settings, directories, None, lambda outcome, seconds: None),
    )
    turns: asyncio.Queue[asyncio.Event] = asyncio.Queue()
    inside = []

    async def removed(server_name: str) -> None:
        inside.append(server_name)
        assert inside == [server_name]
        turn = asyncio.Event()
        turns.put_nowait(turn)
        await turn.wait()
        inside.remove(server_name)

    monkeypatch.setattr(engine, "_remove", removed)
    first, second = (asyncio.create_task(engine.unload("m")) for _ in range(2))
    (await turns.get()).set()
    await first
    second_turn = await turns.get()
    third = asyncio.create_task(engine.unload("m"))
    await asyncio.sleep(0)
    assert turns.empty()  # it waits for the second
    assert not third.done()
    second_turn.set()
    (await turns.get()).set()
    await asyncio.gather(second, third)


HANDLER = """
import json, os

def handle(data, context):
    gpu = context.system_properties["gpu_id"]
    return [json.dumps([gpu, os.environ["CUDA_VISIBLE_DEVICES"]])] * len(data) if data is not None else None
"""


async def answers(socket_of: Path) -> list[object]:
    """Ask the worker at a socket for what its handler sees."""
    reader, writer = await asyncio.open_unix_connection(str(socket_of))
    try:
        body = b"".join(envelope.row_pieces([envelope.Row("r", [envelope.Part("data", b"x")])]))
        writer.write(frame_header(Kind.REQUEST, 1, body=len(body)) + body)
        while True:
            size, _, _, _, kind = HEADER.unpack(await reader.readexactly(HEADER.size))
            payload = await reader.readexactly(size)
            if kind == Kind.ANSWER:
                (answer,) = envelope.decode_answers(payload)
                found: list[object] = json.loads(answer.body)
                return found
    finally:
        writer.close()


# Three workers that import torch each: tests/runtime/test_devices.py has which device and what environment.
@pytest.mark.e2e
@pytest.mark.extended
async def test_each_worker_sees_its_own_device_alone(tmp_path: Path) -> None:
    """Workers are spread over the devices; each finds the one that it was given as number 0, before its handler runs.

    No test has a GPU: the devices are a list.
    """
    settings = RuntimeSettings(flags={"runtime_dir": tmp_path / "run", "model_store": tmp_path / "store"})  # type: ignore[call-arg]
    for directory in (settings.runtime_dir, settings.model_store):
        directory.mkdir()
    directories = prepare(settings.runtime_dir)
    gpus = [Gpu("GPU-a", "H200", 100 << 30, 60 << 30), Gpu("GPU-b", "H200", 100 << 30, 60 << 30)]
    devices = Devices(lambda: gpus)
    deaths = Deaths(RuntimeMetrics())
    engine = NativeEngine(
        settings,
        directories,
        home=tmp_path,
        fork_socket=None,
        deaths=deaths,
        devices=devices,
        environments=open_environments(settings, directories, None, lambda outcome, seconds: None),
    )
    await engine.start()
    try:
        seen = []
        for name, config in (("m", None), ("cpu", "deviceType: cpu\n")):
            path = archive(settings.model_store, name, HANDLER, config=config)
            request = LoadRequest(
                name=name, version="1.0", archive=path.name, workers=2 if config is None else 1, load_timeout_s=60,
                predict_timeout_s=60,
            )  # fmt: skip
            state = await engine.load(name, request)
            sockets = [worker_socket(directories.runtime, name, number) for number in range(state.workers)]
            seen += [await answers(each) for each in sockets]
        assert sorted(map(str, seen)) == ["[0, 'GPU-a']", "[0, 'GPU-b']", "[None, '']"]
        assert sorted(str(worker.device) for worker in engine.workers()) == ["0", "1", "None"]
        await engine.unload("m")
        assert [devices.give(0).index for _ in range(2)] == [0, 1]  # what had been given is free again
    finally:
        await engine.aclose()
        remove(directories)
