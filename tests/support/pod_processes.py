"""One pod as two processes, a TorchServe under our runtime and a sidecar, without a gateway."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from marway.wire.runtime import RuntimeInfo, read_runtime_info
from support.up import processes_of, wait_until

__all__ = ["Pod", "gather_answers"]

START_TIMEOUT_S = 120


class Pod:
    """A pod's processes; used as a context manager they are gone afterwards, whatever happened.

    Args:
        home: A directory of its own.
        registry: The registry's directory.
        store: The archive store, which pods may share.
    """

    def __init__(self, home: Path, *, registry: Path, store: Path) -> None:
        self.home = home
        self.runtime_dir = home / "run"
        self.runtime_dir.mkdir(parents=True)
        self._registry = registry
        self._store = store
        self._log = (home / "pod.log").open("w")
        self._runtime: subprocess.Popen[bytes] | None = None
        self._sidecar: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        arguments = ["--runtime-dir", str(self.runtime_dir), "--model-store", str(self._store)]
        self._runtime = self._start("runtime", *arguments)
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._sidecar, self._runtime):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for leftover in processes_of(self.home):
            leftover.kill()
        self._log.close()

    def start_sidecar(self, *, host: str = "127.0.0.1", port: int = 0, **settings: object) -> None:
        """Start a sidecar with these settings and wait until it can serve."""
        seen = len(self.log())
        where = ["--host", host, "--port", str(port)]
        arguments = ["--runtime-dir", str(self.runtime_dir), "--archive-store", str(self._store), *where]
        env = {f"MARWAY_SIDECAR_{name.upper()}": str(value) for name, value in settings.items()}
        self._sidecar = self._start("sidecar", *arguments, "--registry", self._registry.as_uri(), env=env)
        listening = re.compile(r"listens on (http://[\d.]+:\d+)")
        wait_until(lambda: listening.search(self.log(), seen), timeout_s=START_TIMEOUT_S, what="a port")
        found = listening.search(self.log(), seen)
        assert found is not None
        self.url = found.group(1)
        wait_until(self._ready, timeout_s=START_TIMEOUT_S, what=f"a ready pod: {self.log()[-2000:]}")

    def kill_sidecar(self, number: int = signal.SIGKILL) -> None:
        """End the sidecar and leave TorchServe as it is."""
        assert self._sidecar is not None
        self._sidecar.send_signal(number)
        self._sidecar.wait(30)

    def terminate(self, *, sidecar: bool, within_s: float = 60) -> None:
        """Have the sidecar, or else the runtime, stop as the kubelet does; the runtime is to go last."""
        process = self._sidecar if sidecar else self._runtime
        assert process is not None
        process.terminate()
        process.wait(within_s)

    def log(self) -> str:
        """Return what both processes have written."""
        return (self.home / "pod.log").read_text()

    def get(self, path: str) -> Any:
        """Return a JSON answer of the sidecar."""
        return httpx.get(f"{self.url}{path}", timeout=60, trust_env=False).raise_for_status().json()

    def ready_models(self) -> dict[str, dict[str, Any]]:
        """Return what the sidecar says of versions that are loaded, by id."""
        return {model["id"]: model for model in self.get("/models") if model["state"] == "ready"}

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of this name that have these labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=60, trust_env=False).raise_for_status().text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def info(self) -> RuntimeInfo:
        """What the runtime says."""
        found = read_runtime_info(self.runtime_dir)
        assert found is not None
        return found

    def registered(self) -> dict[str, list[int]]:
        """Return TorchServe's own word: its models by name, with the process ids of their workers that are alive."""
        found = {}
        with httpx.Client(base_url=self.info.addresses["management"], timeout=60, trust_env=False) as client:
            names = [model["modelName"] for model in client.get("/models", params={"limit": 1000}).json()["models"]]
            for name in names:
                workers = client.get(f"/models/{name}").json()[0]["workers"]
                found[name] = [worker["pid"] for worker in workers if psutil.pid_exists(worker["pid"])]
        return found

    def unpacked(self) -> int:
        """Return how many archives TorchServe keeps unpacked in its temporary directory."""
        models = (self.runtime_dir / "tmp").resolve() / "t" / "models"
        return len(list(models.iterdir())) if models.exists() else 0

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=10, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _start(self, verb: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "marway", verb, *arguments, "--home", str(self.home)]
        return subprocess.Popen(command, stdout=self._log, stderr=self._log, env={**os.environ, **(env or {})})


async def gather_answers(urls: list[str], *, text: str) -> list[httpx.Response]:
    """Send the text to every url at once and return the answers."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, trust_env=False, limits=limits) as client:
        headers = {"content-type": "text/plain"}
        return list(await asyncio.gather(*[client.post(url, content=text, headers=headers) for url in urls]))
