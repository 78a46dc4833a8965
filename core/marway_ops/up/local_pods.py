"""Pods as processes: sidecars, and what serves models beside them; started together, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from marway.errors import Unavailable
from marway.process.children import Lifeline, RestartPauses
from marway.wire import problems
from marway_ops.up.home import LOOPBACK, Home, ReservedPort
from marway_ops.up.plan import PlannedPod
from marway_ops.up.process import Child

__all__ = ["LocalPods", "Pod"]

_START_TIMEOUT_S = 150.0
_PROBE_INTERVAL_S = 0.05
# The gateway (6.5 s), sidecars, and runtimes or servers stop one after the other: together under the 20 s that
# `marway up` promises.
_SIDECAR_DRAIN_S, _SIDECAR_STOP_S = 3.0, 4.5
_RUNTIME_STOP_S, _SERVER_STOP_S = 3.0, 5.0
_PATIENT_S = 10.0
"""So long nothing is said of what is not ready yet."""
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
        plan: What each pod is to be.
        config: File of settings that each part is given, or None.
        classes: Where Java's archive of TorchServe's classes is kept, unless a variable says it; None for none at all.
        started: Told of each part, when it is up, and how many seconds it took.
        noticed: Told what a person should know of later, such as a part that died and is started again.
        logs_stay: Whether the home, and the logs in it, are there when all has ended.

    Attributes:
        pods: In the order of ``plan``.
    """

    def __init__(
        self,
        home: Home,
        *,
        registry: str,
        plan: Sequence[PlannedPod],
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
        self._ports = [ReservedPort() for _ in plan]
        self._lifeline = Lifeline()
        self.pods = [
            Pod(each.name, f"http://{LOOPBACK}:{port.number}", each.engine)
            for each, port in zip(plan, self._ports, strict=True)
        ]
        self._sidecars = {
            each.name: self._sidecar(each, port.number) for each, port in zip(plan, self._ports, strict=True)
        }
        self._servers = {each.name: server for each in plan if (server := self._server(each)) is not None}
        self._stages = [[*self._sidecars.values()], [*self._servers.values()]]
        """All processes, in the order in which they stop: what takes requests first."""
        self._answering = [
            {f"{pod.name}: {_WORDS.get(pod.engine, pod.engine)} and sidecar": pod.url for pod in self.pods}
        ]
        """What is waited for at the start, by its URL, one after the other."""
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def _children(self) -> list[Child]:
        return [child for stage in self._stages for child in stage]

    def pids(self, pod: Pod) -> list[int]:
        """Return the process ids of a pod's sidecar and of what was started beside it, of those that run."""
        beside = (children.get(pod.name) for children in (self._sidecars, self._servers))
        return [child.pid for child in beside if child is not None and child.pid is not None]

    def has_server(self, pod: Pod) -> bool:
        """Return whether a pod's model server was started here."""
        return pod.name in self._servers

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
        patient = True
        while reasons:
            for child in self._children:
                if not child.running:
                    raise child.died()
            for what, reason in list(reasons.items()):
                if time.monotonic() - started > _START_TIMEOUT_S:
                    raise Unavailable(f"{what} was not ready within {_START_TIMEOUT_S:.0f} s: {reason}")
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.get(f"{parts[what]}/readyz")
                    reasons[what] = problems.parse_problem(answer.content, status=answer.status_code).message
                    if answer.status_code == httpx.codes.OK:
                        self._started(what, time.monotonic() - started)
                        del reasons[what]
            if patient and time.monotonic() - started > _PATIENT_S:
                patient = False
                for what, reason in reasons.items():
                    self._noticed(f"{what}: not ready yet: {reason}")
            await asyncio.sleep(_PROBE_INTERVAL_S)

    def _server(self, pod: PlannedPod) -> Child | None:
        """Return what serves models in a pod, None where that is not ours to start."""
        if pod.command:
            return Child(
                f"server-{pod.name}",
                pod.command,
                log=self._home.log(f"server-{pod.name}"),
                lifeline=self._lifeline,
                stop_timeout_s=_SERVER_STOP_S,
                environment=pod.environment,
                log_stays=self._logs_stay,
                ours=False,
            )
        if not pod.by_runtime:
            return None
        return self._child(
            f"runtime-{pod.name}",
            [
                *("runtime", "--engine", pod.engine, "--runtime-dir", str(self._home.pod(pod.name))),
                *("--model-store", str(self._home.store)),
            ],
            stop_timeout_s=_SERVER_STOP_S,
            environment=self._of_java() if pod.engine == "torchserve" else {},
        )

    def _of_java(self) -> dict[str, str]:
        """Return what TorchServe is given: time to stop, and one archive of Java's classes for all pods."""
        kept = os.environ.get(_CLASSES_ENV) or self._classes
        shared = os.environ.get(_SHARE_ENV) or "false"
        classes = {_SHARE_ENV: shared} if kept is None else {_CLASSES_ENV: str(kept)}
        return {"MARWAY_RUNTIME_STOP_TIMEOUT_S": str(_RUNTIME_STOP_S), **classes}

    def _sidecar(self, pod: PlannedPod, port: int) -> Child:
        return self._child(
            f"sidecar-{pod.name}",
            [
                *("sidecar", "--backend", pod.engine, "--name", pod.name, "--host", LOOPBACK, "--port", str(port)),
                *("--registry", self._registry, "--runtime-dir", str(self._home.pod(pod.name))),
                *("--archive-store", str(self._home.store)),
            ],
            stop_timeout_s=_SIDECAR_STOP_S,
            # No lame duck: the gateway is gone when sidecars stop, so there is nobody to tell first.
            environment={
                **pod.environment,
                "MARWAY_SIDECAR_DRAIN_TIMEOUT_S": str(_SIDECAR_DRAIN_S),
                "MARWAY_SIDECAR_LAME_DUCK_S": "0",
            },
        )

    def _child(
        self, name: str, arguments: list[str], *, stop_timeout_s: float, environment: Mapping[str, str | None]
    ) -> Child:
        """Return a child that is a verb of `marway`."""
        config = ("--config", str(self._config)) if self._config else ()
        return Child(
            name,
            [sys.executable, "-m", "marway", *arguments, *config, "--home", str(self._home.root)],
            log=self._home.log(name),
            lifeline=self._lifeline,
            stop_timeout_s=stop_timeout_s,
            environment=environment,
            log_stays=self._logs_stay,
        )
