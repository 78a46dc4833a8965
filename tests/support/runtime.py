"""`marway runtime` as a test starts it: a real TorchServe, asked directly, with no sidecar in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from marway.wire.runtime import (
    LOGS,
    RUNTIME_FILE,
    RUNTIME_SOCKET,
    RuntimeInfo,
    RuntimeWorker,
    RuntimeWorkers,
    read_runtime_info,
    short_path,
)
from support.up import processes_of, wait_until

START_TIMEOUT_S = 120


class Runtime:
    """A running `marway runtime`; used as a context manager it is gone afterwards, whatever happened.

    Args:
        home: Its home; `home/run` is the runtime directory.
        store: The model store, with the archives to register.
        env: Set on top of the environment.
        cgroup: The cgroup that it is put into before it starts anything.
    """

    def __init__(
        self, home: Path, store: Path, env: dict[str, str] | None = None, *, cgroup: Path | None = None
    ) -> None:
        self.home = home
        self.directory = home / "run"
        home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "marway", "runtime", "--home", str(home)]
        command += ["--runtime-dir", str(self.directory), "--model-store", str(store)]
        self.log = home / "runtime.log"
        left = read_runtime_info(self.directory)  # by one that was killed
        self._left = left.boot_id if left is not None else ""
        if cgroup is not None:
            command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup / "cgroup.procs"), *command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        self.client = httpx.Client(timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        try:
            self.wait_ready(other_than=self._left)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait_ready(self, *, other_than: str = "") -> RuntimeInfo:
        """Wait until TorchServe answers, with another boot id than this one."""

        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            info = read_runtime_info(self.directory)
            return info is not None and info.boot_id != other_than

        wait_until(ready, timeout_s=START_TIMEOUT_S, what="TorchServe answers")
        return self.info

    @property
    def info(self) -> RuntimeInfo:
        info = read_runtime_info(self.directory)
        assert info is not None
        return info

    @property
    def announced(self) -> bool:
        return (self.directory / RUNTIME_FILE).exists()

    def register(self, name: str, *, archive: str = "inspect.mar", workers: int = 1) -> None:
        """Register an archive of the store, and wait for its workers."""
        query = {"url": archive, "model_name": name, "initial_workers": workers, "synchronous": "true"}
        answer = self.client.post(f"{self.info.addresses['management']}/models", params=query)
        assert answer.status_code == 200, (answer.text, self.models_log())

    def unregister(self, name: str) -> None:
        answer = self.client.delete(f"{self.info.addresses['management']}/models/{name}")
        assert answer.status_code == 200, answer.text

    def predict(self, name: str, text: str = "about") -> httpx.Response:
        return self.client.post(f"{self.info.addresses['inference']}/predictions/{name}", content=text.encode())

    def ask(self, name: str, text: str = "about") -> Any:
        """Predict, and return the answer of a prediction that must succeed."""
        answer = self.predict(name, text)
        assert answer.status_code == 200, answer.text
        try:
            return answer.json()
        except json.JSONDecodeError:
            return answer.text

    def control(self, method: str, path: str) -> httpx.Response:
        """Ask the runtime's own socket."""
        with (
            short_path(self.directory / RUNTIME_SOCKET) as uds,
            httpx.Client(transport=httpx.HTTPTransport(uds=uds), timeout=30) as client,
        ):
            return client.request(method, f"http://runtime{path}")

    def state(self) -> RuntimeWorkers:
        return RuntimeWorkers.model_validate_json(self.control("GET", "/workers").content)

    def workers(self, name: str) -> list[RuntimeWorker]:
        return [worker for worker in self.state().workers if worker.server_name == name]

    def worker(self, name: str) -> RuntimeWorker:
        (worker,) = self.workers(name)
        return worker

    def metric(self, sample: str) -> float:
        """Return the value of a sample, written as in the exposition; 0 when there is none."""
        for line in self.control("GET", "/metrics").text.splitlines():
            if line.startswith(sample + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def models_log(self) -> str:
        path = self.directory / LOGS / "models.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def part(self, word: str) -> psutil.Process:
        """Return its one process with this word on the command line that is no worker."""
        workers = {worker.pid for worker in self.state().workers}
        (found,) = [p for p in processes_of(self.home) if p.pid not in workers and word in p.info["cmdline"]]
        return found

    @property
    def fork_server(self) -> psutil.Process:
        return self.part("marway_runtime.forkserver")

    def shim(self, worker: RuntimeWorker) -> psutil.Process:
        """Return the process that TorchServe takes for this worker."""
        (found,) = [p for p in processes_of(self.home) if p.info["cmdline"][-2:] == ["--worker", str(worker.pid)]]
        return found

    def processes(self) -> list[psutil.Process]:
        return processes_of(self.home)

    def stop(self) -> int:
        """Stop it as a person would, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def end(self) -> None:
        """End it with all that it started."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        for leftover in processes_of(self.home):
            leftover.kill()
        self.client.close()
