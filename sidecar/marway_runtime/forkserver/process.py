"""The fork server as the runtime sees it: a process that is started, kept up with growing pauses, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

from marway.worker.environment import handler_environment
from marway_runtime.directories import Directories
from marway_runtime.metrics import Deaths, RuntimeMetrics
from marway_runtime.settings import RuntimeSettings

__all__ = ["ForkServer"]

logger = logging.getLogger(__name__)

_BACKOFF_MAX_S = 30.0
_STABLE_S = 60.0
_STOP_TIMEOUT_S = 5.0


class ForkServer:
    """Keeps a fork server up while `run` runs; ``home`` is on its command line, and so on those of its workers.

    It listens at ``socket``, and has the environment ``overlay`` in front of what this Python has, if one is given.
    """

    def __init__(
        self,
        settings: RuntimeSettings,
        directories: Directories,
        *,
        home: Path,
        metrics: RuntimeMetrics,
        deaths: Deaths,
        socket: Path | None = None,
        overlay: Path | None = None,
    ) -> None:
        self._settings = settings
        self._directories = directories
        self._home = home
        self._metrics = metrics
        self._deaths = deaths
        self._socket = socket or directories.fork_socket
        self._overlay = overlay
        self._process: asyncio.subprocess.Process | None = None
        self._settled = asyncio.Event()
        self.ready = False

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def settled(self) -> None:
        """Wait until it is ready for the first time, or has failed to be."""
        await self._settled.wait()

    async def run(self) -> None:
        """Keep it up until cancelled; then it is gone, with all its workers."""
        backoff = self._settings.restart_backoff_s
        try:
            while True:
                started = time.monotonic()
                try:
                    await self._run_once()
                except OSError as exc:
                    logger.error("the fork server cannot be started: %s", exc)
                self._settled.set()
                if time.monotonic() - started > _STABLE_S:
                    backoff = self._settings.restart_backoff_s
                logger.warning(
                    "the fork server ended (its log: %s); workers start plain until it is up again, in %.1f s at best",
                    self._log,
                    backoff,
                )
                self._metrics.restarts.labels("forkserver", "ended").inc()
                await asyncio.sleep(backoff)
                backoff = min(_BACKOFF_MAX_S, backoff * 2)
        finally:
            await self._stop()

    @property
    def _log(self) -> Path:
        return self._directories.logs / "forkserver.log"

    async def _run_once(self) -> None:
        started = time.monotonic()
        self._socket.unlink(missing_ok=True)  # a shim must not knock at a dead one's door
        command = [sys.executable, "-P", "-m", "marway_runtime.forkserver", "--home", str(self._home)]
        command += ["--socket", str(self._socket), "--parent", str(os.getpid())]
        if self._overlay is not None:
            command += ["--overlay", str(self._overlay)]
        command += ["--preload", *self._settings.preload]
        with self._log.open("ab") as log:
            self._process = process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self._directories.short,  # the others are emptied under it
                # OpenBLAS starts its threads when numpy is imported; a fork must find only one.
                env={**handler_environment(self._directories.short), "OPENBLAS_NUM_THREADS": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
            process.kill()
        if line == b"ready\n":
            self.ready = True
            logger.info("the fork server is ready after %.1f s (pid %d)", time.monotonic() - started, process.pid)
            self._settled.set()
            async for line in process.stdout:
                self._died(line)
        await process.wait()
        self.ready = False

    def _died(self, line: bytes) -> None:
        try:
            pid, status, name = line.decode().rstrip("\n").split(" ", 2)
            self._deaths.ended(int(pid), int(status), name)
        except ValueError:
            logger.warning("the fork server said %r", line[:200])

    async def _stop(self) -> None:
        process = self._process
        self.ready = False
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()  # it takes its workers along
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
