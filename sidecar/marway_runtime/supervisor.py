"""Keeps one engine (TorchServe, or `native`) and its fork server up, says where they are, and ends them together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from starlette.types import ASGIApp

from marway.errors import RuntimeDown
from marway.process.cgroups import cgroup_room
from marway.process.stop_request import StopRequest
from marway.wire.runtime import RUNTIME_FILE, RuntimeInfo, RuntimeWorkers, TemporaryRoom, write_runtime_info
from marway_runtime.control import served
from marway_runtime.devices import Devices, nvidia_gpus
from marway_runtime.directories import Directories, only_one, prepare, remove, remove_leftovers
from marway_runtime.engines import Engine
from marway_runtime.engines.native.engine import NativeEngine
from marway_runtime.engines.torchserve.class_archive import ClassArchive, class_archive
from marway_runtime.engines.torchserve.server import TorchServe
from marway_runtime.environments.environments import open_environments
from marway_runtime.forkserver.process import ForkServer
from marway_runtime.log_output import LogOutput
from marway_runtime.metrics import Deaths, RuntimeMetrics
from marway_runtime.process_tree import reap_strangers
from marway_runtime.resources import worker_memory
from marway_runtime.settings import RuntimeSettings
from marway_runtime.workers import MemoryGuard, Worker, measured, resident_bytes

__all__ = ["Runtime", "run"]

logger = logging.getLogger(__name__)

_BACKOFF_MAX_S = 30.0
_STABLE_S = 60.0
_REAP_INTERVAL_S = 5.0

Ended = Literal["stopped", "ended", "frozen", "asked"]
"""Why a TorchServe is no more."""


async def run(settings: RuntimeSettings, *, home: Path, stop: StopRequest) -> None:
    """Keep TorchServe up until ``stop`` is set, then stop it with its workers.

    Raises:
        RuntimeDown: It does not come up at all at the first try: the settings or the machine are wrong.
        InvalidSettings: Another runtime holds the runtime directory.
    """
    settings.runtime_dir.mkdir(parents=True, exist_ok=True)
    with only_one(settings.runtime_dir):
        directories = await asyncio.to_thread(prepare, settings.runtime_dir)
        try:
            with LogOutput(directories.logs):
                await Runtime(settings, directories, home=home, stop=stop).run()
        finally:
            await asyncio.to_thread(remove, directories)


class Runtime:
    """One runtime at work; what `runtime.sock` shows.

    Args:
        settings: Its settings.
        directories: Where it works, prepared.
        home: Named on the command line of every process.
        stop: Set when it is to end.
    """

    def __init__(self, settings: RuntimeSettings, directories: Directories, *, home: Path, stop: StopRequest) -> None:
        self._settings = settings
        self._directories = directories
        self._home = home
        self._stop = stop
        self._asked = asyncio.Event()
        self._metrics = RuntimeMetrics()
        self._deaths = Deaths(self._metrics)
        self._devices = Devices(nvidia_gpus)
        self._server: Engine | None = None
        self._answers = False
        forking = settings.fork_workers and sys.platform == "linux"
        forks = partial(ForkServer, settings, directories, home=home, metrics=self._metrics, deaths=self._deaths)
        self._forks = forks() if forking else None
        self.environments = open_environments(settings, directories, forks if forking else None, self._metrics.built)
        java = settings.engine == "torchserve"
        self._classes = class_archive(settings) if java and settings.share_classes else None
        self._answered = asyncio.Event()

    def workers(self) -> RuntimeWorkers:
        """Return all workers with their memory; reads a file for each, so call it in a thread."""
        server = self._server
        if server is None:
            return RuntimeWorkers(deaths=self._deaths.counts())
        self._devices.look()
        native = self._settings.engine == "native"
        found, devices = self._devices.measured(measured(server.workers(), server.worker_names), assigned=native)
        pids = [server.pid, self._forks.pid if self._forks is not None else None, *self.environments.pids()]
        base = sum(resident_bytes(pid) for pid in pids if pid is not None)
        weights = tuple(server.weights())
        deaths = self._deaths.counts()
        return RuntimeWorkers(workers=found, weights=weights, devices=devices, base_bytes=base, deaths=deaths)

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format; reads the process table, so call it in a thread."""
        server = self._server
        return self._metrics.exposed(
            self._find_workers(),
            server.weights() if server is not None else (),
            self.environments.listed().environments,
            engine=(self._settings.engine, self._answers),
            forkserver=self._forks is not None and self._forks.ready,
        )

    def _find_workers(self) -> list[Worker]:
        server = self._server
        return server.workers() if server is not None else []

    def _died_of_memory(self, worker: Worker) -> None:
        server = self._server
        name = ""
        if server is not None:
            with contextlib.suppress(OSError):
                name = (server.worker_names / str(worker.pid)).read_text()
        self._deaths.killed(worker.pid, name, forked=worker.mode == "forked")

    def remove_leftovers(self) -> TemporaryRoom:
        """Remove what loads that failed left in the temporary directory; blocks, so call it in a thread."""
        room = remove_leftovers(self._directories)
        if room.removed:
            logger.warning("removed %d archives that were not unpacked whole from %s", room.removed, room.directory)
        return room

    @property
    def app(self) -> ASGIApp | None:
        """What the socket answers for the engine that there is now."""
        return self._server.app if self._server is not None else None

    def restart(self) -> None:
        """Have the engine stopped and started again, without a pause."""
        self._asked.set()

    async def run(self) -> None:
        """Run until told to stop.

        Raises:
            RuntimeDown: TorchServe does not come up at the first try.
        """
        async with contextlib.AsyncExitStack() as stack:
            background = [asyncio.create_task(self._reap(), name="reap-strangers")]
            if self._classes is not None:
                background.append(asyncio.create_task(self._write_classes(self._classes), name="write-classes"))
            if self._forks is not None:
                background.append(asyncio.create_task(self._forks.run(), name="keep-forkserver"))
            if sys.platform == "linux":
                guard = MemoryGuard(
                    self._find_workers,
                    limit_bytes=worker_memory(self._settings),
                    room=cgroup_room(),
                    died=self._died_of_memory,
                    give_up=lambda: self._server is not None and self._server.give_up_parked(),
                )
                background.append(asyncio.create_task(guard.run(), name="guard-memory"))
            stack.push_async_callback(_cancelled, background)
            stack.push_async_callback(self.environments.aclose)
            await stack.enter_async_context(served(self._settings.runtime_dir, self))
            await self._keep_up()

    async def _keep_up(self) -> None:
        backoff = self._settings.restart_backoff_s
        first = True
        while True:
            started = time.monotonic()
            try:
                why = await self._run_once()
            except RuntimeDown as exc:
                if first:
                    raise
                logger.error("%s", exc.message)
                why = "ended"
            first = False
            if why == "stopped":
                return
            engine = self._settings.engine
            self._metrics.restarts.labels(engine, why).inc()
            if why == "asked":
                logger.info("%s is started again, as asked", engine)
                continue
            if time.monotonic() - started > _STABLE_S:
                backoff = self._settings.restart_backoff_s
            logger.warning("%s %s; starting it again in %.1f s", engine, why, backoff)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), backoff)
                return
            backoff = min(_BACKOFF_MAX_S, backoff * 2)

    async def _run_once(self) -> Ended:
        self._asked.clear()
        self._server = server = self._engine()
        why: Ended = "ended"
        try:
            why = await self._attend(server)
            return why
        finally:
            self._withdraw()  # first: nobody must connect to what is going away
            await server.aclose(gently=why != "frozen")
            await self.environments.clear()
            self._server = None

    def _engine(self) -> Engine:
        settings, directories, environments = self._settings, self._directories, self.environments
        fork_socket = directories.fork_socket if self._forks is not None else None
        common: dict[str, Any] = {"home": self._home, "fork_socket": fork_socket, "environments": environments}
        if settings.engine == "native":
            return NativeEngine(settings, directories, **common, deaths=self._deaths, devices=self._devices)
        return TorchServe(settings, directories, **common, classes=self._classes)

    async def _attend(self, server: Engine) -> Ended:
        """Start it, say where it is while it answers, and return why that is over."""
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        asked = asyncio.create_task(self._asked.wait(), name="restart-asked")
        tasks: list[asyncio.Task[Any]] = [stopped, asked]
        try:
            starting = asyncio.create_task(self._start(server), name="start-torchserve")
            await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                await _cancelled([starting])
                return "stopped"
            info = starting.result()
            self._announce(info)
            ended = asyncio.create_task(_ended(server), name="engine-ended")
            frozen = asyncio.create_task(
                server.until_frozen(info, silent=self._withdraw, back=lambda: self._announce(info)),
                name="probe-engine",
            )
            tasks += [ended, frozen]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            reasons: list[tuple[asyncio.Task[Any], Ended]] = [
                (stopped, "stopped"),
                (ended, "ended"),
                (asked, "asked"),
                (frozen, "frozen"),
            ]
            for task, why in reasons:
                if task in done:
                    task.result()
                    return why
            raise AssertionError("one of them was done")
        finally:
            await _cancelled(tasks)

    async def _start(self, server: Engine) -> RuntimeInfo:
        info = await server.start()
        if self._forks is not None:
            await self._forks.settled()  # so that the first worker is forked too
        return info

    def _announce(self, info: RuntimeInfo) -> None:
        self._answers = True
        self._answered.set()
        write_runtime_info(self._settings.runtime_dir, info)

    def _withdraw(self) -> None:
        self._answers = False
        (self._settings.runtime_dir / RUNTIME_FILE).unlink(missing_ok=True)

    async def _write_classes(self, classes: ClassArchive) -> None:
        """Write the archive of classes where there is none: for later starts, so once this one is over."""
        await self._answered.wait()
        if not classes.path.exists():
            await classes.write(home=self._home)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(_REAP_INTERVAL_S)
            parts = (self._server, self._forks, self._classes)
            ours = [part.pid for part in parts if part is not None and part.pid is not None]
            reap_strangers([*ours, *self.environments.pids()])


async def _ended(server: Engine) -> None:
    await server.wait()


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
