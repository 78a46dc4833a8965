"""Keeps one TorchServe up: starts it again when it dies, with growing pauses, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from marway.errors import InvalidSettings, RuntimeDown
from marway.lifecycle import StopRequest
from marway.wire.runtime import RUNTIME_FILE, write_runtime_info
from marway_runtime.server import TorchServe
from marway_runtime.settings import RuntimeSettings

__all__ = ["run"]

logger = logging.getLogger(__name__)

_BACKOFF_MAX_S = 30.0
_STABLE_S = 60.0


async def run(settings: RuntimeSettings, *, home: Path, stop: StopRequest) -> None:
    """Keep TorchServe up until ``stop`` is set, then stop it with its workers.

    Raises:
        RuntimeDown: It does not come up at all at the first try: the settings or the machine are wrong.
        InvalidSettings: Another runtime holds the runtime directory.
    """
    settings.runtime_dir.mkdir(parents=True, exist_ok=True)
    with _only_one(settings.runtime_dir):
        backoff = settings.restart_backoff_s
        first = True
        while not stop.is_set():
            started = time.monotonic()
            try:
                await _run_once(settings, home=home, stop=stop)
            except RuntimeDown as exc:
                if first:
                    raise
                logger.error("%s", exc.message)
            first = False
            if stop.is_set():
                return
            if time.monotonic() - started > _STABLE_S:
                backoff = settings.restart_backoff_s
            logger.warning("TorchServe ended; starting it again in %.1f s", backoff)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), backoff)
            backoff = min(_BACKOFF_MAX_S, backoff * 2)


async def _run_once(settings: RuntimeSettings, *, home: Path, stop: StopRequest) -> None:
    file = settings.runtime_dir / RUNTIME_FILE
    file.unlink(missing_ok=True)
    server = TorchServe(settings, home=home)
    try:
        stopped = asyncio.create_task(stop.wait(), name="stop")
        starting = asyncio.create_task(server.start(), name="start-torchserve")
        try:
            await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return
            write_runtime_info(settings.runtime_dir, starting.result())
            ended = asyncio.create_task(server.wait(), name="torchserve-ended")
            await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
        finally:
            for task in (stopped, starting):
                task.cancel()
            await asyncio.gather(stopped, starting, return_exceptions=True)
    finally:
        file.unlink(missing_ok=True)  # first: nobody must connect to what is going away
        await server.aclose()


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    with (directory / "runtime.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise InvalidSettings(f"another runtime is using {directory}: give this one its own --runtime-dir") from exc
        yield
