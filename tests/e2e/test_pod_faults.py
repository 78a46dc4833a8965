"""The fault matrix's rows that name the pod, over the real parts: two pods behind one gateway.

`docs/faults.md` lists every row with its test, and `tests/docs/test_faults.py` fails when one is missing.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from marway.wire.runtime import RUNTIME_SOCKET, RuntimeWorkers, short_path
from marway_archiver import publish
from support.up import Up, processes_of, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
MODELS = Path(__file__).parent / "models"
LONG_S = 90
QUEUE_LIMIT = 8
"""Requests that wait for one version on one pod: few, so that a flood of a few dozen is one."""


ENGINES = ("torchserve", pytest.param("native", marks=pytest.mark.extended))
OF_TORCHSERVE = pytest.mark.parametrize("up", ["torchserve"], indirect=True)
"""What becomes of TorchServe when it is frozen: its runtime sees that and replaces it."""
OF_NATIVE = pytest.mark.parametrize("up", [pytest.param("native", marks=pytest.mark.extended)], indirect=True)
"""The same for the engine that is a part of its runtime, which nobody replaces when it is frozen."""


@pytest.fixture(scope="module", params=ENGINES)
def up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Two pods of this module's own, which its tests kill, freeze and flood."""
    root = tmp_path_factory.mktemp("faults")
    handlers_home = root / "user"
    handlers_home.mkdir()
    env = {"HOME": str(handlers_home), "MARWAY_SIDECAR_QUEUE_LIMIT": str(QUEUE_LIMIT)}
    with Up(root / "home", "--pods", "2", "--engine", request.param, env=env) as running:
        for name in ("probe", "hold", "slow_start"):
            publish(
                model_name=name.replace("_", "-"),
                version="1.0",
                handler=str(MODELS / f"{name}.py"),
                registry=running.registry,
                label="PROD",
            )
        running.handlers_home = handlers_home  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


class Pod:
    """One pod of a running `marway up`."""

    def __init__(self, up: Up, entry: dict[str, str]) -> None:
        self.name, self.url = entry["name"], entry["url"]
        self.directory = up.home / "pods" / self.name

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=30, trust_env=False)

    def post(self, path: str, body: bytes = b"", **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(f"{self.url}{path}", content=body, headers=sent, timeout=LONG_S, trust_env=False)

    def state(self, model: str) -> dict[str, object] | None:
        """Return what the pod says of a model, or None when it does not know it."""
        return next((each for each in self.get("/models").json() if each["name"] == model), None)

    def has(self, model: str) -> bool:
        state = self.state(model)
        return state is not None and state["state"] == "ready"

    def ready(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def management(self) -> str | None:
        """Where its TorchServe is managed; None when it has none."""
        addresses = json.loads((self.directory / "runtime.json").read_text())["addresses"]
        return str(addresses["management"]) if addresses else None

    @property
    def model_server(self) -> psutil.Process:
        """TorchServe's Java, or the runtime where the engine is native."""
        return psutil.Process(json.loads((self.directory / "runtime.json").read_text())["pid"])

    @property
    def runtime(self) -> psutil.Process:
        return next(
            process
            for process in processes_of(self.directory)
            if {"marway", "runtime", str(self.directory)} <= set(process.info["cmdline"])
        )

    @property
    def unpacked(self) -> list[Path]:
        """Where archives lie unpacked."""
        temporary = (self.directory / "tmp").resolve() / "t"
        models = temporary / "models"
        return list(models.iterdir()) if models.is_dir() else list(temporary.glob("native-*"))

    def workers(self) -> list[psutil.Process]:
        """Return its workers' processes, as its runtime knows them."""
        with (
            short_path(self.directory / RUNTIME_SOCKET) as uds,
            httpx.Client(transport=httpx.HTTPTransport(uds=uds), timeout=30) as client,
        ):
            found = RuntimeWorkers.model_validate_json(client.get("http://runtime/workers").content)
        return [psutil.Process(worker.pid) for worker in found.workers]


def pods(up: Up) -> list[Pod]:
    return [Pod(up, entry) for entry in up.ready["pods"]]


def home_of(up: Up, model: str, body: bytes, **headers: str) -> Pod:
    """Return the pod that answers for a model through the gateway, once all pods are well."""
    wait_until(lambda: all(pod.ready() for pod in pods(up)), timeout_s=LONG_S, what="both pods ready")
    assert ask(up, model, body, **headers).status_code == 200
    return next(pod for pod in pods(up) if pod.has(model))


def ask(up: Up, model: str, body: bytes, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{up.gateway}/predict/{model}", content=body, headers=sent, timeout=LONG_S, trust_env=False)


def held(threads: ThreadPoolExecutor, up: Up, path: Path, **headers: str) -> Future[httpx.Response]:
    """Send a request that is in its handler when this returns, and that ends when ``path`` exists."""
    body = json.dumps({"hold": str(path)}).encode()
    future = threads.submit(ask, up, "hold", body, content_type="application/json", **headers)
    wait_until(reached(path).exists, timeout_s=LONG_S, what="the handler has the request")
    return future


def reached(path: Path) -> Path:
    return path.with_name(f"{path.name}.reached")


def hold_home(up: Up, tmp_path: Path) -> Pod:
    free = tmp_path / "free"
    free.touch()
    return home_of(up, "hold", json.dumps({"hold": str(free)}).encode(), content_type="application/json")


class Load:
    """Clients that ask without a pause and keep every answer that is not right."""

    def __init__(self, up: Up, threads: ThreadPoolExecutor, clients: int = 4) -> None:
        self.answered = 0
        self.wrong: list[str] = []
        self._up = up
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._futures = [threads.submit(self._run) for _ in range(clients)]

    def _run(self) -> None:
        with httpx.Client(timeout=LONG_S, trust_env=False) as client:
            while not self._stop.is_set():
                answer = client.post(f"{self._up.gateway}/predict/probe", content=b"hello")
                with self._lock:
                    self.answered += 1
                    if answer.status_code != 200 or answer.json()["value"] != "hello":
                        self.wrong.append(f"{answer.status_code} {answer.text[:300]}")

    def wait_for_more(self, count: int) -> None:
        """Wait until ``count`` further requests were answered."""
        goal = self.answered + count
        wait_until(lambda: self.answered >= goal, timeout_s=LONG_S, what=f"{count} more answers")

    def end(self) -> None:
        self._stop.set()
        for future in self._futures:
            future.result(LONG_S)


def test_fault_model_server_dies(up: Up, threads: ThreadPoolExecutor) -> None:
    """kill -9 of a model server under load: nobody notices, the pod steps back, starts it again and serves again."""
    pod = home_of(up, "probe", b"hello")
    model_server = pod.model_server
    load = Load(up, threads)
    try:
        load.wait_for_more(20)
        model_server.kill()
        wait_until(lambda: not pod.ready(), timeout_s=LONG_S, what="the pod says that it is not ready")
        load.wait_for_more(20)
        wait_until(pod.ready, timeout_s=LONG_S, what="the model server is up again")
        load.wait_for_more(20)
    finally:
        load.end()
    assert load.wrong == []
    assert pod.model_server.pid != model_server.pid
    assert pod.post("/predict/probe", b"hello").json()["value"] == "hello"


def test_fault_debris_after_a_crash(up: Up) -> None:
    """What a killed model server left (unpacked archives, sockets, key file, workers) is gone when the next answers."""
    pod = home_of(up, "probe", b"hello")
    model_server = pod.model_server
    workers = [*model_server.children(recursive=True), *pod.workers()]
    temporary = (pod.directory / "tmp").resolve() / "t"
    key_file = pod.directory / "work" / "key_file.json"
    key_file.write_text("left over")
    # What is there under the same name afterwards may be new: the next one's socket, for instance.
    unpacked = {path: _made(path) for path in (*pod.unpacked, *(pod.directory / "sockets").glob("*"))}
    assert unpacked
    mark = temporary / "left-over"
    mark.touch()
    model_server.kill()
    wait_until(lambda: not pod.ready(), timeout_s=LONG_S, what="the pod says that it is not ready")
    wait_until(pod.ready, timeout_s=LONG_S, what="the model server is up again")
    assert not mark.exists()
    assert [path for path, made in unpacked.items() if _made(path) == made] == []
    assert not key_file.exists() or key_file.read_text() != "left over"
    wait_until(lambda: not any(worker.is_running() for worker in workers), timeout_s=LONG_S, what="old workers gone")


def _made(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from a later one of the same name."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_ctime_ns


@pytest.mark.extended  # tests/runtime/test_faults.py freezes one
@OF_TORCHSERVE
def test_fault_torchserve_frozen(up: Up) -> None:
    """A TorchServe that is stopped (SIGSTOP) is found out, taken out of rotation and replaced."""
    pod = home_of(up, "probe", b"hello")
    java = pod.model_server
    java.suspend()
    try:
        wait_until(lambda: not pod.ready(), timeout_s=LONG_S, what="the frozen pod says that it is not ready")
        for _ in range(5):
            assert ask(up, "probe", b"hello").status_code == 200
        wait_until(pod.ready, timeout_s=LONG_S, what="another TorchServe is up")
        assert pod.model_server.pid != java.pid
    finally:
        if java.is_running():
            java.send_signal(signal.SIGCONT)
    assert pod.post("/predict/probe", b"hello").status_code == 200


@OF_NATIVE
def test_fault_native_runtime_frozen(up: Up) -> None:
    """A runtime that is stopped (SIGSTOP) takes its pod out of rotation; it goes on with all that was loaded."""
    pod = home_of(up, "probe", b"hello")
    runtime, workers = pod.runtime, pod.workers()
    runtime.suspend()
    try:
        wait_until(lambda: not pod.ready(), timeout_s=LONG_S, what="the frozen pod says that it is not ready")
        for _ in range(5):
            assert ask(up, "probe", b"hello").status_code == 200
    finally:
        runtime.resume()
    wait_until(pod.ready, timeout_s=LONG_S, what="the pod is ready again")
    assert pod.post("/predict/probe", b"hello").status_code == 200
    assert pod.workers() == workers


def test_fault_runtime_hangs_and_model_server_dies(up: Up) -> None:
    """A pod whose runtime is stopped (SIGSTOP), and cannot tell what died below it, finds out and is not ready.

    Below it is TorchServe, or, where the runtime is the engine itself, the model's worker.
    """
    pod = home_of(up, "probe", b"hello")
    runtime, below = pod.runtime, [pod.model_server]
    if below == [runtime]:
        below = pod.workers()
    runtime.suspend()
    try:
        for process in below:
            process.kill()
        wait_until(lambda: not pod.ready(), timeout_s=5, what="the pod says that it is not ready")
        assert (pod.directory / "runtime.json").exists()
        assert "does not answer" in pod.get("/readyz").json()["detail"]
        for _ in range(5):
            assert ask(up, "probe", b"hello").status_code == 200
    finally:
        runtime.resume()
    wait_until(pod.ready, timeout_s=LONG_S, what="the pod is ready again")
    assert pod.post("/predict/probe", b"hello").status_code == 200


def test_fault_worker_dies(up: Up, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    """A request whose worker is killed under it is answered by another worker."""
    hold_home(up, tmp_path)
    path = tmp_path / "go"
    request = held(threads, up, path)
    psutil.Process(int(reached(path).read_text())).kill()
    wait_until(lambda: len(reached(path).read_text().split()) == 2, timeout_s=LONG_S, what="another worker has it")
    path.touch()
    answer = request.result(LONG_S)
    assert answer.status_code == 200, answer.text
    assert answer.json()["pid"] == int(reached(path).read_text().split()[1])


def test_fault_worker_hangs(up: Up, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    """A handler that never answers costs its caller no more than the deadline, and other models nothing."""
    hold_home(up, tmp_path)
    path = tmp_path / "go"
    request = held(threads, up, path, x_request_timeout_ms="3000")
    assert ask(up, "probe", b"hello").status_code == 200
    late = request.result(LONG_S)
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    path.touch()
    again = tmp_path / "again"
    again.touch()
    body = json.dumps({"hold": str(again)}).encode()
    assert ask(up, "hold", body, content_type="application/json").status_code == 200


def test_fault_queue_full(up: Up, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    """A flood of one model is cut with 429 and `Retry-After` at our own limit; what was let in is answered, and other
    models notice nothing."""
    pod = hold_home(up, tmp_path)
    path = tmp_path / "go"
    inside = held(threads, up, path)
    body = json.dumps({"hold": str(path)}).encode()

    def flood() -> httpx.Response:
        return pod.post("/predict/hold/1.0", body, content_type="application/json")

    with ThreadPoolExecutor(40) as crowd:
        answers = [crowd.submit(flood) for _ in range(40)]
        wait_until(lambda: any(each.done() for each in answers), timeout_s=LONG_S, what="one was refused")
        state = state_of(pod, "hold")
        assert int(str(state["requests_queued"])) <= QUEUE_LIMIT
        assert ask(up, "probe", b"hello").status_code == 200
        path.touch()
        found = [each.result(LONG_S) for each in answers]
    refused = [each for each in found if each.status_code != 200]
    assert refused
    assert {(each.status_code, each.json()["code"], each.headers["x-marway-outcome"]) for each in refused} == {
        (429, "overloaded", "not_accepted")
    }
    assert all(int(each.headers["retry-after"]) >= 1 for each in refused)
    assert len(found) - len(refused) >= QUEUE_LIMIT
    assert inside.result(LONG_S).status_code == 200
    if (management := pod.management) is not None:
        described = httpx.get(f"{management}/models/{state['id']}", trust_env=False).json()[0]
        assert described["jobQueueStatus"]["pendingRequests"] == 0


def state_of(pod: Pod, model: str) -> dict[str, object]:
    state = pod.state(model)
    assert state is not None
    return state


def test_fault_client_gives_up(up: Up, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    """A client that goes away leaves its slot taken until the work ends; whoever comes next is answered after it."""
    pod = hold_home(up, tmp_path)
    path = tmp_path / "go"
    body = json.dumps({"hold": str(path)}).encode()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{pod.url}/predict/hold/1.0",
            content=body,
            headers={"content-type": "application/json"},
            timeout=httpx.Timeout(LONG_S, read=1.0),
            trust_env=False,
        )
    assert reached(path).exists()
    state = pod.state("hold")
    assert state is not None
    assert (state["state"], state["requests_in_flight"]) == ("ready", 1)
    free = tmp_path / "next"
    free.touch()
    following = threads.submit(
        pod.post, "/predict/hold/1.0", json.dumps({"hold": str(free)}).encode(), content_type="application/json"
    )
    assert pod.post("/predict/probe/1.0", b"hello").status_code == 200
    path.touch()
    assert following.result(LONG_S).status_code == 200
    wait_until(
        lambda: (pod.state("hold") or {}).get("requests_in_flight") == 0, timeout_s=LONG_S, what="the slot is free"
    )


def test_fault_evict_with_work_in_flight(up: Up, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    """A version that is unloaded under a request answers it first, and is loaded again for the next."""
    hold_home(up, tmp_path)
    path = tmp_path / "go"
    request = held(threads, up, path)
    pod = next(each for each in pods(up) if (each.state("hold") or {}).get("requests_in_flight"))
    unload = threads.submit(pod.post, "/models/hold/1.0/unload")
    wait_until(
        lambda: (pod.state("hold") or {}).get("state") == "draining", timeout_s=LONG_S, what="the version drains"
    )
    assert not request.done()
    path.touch()
    assert request.result(LONG_S).status_code == 200
    assert unload.result(LONG_S).status_code == 200
    state = pod.state("hold")
    assert state is None or (state["state"], state["workers"]) == ("absent", 0)
    assert hold_home(up, tmp_path).has("hold")


def test_fault_sidecar_dies_before_register(up: Up, threads: ThreadPoolExecutor) -> None:
    """A sidecar killed in the middle of a load leaves nothing that its successor cannot set right."""
    wait_until(lambda: all(pod.ready() for pod in pods(up)), timeout_s=LONG_S, what="both pods ready")
    pod = pods(up)[0]
    may_go_on = up.handlers_home / "slow-start-may-go-on"  # type: ignore[attr-defined]
    first = threads.submit(pod.post, "/predict/slow-start/1.0", b"hello")
    wait_until(reached(may_go_on).exists, timeout_s=LONG_S, what="the worker is loading")
    sidecar = next(
        process
        for process in processes_of(up.home)
        if {"sidecar", pod.name} <= set(process.info["cmdline"]) and "--port" in process.info["cmdline"]
    )
    sidecar.kill()
    sidecar.wait(10)
    with pytest.raises(httpx.TransportError):
        first.result(LONG_S)
    may_go_on.touch()
    wait_until(pod.ready, timeout_s=LONG_S, what="the next sidecar")
    assert pod.post("/predict/slow-start/1.0", b"hello").text == "up"
    state = pod.state("slow-start")
    assert state is not None
    if (management := pod.management) is not None:
        registered = httpx.get(f"{management}/models", params={"limit": 1000}, trust_env=False).json()["models"]
        assert [each["modelName"] for each in registered].count(str(state["id"])) == 1
