"""The pod contract over real TorchServe: proofs, watch, deletion, and a stop under load."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import httpx
import pytest

from gateway.fakes import free_port
from marway.objects import open_store
from marway.registry import Registry
from marway.wire.pods import LoadReport, ModelStatus, PodEvent
from marway_archiver import publish
from support.up import Up, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
MODELS = Path(__file__).parent / "models"
LAME_DUCK_S, DRAIN_S = 0.5, 5.0
EXIT_LIMIT_S = 20.0
"""What is promised for a pod under load (facts, G6)."""


class OwnPod:
    """A runtime and a sidecar as processes of their own, on the registry of a running `marway up`."""

    def __init__(self, home: Path, up: Up) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = home / "sidecar.log"
        run, store = home / "run", home / "store"
        for directory in (run, store):
            directory.mkdir(parents=True)
        environment = {
            **os.environ,
            "MARWAY_SIDECAR_LAME_DUCK_S": str(LAME_DUCK_S),
            "MARWAY_SIDECAR_DRAIN_TIMEOUT_S": str(DRAIN_S),
        }
        marway = [sys.executable, "-m", "marway"]
        port = self.url.rpartition(":")[2]
        with (home / "runtime.log").open("wb") as log:
            self.runtime = subprocess.Popen(
                [*marway, "runtime", "--runtime-dir", str(run), "--model-store", str(store)], stdout=log, stderr=log
            )
        with self.log.open("wb") as log:
            self.sidecar = subprocess.Popen(
                [
                    *(*marway, "sidecar", "--name", "own", "--port", port, "--registry", up.registry),
                    *("--runtime-dir", str(run), "--archive-store", str(store)),
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )

    def ready(self) -> bool:
        assert self.sidecar.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def end(self) -> None:
        for process in (self.sidecar, self.runtime):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, up: Up) -> Iterator[OwnPod]:
    pod = OwnPod(tmp_path_factory.mktemp("own") / "pod", up)
    try:
        wait_until(pod.ready, timeout_s=120, what="a pod of its own")
        yield pod
    finally:
        pod.end()


@pytest.fixture
def pod(own: OwnPod) -> Iterator[httpx.Client]:
    """A client of that pod's sidecar."""
    with httpx.Client(base_url=own.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("name", ["intent", "digits"])
def test_an_example_is_proved(pod: httpx.Client, name: str) -> None:
    """A pod loads a published example, reproduces every golden answer, and says with what."""
    answer = pod.post(f"/models/{name}/PROD/load", params={"prove": "true"})
    assert answer.status_code == 200, answer.text
    report = LoadReport.model_validate(answer.json())
    assert report.model.state == "ready"
    assert report.differences == ()
    assert report.examples >= 1
    assert report.golden_sha256 is not None
    assert report.server == "torchserve"
    assert report.server_versions["torchserve"].startswith("0.12")
    assert report.server_versions["torch"]


TENSOR_HANDLER = """
import torch

def handle(data, context):
    if data is None:
        return None
    return [torch.tensor([[0.1, 2.0]]) * len(bytes(row["data"])) for row in data]
"""


def test_tensors_are_proved(pod: httpx.Client, up: Up, tmp_path: Path) -> None:
    """A handler that answers with tensors is proved on a pod that has no torch of its own."""
    handler = tmp_path / "tensor_answers.py"
    handler.write_text(TENSOR_HANDLER)
    publish(
        model_name="tensors",
        version="1.0",
        handler=str(handler),
        registry=up.registry,
        examples=[b"one", b"three"],
        label="PROD",
    )
    report = LoadReport.model_validate(pod.post("/models/tensors/1.0/load", params={"prove": "true"}).json())
    assert (report.examples, report.differences) == (2, ())


def test_a_listener_hears_of_a_load_and_a_deletion(own: OwnPod, pod: httpx.Client, up: Up) -> None:
    """A watch tells of a version's way to ready; when it is deleted it is refused, unloaded, and that is told too."""
    publish(model_name="watched", version="1.0", handler=str(MODELS / "probe.py"), registry=up.registry, label=None)
    heard: Queue[PodEvent] = Queue()
    listening = threading.Event()

    def listen() -> None:
        with httpx.stream("GET", f"{own.url}/watch", timeout=60, trust_env=False) as response:
            for line in response.iter_lines():
                heard.put(PodEvent.model_validate_json(line))
                if listening.is_set():
                    return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    states: list[str] = []

    def told(*wanted: str) -> bool:
        while not heard.empty():
            event = heard.get()
            models = (*event.models, *(event.pod.models if event.pod is not None else ()))
            states.extend(model.state for model in models if model.name == "watched")
            states.extend("removed" for _ in event.removed)
        return bool(states) and states[-1] in wanted

    try:
        assert pod.post("/predict/watched/1.0", content=b"hello").status_code == 200
        wait_until(lambda: told("ready"), timeout_s=10, what="the watch says ready")
        assert states.index("ready") > states.index("loading")
        Registry(open_store(up.registry)).delete("watched", "1.0", by="test")
        wait_until(
            lambda: pod.post("/predict/watched/1.0", content=b"hello").status_code == 404,
            timeout_s=10,
            what="the deleted version is refused",
        )
        wait_until(lambda: told("absent", "removed"), timeout_s=30, what="the watch says that it is gone")
    finally:
        listening.set()
        listener.join(10)
    named = {ModelStatus.model_validate(each).name for each in pod.get("/models").json() if each["state"] == "ready"}
    assert "watched" not in named


def test_a_stop_under_load_loses_nobody(own: OwnPod, up: Up) -> None:
    """A sidecar that gets SIGTERM under load finishes what it has, sends the rest elsewhere, and ends in time.

    Clients place again, on another pod, only what was not accepted: refused connections and `not_accepted`.
    """
    elsewhere = up.ready["pods"][0]["url"]
    done: list[float] = []
    moved: list[str] = []
    stop = threading.Event()

    def client() -> None:
        targets = [own.url, elsewhere]
        with httpx.Client(timeout=60, trust_env=False) as http:
            while not stop.is_set():
                url = targets[len(done) % len(targets)]
                answer = None
                with contextlib.suppress(httpx.ConnectError):
                    answer = http.post(f"{url}/predict/intent", content=b"tell me a joke")
                if answer is None or answer.headers["x-marway-outcome"] == "not_accepted":
                    assert url == own.url
                    moved.append(url)
                    targets.remove(own.url)
                    answer = http.post(f"{elsewhere}/predict/intent", content=b"tell me a joke")
                assert (answer.status_code, answer.json()["label"]) == (200, "tell_joke"), answer.text
                done.append(time.monotonic())

    with ThreadPoolExecutor(4) as threads:
        clients = [threads.submit(client) for _ in range(4)]
        try:
            wait_until(lambda: len(done) > 50, timeout_s=60, what="load")
            assert not moved
            own.sidecar.send_signal(signal.SIGTERM)
            started = time.monotonic()
            status = own.sidecar.wait(EXIT_LIMIT_S)
            took_s = time.monotonic() - started
            count = len(done)
            wait_until(
                lambda: len(done) > count + 20 or any(each.done() for each in clients), timeout_s=60, what="load after"
            )
        finally:
            stop.set()
        for each in clients:
            each.result(60)
    assert status == 0, own.log.read_text()
    assert len(moved) >= 1
    assert own.runtime.poll() is None  # whoever started TorchServe stops it
    lines = [json.loads(line) for line in own.log.read_text().splitlines()]
    assert "draining" in [line["message"] for line in lines]
    assert not [line for line in lines if "traceback" in line]
    print(f"the sidecar ended {took_s:.1f} s after SIGTERM, {LAME_DUCK_S} of them as a lame duck")
