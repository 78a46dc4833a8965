"""Two pods behind one gateway, of which tests kill, stop and freeze parts."""

from __future__ import annotations

import json

import httpx
import psutil

from marway.objects import open_store
from marway.registry import Registry
from marway.wire.runtime import RUNTIME_SOCKET, RuntimeWorkers, short_path
from support.up import Up, processes_of, wait_until

VERSIONS = ("1.0", "2.0", "3.0")
WAIT_S = 120


class Pod:
    """One pod of the cluster."""

    def __init__(self, up: Up, entry: dict[str, str]) -> None:
        self.name, self.url = entry["name"], entry["url"]
        self.directory = up.home / "pods" / self.name
        self._up = up

    @property
    def model_server(self) -> psutil.Process:
        """The process that its model server ends with: TorchServe's Java, or the runtime where the engine is native."""
        return psutil.Process(json.loads((self.directory / "runtime.json").read_text())["pid"])

    @property
    def fork_server(self) -> psutil.Process:
        """The process that its workers are forked from."""
        return next(each for each in self.runtime.children() if "marway_runtime.forkserver" in each.cmdline())

    def workers(self) -> list[psutil.Process]:
        """Return its workers' processes, as its runtime knows them."""
        with (
            short_path(self.directory / RUNTIME_SOCKET) as uds,
            httpx.Client(transport=httpx.HTTPTransport(uds=uds), timeout=30) as client,
        ):
            found = RuntimeWorkers.model_validate_json(client.get("http://runtime/workers").content)
        return [psutil.Process(worker.pid) for worker in found.workers if psutil.pid_exists(worker.pid)]

    @property
    def sidecar(self) -> psutil.Process:
        return next(
            process
            for process in processes_of(self._up.home)
            if {"sidecar", self.name} <= set(process.info["cmdline"]) and "--port" in process.info["cmdline"]
        )

    @property
    def runtime(self) -> psutil.Process:
        return next(
            process
            for process in processes_of(self._up.home)
            if {"-m", "marway", "runtime", str(self.directory)} <= set(process.info["cmdline"])
        )

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=10, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def has(self, model: str, version: str) -> bool:
        """Whether it has the version ready."""
        try:
            models = httpx.get(f"{self.url}/models", timeout=10, trust_env=False).json()
        except httpx.TransportError:
            return False
        return any((each["name"], each["version"], each["state"]) == (model, version, "ready") for each in models)

    def answers(self, model: str, version: str) -> bool:
        """Whether it answers a prediction of the version by itself, for which it may have to load it."""
        try:
            url = f"{self.url}/predict/{model}/{version}"
            return httpx.post(url, content=b"well", timeout=WAIT_S, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


class Cluster:
    """A running `marway up` with two pods of one engine, and the model `probe` in three versions, served by both."""

    def __init__(self, up: Up, engine: str) -> None:
        self.up = up
        self.engine = engine
        self.pods = [Pod(up, entry) for entry in up.ready["pods"]]
        self.registry = Registry(open_store(up.registry))

    @property
    def url(self) -> str:
        return f"{self.up.gateway}/predict/probe"

    @property
    def gateway(self) -> psutil.Process:
        found = processes_of(self.up.home)
        return next(process for process in found if {"marway", "gateway"} <= set(process.info["cmdline"]))

    @property
    def addresses(self) -> list[str]:
        return [f"{pod.name}={pod.url}" for pod in self.pods]

    def wait_until_well(self) -> None:
        """Wait until the gateway gives requests to both pods and both answer for the version at PROD."""
        version = self.registry.state("probe").labels["PROD"]
        for pod in self.pods:
            wait_until(
                lambda pod=pod: pod.answers("probe", version),
                timeout_s=WAIT_S,
                what=f"{pod.name} answers for the model",
            )
        wait_until(self._both_in_rotation, timeout_s=WAIT_S, what="both pods in rotation")

    def load(self) -> None:
        """Have every version loaded on both pods."""
        for pod in self.pods:
            wait_until(pod.ready, timeout_s=WAIT_S, what=f"{pod.name} ready")
            for version in VERSIONS:
                httpx.post(f"{pod.url}/models/probe/{version}/load", timeout=WAIT_S, trust_env=False).raise_for_status()
        self.wait_until_well()

    def _both_in_rotation(self) -> bool:
        try:
            shown = httpx.get(f"{self.up.ready['admin']}/pods", timeout=30, trust_env=False).json()
        except httpx.TransportError:
            return False
        return all(pod["eligible"] and pod["status"] is not None for pod in shown)
