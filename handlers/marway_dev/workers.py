"""Workers of the engine `native` for one handler: the real ones, forked where that can be, without a runtime around.

A new worker is started for each change. Its start is as fast as it is in a pod: the fork server has torch imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from marway.deadline import Deadline
from marway.errors import LoadFailed, RuntimeDown
from marway.wire.envelope import Answer, Row
from marway.wire.model_log import parse_line
from marway.wire.native import ModelState, worker_socket
from marway.wire.runtime import short_path
from marway.worker.environment import handler_environment
from marway_dev.files import VERSION, HandlerFiles, Laid
from marway_runtime.devices import Devices, nvidia_gpus
from marway_runtime.directories import Directories, make_fresh, prepare, remove
from marway_runtime.engines.native.models_log import ModelsLog
from marway_runtime.engines.native.worker_process import Launch, WorkerProcess
from marway_runtime.forkserver.process import ForkServer
from marway_runtime.metrics import Deaths, RuntimeMetrics
from marway_runtime.settings import RuntimeSettings
from marway_runtime.shared_pages import private_bytes
from marway_runtime.worker.names import folder
from marway_runtime.workers import resident_bytes
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.native.connection import WorkerConnection

__all__ = ["LoadedWorker", "Log", "Workers", "opened_workers"]

Log = Callable[[str, str, str | None], None]
"""Told of a level, a text and a traceback, as the worker wrote them."""
_SERVER_NAME: Final = "dev"
_LOAD_TIMEOUT_S: Final = 120.0


class _Output(ModelsLog):
    """Tells of what workers write, instead of writing it into a file."""

    def __init__(self, log: Log) -> None:
        super().__init__(Path())
        self._log = log

    def write(self, prefix: bytes, lines: list[bytes]) -> None:
        for line in lines:
            # As a line of the runtime's log, so that what TorchServe's own code says of its start is left out.
            found = parse_line(f"1970-01-01T00:00:00+00:00{(prefix + line).decode(errors='replace')}")
            if found is not None and found.reason is None:  # why it is not loaded is told by who loads it
                self._log(found.level, found.text, found.traceback)
            elif found is not None and found.traceback is not None:
                self._log(found.level, "", found.traceback)


class LoadedWorker:
    """A worker that has loaded the handler, and the connection to it.

    Attributes:
        load_s: Seconds from the start of its process to a loaded handler.
        memory_bytes: What its process has for itself: without what it shares with the fork server.
        ended: Done when the process has ended.
    """

    def __init__(
        self, worker: WorkerProcess, launch: Launch, laid: Laid, connection: WorkerConnection, load_s: float
    ) -> None:
        self._worker, self._launch, self._laid, self._connection = worker, launch, laid, connection
        self.load_s = load_s
        self.ended = worker.ended

    @property
    def memory_bytes(self) -> int:
        pid = self._worker.process.pid
        with contextlib.suppress(OSError):
            return private_bytes(pid)
        return resident_bytes(pid)

    def answers(self, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Yield the answer to a row, in the pieces that it comes in; errors as `WorkerConnection.stream` has them."""
        return self._connection.stream(row, deadline)

    async def aclose(self) -> None:
        """End it; calls under way fail."""
        self._connection.close(RuntimeDown("the handler was changed during the call: send the request again"))
        await self._worker.aclose()
        self._launch.remove_socket()
        await asyncio.to_thread(shutil.rmtree, self._laid.directory.parent, ignore_errors=True)


class Workers:
    """Starts workers; made by `opened_workers`."""

    def __init__(self, files: HandlerFiles, directories: Directories, fork_socket: Path | None, log: Log) -> None:
        self._files = files
        self._directories = directories
        self._fork_socket = fork_socket
        self._log = log
        self._output = _Output(self._written)
        self._laid_in = directories.temporary
        self._devices = Devices(nvidia_gpus)
        self._numbers = itertools.count()

    def laid(self) -> Laid:
        """Lay the files out as they are now. Blocks; errors as `HandlerFiles.lay` has them."""
        home = self._directories.temporary / f"model-{next(self._numbers)}"
        home.mkdir()
        self._laid_in = home / "model"
        return self._files.lay(self._laid_in)

    async def load(self, laid: Laid, *, call_timeout_s: float) -> LoadedWorker:
        """Start a worker for what was laid out, and return it when it has loaded the handler.

        Raises:
            LoadFailed: The handler does not load, or takes too long.
        """
        began = time.monotonic()
        load_s, answer_s = laid.timeouts_s
        launch = await self._launch(laid, answer_s or call_timeout_s)
        worker = None
        try:
            try:
                async with asyncio.timeout(load_s or _LOAD_TIMEOUT_S):
                    worker = await WorkerProcess.start(launch)
                    failure = await worker.until_ready()
                    if failure is not None:
                        raise LoadFailed(self._files.shown(failure, laid.directory))
                    seconds = time.monotonic() - began
                    connection = await self._connected(launch, laid, answer_s or call_timeout_s)
            except TimeoutError as exc:
                raise LoadFailed(f"loading took longer than {load_s or _LOAD_TIMEOUT_S:g} s (startupTimeout)") from exc
            except OSError as exc:
                raise LoadFailed(f"no worker can be started: {exc}") from exc
        except BaseException:
            if worker is not None:
                await worker.aclose()
            launch.remove_socket()
            await asyncio.to_thread(shutil.rmtree, laid.directory.parent, ignore_errors=True)
            raise
        finally:
            self._devices.take_back(launch.device)
        return LoadedWorker(worker, launch, laid, connection, seconds)

    def _written(self, level: str, text: str, trace: str | None) -> None:
        """Pass on what a worker wrote, with the author's own paths, and of a traceback the author's own frames."""
        shown = self._files.shown(text, self._laid_in)
        self._log(level, shown, None if trace is None else self._files.trimmed(trace, self._laid_in))

    async def _launch(self, laid: Laid, answer_within_s: float) -> Launch:
        number = next(self._numbers)
        directories = self._directories
        device = await self._devices.given_to({"deviceType": laid.device_type}, 0, title=self._files.name)
        environment = handler_environment(directories.temporary) | self._devices.environment(device)
        searched = [str(laid.directory), *filter(None, [environment.get("PYTHONPATH")])]
        return Launch(
            fork_socket=self._fork_socket,
            home=directories.runtime,
            overlay=None,
            environment={**environment, "PYTHONPATH": os.pathsep.join(searched)},
            options={
                "server_name": _SERVER_NAME,
                "model_dir": str(laid.directory),
                "handler": laid.handler,
                "socket": str(worker_socket(directories.short, _SERVER_NAME, number)),
                "pulse": str(laid.directory.parent / "pulse"),
                "gpu": 0 if device is not None else None,
                "calling": laid.calling,
                "answer_within_s": answer_within_s,
                "metrics_config": None,
                "service_envelope": None,
            },
            log=self._output,
            title=f"{_SERVER_NAME}_{VERSION}",
            number=number,
            device=device,
        )

    async def _connected(self, launch: Launch, laid: Laid, answer_within_s: float) -> WorkerConnection:
        name = self._files.name
        model = ServedModel(_SERVER_NAME, name, VERSION, Path(), 1, _LOAD_TIMEOUT_S, answer_within_s)
        state = ModelState(
            version=VERSION,
            workers=1,
            ready_workers=1,
            answer_within_s=answer_within_s,
            calls_per_worker=laid.calling.at_once,
            in_pieces=laid.calling.way == "continuous",
        )
        with short_path(Path(launch.options["socket"])) as short:
            _, connection = await asyncio.get_running_loop().create_unix_connection(
                lambda: WorkerConnection(model, state), short
            )
        await connection.greeted.wait()
        return connection


@asynccontextmanager
async def opened_workers(files: HandlerFiles, home: Path, log: Log) -> AsyncIterator[Workers]:
    """Have what starts workers while the context lasts; nothing of it is left afterwards.

    Args:
        files: The handler's.
        home: An empty directory.
        log: Called with what workers write.
    """
    settings = RuntimeSettings(engine="native", runtime_dir=home, model_store=home / "store")
    directories = await asyncio.to_thread(prepare, home)
    make_fresh(folder(directories.temporary))
    make_fresh(worker_socket(directories.short, "", 0).parent)
    forking: asyncio.Task[None] | None = None
    try:
        fork_socket = None
        if sys.platform == "linux":
            metrics = RuntimeMetrics()
            forks = ForkServer(settings, directories, home=home, metrics=metrics, deaths=Deaths(metrics))
            forking = asyncio.create_task(forks.run(), name="fork-server")
            await forks.settled()
            fork_socket = directories.fork_socket
        yield Workers(files, directories, fork_socket, log)
    finally:
        if forking is not None:
            forking.cancel()
            await asyncio.wait({forking})
        await asyncio.to_thread(remove, directories)
