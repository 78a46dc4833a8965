"""A bounded set of processes that convert large bodies, so that the event loop has a turn whatever a client sends.

Threads would not do. Python runs one at a time, and one call that reads 40 MB of JSON, or writes a list of ten million
numbers, holds all others up for seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

from marway.errors import MarwayError

__all__ = ["INLINE_BYTES", "Converters"]

P = ParamSpec("P")
T = TypeVar("T")

INLINE_BYTES: Final = 32 * 1024
"""What is smaller is converted where it is, in a few milliseconds: sending it elsewhere would cost as much."""


class Converters:
    """Runs functions on bodies: small ones at once, large ones in another process.

    Args:
        count: Processes at most; each is started when it is first needed. More calls wait for their turn.
    """

    def __init__(self, count: int) -> None:
        self._slots = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="marway-convert")
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()

    async def run(self, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a module's ``function``, which works on ``size`` bytes, returns; arguments and result travel.

        A call that is cancelled ends the process that works on it: nobody goes on paying for it.

        Raises:
            MarwayError: What the function raised, or its process ended.
        """
        if size <= INLINE_BYTES:
            return function(*args, **kwargs)
        return await self.apart(function, *args, **kwargs)

    async def apart(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do as `run`, in another process whatever the size."""
        async with self._slots:
            process = self._idle.pop() if self._idle else _Process()
            self._busy.add(process)
            try:
                returned, result = await asyncio.get_running_loop().run_in_executor(
                    self._threads, process.call, (function, args, kwargs)
                )
            except (EOFError, OSError, pickle.UnpicklingError) as exc:
                process.end()
                raise MarwayError(
                    "the process that converted this body ended: it may have had too little memory"
                ) from exc
            except BaseException:
                process.end()
                raise
            finally:
                self._busy.discard(process)
            self._idle.append(process)
        if not returned:
            raise result
        value: T = result
        return value

    async def aclose(self) -> None:
        """End all processes; a second call does nothing."""
        idle, self._idle = self._idle, []
        for process in (*idle, *self._busy):
            process.end()

        def wait() -> None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            for process in idle:
                process.reap()

        await asyncio.to_thread(wait)


class _Process:
    """One process. `call` blocks, one at a time; `end` may come from any thread, at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, called: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> tuple[bool, Any]:
        """Return whether a function with its arguments returned, and what it returned or raised.

        Raises:
            EOFError, OSError, pickle.UnpicklingError: The process has ended, or ended meanwhile.
        """
        with self._lock:
            if self._ended:
                raise EOFError
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "marway_gateway.conversion"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # Large values go from and to the pipe as they are, uncopied, and other threads run meanwhile.
            pickle.dump(called, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            answer: tuple[bool, Any] = pickle.load(process.stdout)  # noqa: S301  # by our own code, of this gateway
        except (EOFError, OSError, pickle.UnpicklingError):
            self.end()
            self.reap()
            raise
        return answer

    def end(self) -> None:
        """End it, whatever it does; a call under way fails, and reaps it."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def reap(self) -> None:
        """Close its pipes and wait until it is gone. Blocks: what it had in memory is given back first."""
        if self._process is not None:
            with contextlib.suppress(OSError), self._process:  # what was not written yet has nobody to go to
                pass
