"""Pods (runtime and sidecar), and a gateway before them, as processes: started together, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from marway.errors import Unavailable
from marway.process.children import Lifeline, RestartPauses
from marway_ops.up.home import LOOPBACK, Home, ReservedPort, reserve
from marway_ops.up.process import Child

__all__ = ["LocalCluster", "LocalPods", "Pod"]

_START_TIMEOUT_S = 150.0
_PROBE_INTERVAL_S = 0.05
# Gateway, sidecars and runtimes stop one after the other: together under the 20 s that `marway up` promises.
_GATEWAY_DRAIN_S, _GATEWAY_STOP_S = 5.0, 6.5
_SIDECAR_DRAIN_S, _SIDECAR_STOP_S = 3.0, 4.5
_RUNTIME_STOP_S, _RUNTIME_KILL_S = 3.0, 5.0
_WORDS = {"torchserve": "TorchServe", "native": "native engine"}
_CLASSES_ENV, _SHARE_ENV = "MARWAY_RUNTIME_CLASS_ARCHIVES", "MARWAY_RUNTIME_SHARE_CLASSES"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod: its name, the URL of its sidecar, and what serves models in it."""

    name: str
    url: str
    engine: str


class LocalPods:
    """Pods on this machine's loopback.

    Args:
        home: Where everything is kept.
        registry: Its URL.
        engines: The engine of each pod.
        config: File of settings that each part is given, or None.
        classes: Where Java's archive of TorchServe's classes is kept, unless a variable says it; None for none at all.
        started: Told of each part, when it is up, and how many seconds it took.
        noticed: Told what a person should know of later, such as a part that died and is started again.
        logs_stay: Whether the home, and the logs in it, are there when all has ended.

    Attributes:
        pods: In the order of ``engines``.
    """

    def __init__(
        self,
        home: Home,
        *,
        registry: str,
        engines: Sequence[str],
        config: Path | None = None,
        classes: Path | None,
        started: Callable[[str, float], None],
        noticed: Callable[[str], None],
        logs_stay: bool = True,
    ) -> None:
        self._home = home
        self._logs_stay = logs_stay
        self._registry = registry
        self._config = config
        self._classes = classes
        self._started = started
        self._noticed = noticed
        self._ports = [ReservedPort() for _ in engines]
        numbers = [port.number for port in self._ports]
        self.pods = [
            Pod(f"pod-{index}", f"http://{LOOPBACK}:{number}", engine)
            for index, (number, engine) in enumerate(zip(numbers, engines, strict=True))
        ]
        self._lifeline = Lifeline()
        self._runtimes = [self._runtime(pod) for pod in self.pods]
        self._sidecars = [self._sidecar(pod, number) for pod, number in zip(self.pods, numbers, strict=True)]
        self._stages = [self._sidecars, self._runtimes]
        """All processes, in the order in which they stop: what takes requests first."""
        self._answering = [{f"{pod.name}: {_WORDS[pod.engine]} and sidecar": pod.url for pod in self.pods}]
        """What is waited for at the start, by its URL, one after the other."""
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def _children(self) -> list[Child]:
        return [child for stage in self._stages for child in stage]

    def pids(self, pod: Pod) -> list[int]:
        """Return the process ids of a pod's sidecar and runtime, of those that run."""
        place = self.pods.index(pod)
        found = (child.pid for child in (self._sidecars[place], self._runtimes[place]))
        return [pid for pid in found if pid is not None]

    async def start(self) -> None:
        """Start everything and return when all of it says that it can serve.

        Raises:
            MarwayError: A part ended while starting; its last words are in the message.
            Unavailable: It took too long.
        """
        for child in reversed(self._children):
            await child.start()
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
            for parts in self._answering:
                await self._until_ready(client, parts)
        self._keepers = [asyncio.create_task(self._keep(child), name=f"keep {child.name}") for child in self._children]

    async def aclose(self) -> None:
        """Stop everything, what takes requests first; safe at any moment, and twice."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        try:
            for stage in self._stages:
                await asyncio.gather(*(child.stop() for child in stage))
        finally:
            self._lifeline.close()
            for port in self._ports:
                port.close()

    def kill(self) -> None:
        """End every process at once; their own children follow within a second."""
        for child in self._children:
            child.kill()

    async def _keep(self, child: Child) -> None:
        """Start a child again whenever it ends: at once, or with growing pauses while it keeps ending."""
        pauses = RestartPauses()
        while True:
            since = time.monotonic()
            status = await child.wait()
            pause = pauses.after(time.monotonic() - since)
            when = f"in {pause:g} s" if pause else "at once"
            self._noticed(f"{child.name} ended with status {status}; starting it again {when}")
            await asyncio.sleep(pause)
            await child.start()

    async def _until_ready(self, client: httpx.AsyncClient, parts: dict[str, str]) -> None:
        """Wait until each of the parts, by their URLs, says that it is ready, and no child has ended."""
        started = time.monotonic()
        reasons = dict.fromkeys(parts, "it did not answer")
        while reasons:
            for child in self._children:
                if not child.running:
                    raise child.died()
            for what, reason in list(reasons.items()):
                if time.monotonic() - started > _START_TIMEOUT_S:
                    raise Unavailable(f"{what} was not ready within {_START_TIMEOUT_S:.0f} s: {reason}")
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.get(f"{parts[what]}/readyz")
                    reasons[what] = answer.text[:300]
                    if answer.status_code == httpx.codes.OK:
                        self._started(what, time.monotonic() - started)
                        del reasons[what]
            await asyncio.sleep(_PROBE_INTERVAL_S)

    def _runtime(self, pod: Pod) -> Child:
        return self._child(
            f"runtime-{pod.name}",
            [
                *("runtime", "--engine", pod.engine, "--runtime-dir", str(self._home.pod(pod.name))),
                *("--model-store", str(self._home.store)),
            ],
            stop_timeout_s=_RUNTIME_KILL_S,
            environment=self._of_java() if pod.engine == "torchserve" else {},
        )

    def _of_java(self) -> dict[str, str]:
        """Return what TorchServe is given: time to stop, and one archive of Java's classes for all pods."""
        kept = os.environ.get(_CLASSES_ENV) or self._classes
        shared = os.environ.get(_SHARE_ENV) or "false"
        classes = {_SHARE_ENV: shared} if kept is None else {_CLASSES_ENV: str(kept)}
        return {"MARWAY_RUNTIME_STOP_TIMEOUT_S": str(_RUNTIME_STOP_S), **classes}

    def _sidecar(self, pod: Pod, port: int) -> Child:
        return self._child(
            f"sidecar-{pod.name}",
            [
                *("sidecar", "--backend", pod.engine, "--name", pod.name, "--host", LOOPBACK, "--port", str(port)),
                *("--registry", self._registry, "--runtime-dir", str(self._home.pod(pod.name))),
                *("--archive-store", str(self._home.store)),
            ],
            stop_timeout_s=_SIDECAR_STOP_S,
            # No lame duck: the gateway is gone when sidecars stop, so there is nobody to tell first.
            environment={"MARWAY_SIDECAR_DRAIN_TIMEOUT_S": str(_SIDECAR_DRAIN_S), "MARWAY_SIDECAR_LAME_DUCK_S": "0"},
        )

    def _child(self, name: str, arguments: list[str], *, stop_timeout_s: float, environment: dict[str, str]) -> Child:
        return Child(
            name,
            [*arguments, *(("--config", str(self._config)) if self._config else ()), "--home", str(self._home.root)],
            log=self._home.log(name),
            lifeline=self._lifeline,
            stop_timeout_s=stop_timeout_s,
            environment=environment,
            log_stays=self._logs_stay,
        )


class LocalCluster(LocalPods):
    """Pods and a gateway before them.

    Args:
        home: As `LocalPods` takes it, like all that is not named here.
        port: The gateway's; the next two are the admin's and gRPC's. 0 takes free ones.

    Raises:
        InvalidSettings: A port is taken.
    """

    def __init__(
        self,
        home: Home,
        *,
        registry: str,
        port: int,
        engines: Sequence[str],
        config: Path | None = None,
        started: Callable[[str, float], None],
        noticed: Callable[[str], None],
    ) -> None:
        ports = reserve(port, 3)
        super().__init__(
            home, registry=registry, engines=engines, config=config, classes=home.java, started=started, noticed=noticed
        )
        self._ports += ports
        gateway, admin, grpc = (each.number for each in ports)
        self.gateway_url, self.admin_url = f"http://{LOOPBACK}:{gateway}", f"http://{LOOPBACK}:{admin}"
        self._grpc_address = f"{LOOPBACK}:{grpc}"
        self._stages.insert(0, [self._gateway_child(gateway, admin, grpc)])
        self._answering.append({"gateway": self.gateway_url})

    def ready_line(self) -> dict[str, Any]:
        """Return the document that says that the system can serve, and where."""
        return {
            "event": "ready",
            "gateway": self.gateway_url,
            "admin": self.admin_url,
            "grpc": self._grpc_address,
            "registry": self._registry,
            "pods": [{"name": pod.name, "url": pod.url} for pod in self.pods],
        }

    def _gateway_child(self, port: int, admin: int, grpc: int) -> Child:
        return self._child(
            "gateway",
            [
                *("gateway", "--registry", self._registry, "--host", LOOPBACK),
                *("--port", str(port), "--admin-port", str(admin), "--grpc-port", str(grpc)),
                *("--pods", ",".join(f"{pod.name}={pod.url}" for pod in self.pods)),
            ],
            stop_timeout_s=_GATEWAY_STOP_S,
            # No lame duck: there is no other gateway that clients could hear of.
            environment={"MARWAY_GATEWAY_DRAIN_TIMEOUT_S": str(_GATEWAY_DRAIN_S), "MARWAY_GATEWAY_LAME_DUCK_S": "0"},
        )
