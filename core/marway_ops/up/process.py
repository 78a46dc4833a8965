"""One child process of `marway up`: started with a lifeline, kept up, stopped within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from marway.errors import MarwayError
from marway.process.children import Lifeline
from marway.process.stop_request import LIFELINE_ENV
from marway.telemetry import plain_text

__all__ = ["Child"]

_LAST_LINES = 8


@dataclass(slots=True, eq=False)
class Child:
    """A `marway` verb running as a process of its own, with our environment and some more.

    Its output is appended to the file ``log``. What takes longer than ``stop_timeout_s`` to stop is killed.
    """

    name: str
    arguments: Sequence[str]
    log: Path
    lifeline: Lifeline
    stop_timeout_s: float
    environment: Mapping[str, str]
    log_stays: bool = True
    """Whether the log is there to be read when all has ended."""
    _process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process; it is not ready yet when this returns."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            **self.environment,
            LIFELINE_ENV: str(self.lifeline.read_end),
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "marway",
                *self.arguments,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self.lifeline.read_end],
                start_new_session=True,  # a Ctrl-C in the terminal reaches us alone: we stop children in order
            )

    async def wait(self) -> int:
        """Return the exit status once the process has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """End the process, gently first; safe when it has ended or never started."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self.stop_timeout_s)
        except asyncio.TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def died(self) -> MarwayError:
        """Return the error that says how the process ended, with its last words."""
        status = self._process.returncode if self._process is not None else None
        text = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        words = " / ".join(plain_text(line.strip()) for line in text[-_LAST_LINES:]) or "it said nothing"
        where = f" (log: {self.log})" if self.log_stays else ""
        return MarwayError(f"{self.name} ended with status {status} while starting: {words}{where}")
