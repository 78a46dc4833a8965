"""Pods of given kinds of model servers, each with its sidecar, behind a gateway; and what a load on it has to show."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from marway.objects import DirectoryStore
from marway.registry import Registry
from support.gateways import GatewayProcess, metric
from support.kinds import Kind
from support.open_loop import OpenLoop, Sample
from support.servers.process import free_ports
from support.torchserve import sidecar
from support.up import wait_until

__all__ = ["KindCluster", "Load", "Pod"]

WAIT_S = 60
LABELS_HOLD_S = 2.0
"""What is promised: how old a label may be anywhere."""


class Pod:
    """A model server and its sidecar."""

    def __init__(self, name: str, kind: Kind, home: Path, registry: str, settings: Mapping[str, object]) -> None:
        self.name = name
        self.kind = kind
        self.home = home
        for directory in ("server", "store", "run"):
            (home / directory).mkdir(parents=True)
        self.server = kind.server(home / "server")
        self._port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self._port}"
        self._registry = registry
        known = {"archive_store": home / "store", "runtime_dir": home / "run", "lame_duck_s": 0.0}
        self._settings = {**known, **settings, **kind.settings(self.server)}
        self._sidecar = contextlib.ExitStack()

    def start(self) -> None:
        self.server.start()
        self.start_sidecar()

    def start_sidecar(self, **settings: object) -> None:
        """Start its sidecar, in the place of one that runs, where it was."""
        self._sidecar.close()
        arguments = ("--backend", self.kind.backend, "--port", str(self._port))
        given = {**self._settings, "name": self.name, **settings}
        self._sidecar.enter_context(sidecar(self.home, self._registry, *arguments, **given))

    def end(self) -> None:
        """End both."""
        self._sidecar.close()
        self.server.kill()

    def ask(self, model: str, version: str) -> str:
        """Ask the pod itself, past the gateway, and return the answer."""
        answer = self._ask(model, version)
        assert answer.status_code == 200, answer.text
        return answer.text

    def answers(self, model: str, version: str) -> bool:
        """Whether it answers a prediction of the version by itself, for which it may have to load it."""
        try:
            answer = self._ask(model, version)
        except httpx.TransportError:
            return False
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200 and self.kind.version_in(answer.text) == version

    def _ask(self, model: str, version: str) -> httpx.Response:
        url = f"{self.url}/predict/{model}/{version}"
        headers = {"content-type": self.kind.content_type}
        return httpx.post(url, content=self.kind.body, headers=headers, timeout=WAIT_S, trust_env=False)

    def metric(self, name: str) -> float:
        """Return the sum of its samples of this name."""
        return metric(self.url, name)

    def models(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return what it says of each version."""
        found = httpx.get(f"{self.url}/models", timeout=30, trust_env=False).raise_for_status().json()
        return {(each["name"], each["version"]): each for each in found}


class KindCluster:
    """Used as a context manager; gone afterwards with all that it started.

    Args:
        home: A directory of its own.
        kinds: One pod each.
        settings: Of every sidecar.
    """

    def __init__(self, home: Path, kinds: Sequence[Kind], **settings: object) -> None:
        self.home = home
        self.registry_url = f"file://{home / 'registry'}"
        self.registry = Registry(DirectoryStore(home / "registry"))
        self.pods: list[Pod] = []
        self._kinds = kinds
        self._settings = settings
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.registry.create()
        with contextlib.ExitStack() as stack, ThreadPoolExecutor() as threads:
            for number, kind in enumerate(self._kinds):
                name = f"pod-{number}"
                pod = Pod(name, kind, self.home / name, self.registry_url, self._settings)
                stack.callback(pod.end)
                self.pods.append(pod)
            list(threads.map(Pod.start, self.pods))
            addresses = [f"{pod.name}={pod.url}" for pod in self.pods]
            gateway = GatewayProcess(self.home / "gateway", registry=self.registry_url, pods=addresses)
            self.gateway = stack.enter_context(gateway)
            self._admin = stack.enter_context(
                httpx.Client(base_url=self.gateway.addresses["admin"], timeout=WAIT_S, trust_env=False)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def admin(self) -> str:
        return str(self.gateway.addresses["admin"])

    def url(self, model: str) -> str:
        return f"{self.gateway.url}/predict/{model}"

    def ask(self, model: str) -> str | None:
        """Ask for what PROD of a model is, and return the version that its answer says."""
        kind = self._kinds[0]
        headers = {"content-type": kind.content_type}
        answer = httpx.post(self.url(model), content=kind.body, headers=headers, timeout=WAIT_S, trust_env=False)
        assert answer.status_code == httpx.codes.OK, answer.text
        return kind.version_in(answer.text)

    def publish(self, model: str, version: str, *, kind: Kind | None = None) -> None:
        """Publish a version for the first pod's kind of server, or another one's."""
        kind = kind or self._kinds[0]
        scratch = self.home / "published" / f"{model}-{version}"
        scratch.mkdir(parents=True)
        kind.publish(self.registry_url, scratch, model, version)

    def release(self, model: str, version: str) -> Any:
        """Release as `marway release` does: a pod loads and proves it first."""
        return self.call("PUT", f"/models/{model}/labels/PROD", json={"version": version})

    def rollback(self, model: str) -> Any:
        return self.call("POST", f"/models/{model}/labels/PROD/rollback")

    def unload(self, model: str, version: str) -> Any:
        """Have every pod evict it."""
        return self.call("POST", f"/models/{model}/versions/{version}/unload")

    def call(self, method: str, path: str, **more: Any) -> Any:
        answer = self._admin.request(method, path, **more)
        assert answer.is_success, answer.text
        return answer.json()

    def asked_first(self, model: str, version: str) -> Pod:
        """Return the pod to which the gateway gives a version's requests first."""
        found = self.call("GET", f"/models/{model}/versions/{version}/pods")["pods"][0]["pod"]
        return next(pod for pod in self.pods if pod.name == found)

    def wait_until_all_answer(self, model: str, version: str) -> None:
        """Wait until every pod answers for a version, and the gateway gives requests to each."""
        for pod in self.pods:
            wait_until(lambda pod=pod: pod.answers(model, version), timeout_s=WAIT_S, what=f"{pod.name} answers")
        self.wait_until_eligible(True, *self.pods)

    def wait_until_eligible(self, wanted: bool, *pods: Pod) -> None:
        """Wait until the gateway gives requests to these pods, or to none of them."""

        def so() -> bool:
            eligible = {each["name"]: each["eligible"] for each in self.call("GET", "/pods")}
            return all(eligible[pod.name] is wanted for pod in pods)

        wait_until(so, timeout_s=WAIT_S, what=f"{[pod.name for pod in pods]} eligible: {wanted}")

    @contextlib.contextmanager
    def load(self, model: str, *, rate: float = 20) -> Iterator[Load]:
        """Ask for what PROD is, steadily, for the length of the block; then nobody may have been failed."""
        kind, url = self._kinds[0], self.url(model)
        sent = {"body": kind.body.decode(), "headers": {"content-type": kind.content_type}}
        with OpenLoop([url], rate=rate, keeps_answers=True, **sent) as loop:
            load = Load(loop)
            yield load
        load.check()


@dataclass
class Load:
    """A load, and when PROD was moved under it."""

    loop: OpenLoop
    moves: list[tuple[float, float, str]] = field(default_factory=list)
    """When a change of PROD began, when it was done, and the version since."""

    def wait_for_more(self, count: int) -> None:
        self.loop.wait_for_more(count)

    def wait_for_version(self, version: str) -> None:
        """Wait for an answer of a version."""
        wait_until(
            lambda: any(sample.version == version for sample in self.loop.samples[-20:]),
            timeout_s=WAIT_S,
            what=f"an answer of {version}",
        )

    @contextlib.contextmanager
    def moving_to(self, version: str) -> Iterator[None]:
        """Note that PROD is moved in this block."""
        began = time.monotonic()
        yield
        self.moves.append((began, time.monotonic(), version))

    @property
    def samples(self) -> list[Sample]:
        return self.loop.samples

    def check(self) -> None:
        """Every request was answered, by the model itself of the version that PROD was at then."""
        assert self.loop.samples
        assert not self.loop.failed, self.loop.failed[:5]
        for sample in self.loop.samples:
            said = Kind.version_in(sample.detail)
            assert said == sample.version, f"{sample.detail} came as an answer of {sample.version}"
            if self.moves:
                assert said in self._may_be(sample), f"{said} at {sample}, moves were {self.moves}"

    def _may_be(self, sample: Sample) -> set[str]:
        """Return the versions that may answer a request: that of the newest move which everybody knew of when it was
        sent, and those of the moves that began before it was answered.
        """
        known = [move for move in self.moves if move[1] + LABELS_HOLD_S < sample.sent_at]
        later = [move for move in self.moves if move not in known and move[0] < sample.done_at]
        return {version for _, _, version in (*known[-1:], *later)}
