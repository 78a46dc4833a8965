"""The engine `native`: keeps the versions that the sidecar asked for; its workers answer the sidecar themselves."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from marway import __version__
from marway.environments.lock import this_target
from marway.errors import InvalidInput, LoadFailed, Unavailable
from marway.refs import new_ulid
from marway.wire import envelope
from marway.wire.native import ENGINE, FRAME_BYTES_MAX, LoadRequest, ModelState, worker_socket
from marway.wire.runtime import KeptWeights, RuntimeInfo
from marway.worker.environment import handler_environment
from marway_runtime.devices import Devices
from marway_runtime.directories import Directories, make_fresh
from marway_runtime.engines.native.model import LoadedModel
from marway_runtime.engines.native.models_log import ModelsLog
from marway_runtime.engines.native.routes import create_router
from marway_runtime.engines.native.unpacking import Unpacked, unpack
from marway_runtime.engines.native.worker_process import Launch, WorkerProcess
from marway_runtime.environments.environments import Environments
from marway_runtime.metrics import Deaths
from marway_runtime.resources import cpu_count, memory_limit
from marway_runtime.settings import RuntimeSettings
from marway_runtime.worker.names import folder
from marway_runtime.workers import Worker

__all__ = ["NativeEngine"]

logger = logging.getLogger(__name__)

_SERVER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_OF_JAVA: Final = (
    "class_archives", "frozen_timeout_s", "grpc_inference_port", "grpc_management_port", "heap_bytes", "host",
    "inference_port", "java_options", "job_queue_size", "management_port", "max_request_bytes", "metrics_port",
    "probe_interval_s", "probe_timeout_s", "share_classes", "stop_timeout_s",
)  # fmt: skip
"""Settings that are about TorchServe's front end, which is not there."""


class NativeEngine:
    """Versions and their workers. `start` it once; a new start takes a new object.

    Args:
        settings: The runtime's settings.
        directories: Where it works; its own parts of them are emptied before and after.
        home: Named on the command lines of workers that are started plain.
        fork_socket: Where the fork server listens; None starts each worker as a Python of its own.
        deaths: Told of the workers that died and that the fork server does not know.
        environments: What versions are in that require what this Python does not have.
        devices: The GPUs that workers are spread over.
    """

    pid = None
    """It is a part of the runtime's own process."""

    def __init__(
        self,
        settings: RuntimeSettings,
        directories: Directories,
        *,
        home: Path,
        fork_socket: Path | None,
        deaths: Deaths,
        environments: Environments,
        devices: Devices,
    ) -> None:
        self._settings = settings
        self._directories = directories
        self._home = home
        self._fork_socket = fork_socket
        self._deaths = deaths
        self._environments = environments
        self._devices = devices
        self._log = ModelsLog(directories.logs)
        self._models: dict[str, LoadedModel] = {}
        # A version has one lock while anybody has it or waits for it: taken out sooner, it would let two in at once.
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._started = 0
        self._closed = False
        self.boot_id = new_ulid()
        self.app = create_router(self)
        self.worker_names = folder(directories.temporary)

    async def start(self) -> RuntimeInfo:
        """Make ready to load versions, and return what the sidecar is told."""
        settings, directories = self._settings, self._directories
        unused = sorted(settings.model_fields_set.intersection(_OF_JAVA))
        if unused:
            logger.warning("the engine native has no use for these settings: %s", ", ".join(unused))
        settings.model_store.mkdir(parents=True, exist_ok=True)
        for emptied in (self._sockets, directories.work, directories.temporary, self.worker_names):
            await asyncio.to_thread(make_fresh, emptied)
        return RuntimeInfo(
            engine=ENGINE,
            boot_id=self.boot_id,
            pid=os.getpid(),
            model_store=settings.model_store,
            envelope=envelope.VERSION,
            max_request_bytes=FRAME_BYTES_MAX,
            memory_limit_bytes=memory_limit(settings),
            cpus=cpu_count(),
            environments_for=str(this_target()),
            control_socket=True,
            versions={
                "marway": __version__,
                ENGINE: __version__,
                "torchserve": version("torchserve"),
                "torch": version("torch"),
                "python": ".".join(map(str, sys.version_info[:3])),
            },
        )

    async def wait(self) -> int:
        """Return never: it ends when the runtime does."""
        never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        return await never

    async def until_frozen(self, info: RuntimeInfo, *, silent: Callable[[], None], back: Callable[[], None]) -> None:
        """Return never: whoever would ask is who would have to answer."""
        await self.wait()

    async def aclose(self, *, gently: bool = True) -> None:
        """End all workers and remove what they had; safe to call twice."""
        self._closed = True
        models, self._models = list(self._models.values()), {}
        await asyncio.gather(*(model.aclose() for model in models))
        self._log.close()
        for emptied in (self._sockets, self._directories.work, self._directories.temporary):
            await asyncio.to_thread(make_fresh, emptied)

    def workers(self) -> list[Worker]:
        """Return all workers that live, in the order of their pids."""
        found = [worker for model in list(self._models.values()) for worker in model.workers()]
        return sorted(found, key=lambda worker: worker.pid)

    def weights(self) -> list[KeptWeights]:
        """Return the processes that versions' workers are forked from."""
        return [kept for model in list(self._models.values()) if (kept := model.weights()) is not None]

    def give_up_parked(self) -> bool:
        """Let go of the weights of the version that has been parked longest; return whether there was one."""
        parked = [each for each in self._models.values() if each.parked]
        if parked:
            longest = min(parked, key=lambda model: model.parked_at)
            logger.warning("the weights of %s, which has no workers, are given up: memory is short", longest.title)
            longest.give_up_weights()
        return bool(parked)

    def server_names(self) -> tuple[str, ...]:
        """Return the names of all versions that are loaded."""
        return tuple(self._models)

    def describe(self, server_name: str) -> ModelState | None:
        """Return what a version has, or None when it is not loaded."""
        model = self._models.get(server_name)
        return model.state if model is not None else None

    async def load(self, server_name: str, request: LoadRequest) -> ModelState:
        """Load a version, and return once its workers are ready; one that is loaded and ready stays.

        Raises:
            LoadFailed: It cannot be loaded; nothing of it stays.
            Unavailable: The disk has no room for its archive.
            InvalidInput: The name, or that of the archive, is none.
        """
        if not _SERVER_NAME.fullmatch(server_name) or Path(request.archive).name != request.archive:
            raise InvalidInput(f"no version can have the name {server_name!r}, or no archive {request.archive!r}")
        async with self._changing.setdefault(server_name, asyncio.Lock()):
            there = self._models.get(server_name)
            if there is not None and there.request.version == request.version and there.state.ready_workers:
                return there.state
            await self._remove(server_name)
            await self._environments.start_forks(server_name)
            title = f"{request.name} {request.version}"
            archive = self._settings.model_store / request.archive
            unpacked = await asyncio.to_thread(
                unpack, archive, self._directories.temporary, title, sequences=request.sequences
            )
            if self._closed:
                await asyncio.to_thread(shutil.rmtree, unpacked.directory, ignore_errors=True)
                raise Unavailable("the runtime is being stopped")
            model = LoadedModel(
                server_name,
                request,
                unpacked,
                self._launch,
                self._died,
                lambda launch: self._devices.take_back(launch.device),
                pause_s=self._settings.restart_backoff_s,
                share_weights=self._may_share(request, unpacked),
            )
            self._models[server_name] = model  # from now on its workers are seen, and watched for their memory
            try:
                if unpacked.version != request.version:
                    raise LoadFailed(f"the archive of {title} says another version in its manifest: pack it again")
                await model.scale(request.workers)
            except BaseException:
                self._models.pop(server_name, None)
                await model.aclose()
                raise
            return model.state

    async def scale(self, server_name: str, workers: int) -> ModelState | None:
        """Set the number of a version's workers, and return what it then has once they are ready; None: not loaded.

        Raises:
            LoadFailed: One does not come up; there are as many as before.
        """
        async with self._changing.setdefault(server_name, asyncio.Lock()):
            model = self._models.get(server_name)
            if model is None:
                return None
            await model.scale(workers)
            return model.state

    async def unload(self, server_name: str) -> None:
        """Remove a version, whatever its workers do; one that is not loaded is no error."""
        async with self._changing.setdefault(server_name, asyncio.Lock()):
            await self._remove(server_name)
            self._environments.leave(server_name)

    async def _remove(self, server_name: str) -> None:
        model = self._models.pop(server_name, None)
        if model is not None:
            await model.aclose()

    def _may_share(self, request: LoadRequest, unpacked: Unpacked) -> bool:
        least = self._settings.share_weights_from_bytes
        if unpacked.calling.way == "async":
            return False  # an event loop is no part of a process that may be forked
        may = request.share_weights and self._fork_socket is not None and not self._devices.used_by(unpacked.config)
        return may and least is not None and unpacked.size_bytes >= least

    def _died(self, process: WorkerProcess, server_name: str) -> None:
        status = process.ended.result()
        told = status not in (None, 0, -signal.SIGKILL) if process.process.mode == "plain" else process.shares
        if told and status:  # the fork server tells of its own, the memory guard of those that it kills
            self._deaths.ended(process.process.pid, status, server_name)

    async def _launch(self, server_name: str, request: LoadRequest, unpacked: Unpacked, number: int) -> Launch:
        settings, directories = self._settings, self._directories
        device = await self._devices.given_to(unpacked.config, unpacked.size_bytes, title=request.name)
        self._started += 1
        environment = handler_environment(directories.temporary, allowed=settings.handler_environment)
        environment |= self._devices.environment(device)
        overlay = self._environments.overlay(server_name)
        before = [str(overlay)] if overlay is not None else []
        searched = [str(unpacked.model_dir), *before, *filter(None, [environment.get("PYTHONPATH")])]
        return Launch(
            fork_socket=self._fork_socket if overlay is None else self._environments.fork_socket(server_name),
            home=self._home,
            overlay=overlay,
            environment={**environment, "PYTHONPATH": os.pathsep.join(searched)},
            options={
                "server_name": server_name,
                "model_dir": str(unpacked.model_dir),
                "handler": unpacked.handler,
                "socket": str(worker_socket(directories.runtime, server_name, number)),
                "pulse": str(unpacked.directory / f"pulse-{number}"),
                "gpu": 0 if device is not None else None,
                "calling": unpacked.calling,
                "answer_within_s": unpacked.seconds("responseTimeout", request.predict_timeout_s),
                "metrics_config": str(settings.metrics_config.absolute()) if settings.metrics_config else None,
                "service_envelope": settings.service_envelope,
            },
            log=self._log,
            title=f"{server_name}_{request.version}",
            number=self._started,
            device=device,
        )

    @property
    def _sockets(self) -> Path:
        return worker_socket(self._directories.runtime, "", 0).parent
