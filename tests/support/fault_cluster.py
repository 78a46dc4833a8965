"""Two pods behind one gateway, of which tests kill, stop and freeze parts."""

from __future__ import annotations

import json

import httpx
import psutil

from marway.objects import open_store
from marway.registry import Registry
from support.up import Up, processes_of, wait_until

VERSIONS = ("1.0", "2.0", "3.0")
WAIT_S = 120


class Pod:
    """One pod of the cluster."""

    def __init__(self, up: Up, entry: dict[str, str]) -> None:
        self.name, self.url = entry["name"], entry["url"]
        self._up = up

    @property
    def java(self) -> psutil.Process:
        info = json.loads((self._up.home / "pods" / self.name / "runtime.json").read_text())
        return psutil.Process(info["pid"])

    @property
    def sidecar(self) -> psutil.Process:
        return next(
            process
            for process in processes_of(self._up.home)
            if {"sidecar", self.name} <= set(process.cmdline()) and "--port" in process.cmdline()
        )

    @property
    def runtime(self) -> psutil.Process:
        directory = str(self._up.home / "pods" / self.name)
        return next(
            process
            for process in processes_of(self._up.home)
            if {"-m", "marway", "runtime", directory} <= set(process.cmdline())
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


class Cluster:
    """A running `marway up` with two pods, and the model `probe` in three versions, served by both pods."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self.pods = [Pod(up, entry) for entry in up.ready["pods"]]
        self.registry = Registry(open_store(up.registry))

    @property
    def url(self) -> str:
        return f"{self.up.gateway}/predict/probe"

    @property
    def addresses(self) -> list[str]:
        return [f"{pod.name}={pod.url}" for pod in self.pods]

    def wait_until_well(self) -> None:
        """Wait until the gateway gives requests to both pods and both have the version at PROD ready."""
        version = self.registry.state("probe").labels["PROD"]
        wait_until(self._both_in_rotation, timeout_s=WAIT_S, what="both pods in rotation")
        for pod in self.pods:
            wait_until(lambda pod=pod: pod.has("probe", version), timeout_s=WAIT_S, what=f"{pod.name} has the model")

    def load(self) -> None:
        """Have every version loaded on both pods."""
        for pod in self.pods:
            wait_until(pod.ready, timeout_s=WAIT_S, what=f"{pod.name} ready")
            for version in VERSIONS:
                httpx.post(f"{pod.url}/models/probe/{version}/load", timeout=WAIT_S, trust_env=False).raise_for_status()
        self.wait_until_well()

    def _both_in_rotation(self) -> bool:
        shown = httpx.get(f"{self.up.ready['admin']}/pods", timeout=30, trust_env=False).json()
        return all(pod["eligible"] and pod["status"] is not None for pod in shown)
