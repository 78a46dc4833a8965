"""One child process of `marway up`: started with a lifeline, kept up, stopped within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from marway.errors import MarwayError
from marway.process.children import Lifeline
from marway.process.die_with_parent import dies_with_me
from marway.process.stop_request import LIFELINE_ENV
from marway.telemetry import plain_text

__all__ = ["Child"]

_LAST_LINES = 8


@dataclass(slots=True, eq=False)
class Child:
    """A command running as a process of its own, with our environment and some more; what is None there is taken away.

    Its output is appended to the file ``log``. What takes longer than ``stop_timeout_s`` to stop is killed.
    """

    name: str
    command: Sequence[str]
    log: Path
    lifeline: Lifeline
    stop_timeout_s: float
    environment: Mapping[str, str | None]
    log_stays: bool = True
    """Whether the log is there to be read when all has ended."""
    ours: bool = True
    """Whether it knows of the lifeline. With one that does not, what it started is ended when it ends, as that may hold
    its ports."""
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
        given = {**os.environ, **self.environment}
        environment = {
            **{name: value for name, value in given.items() if value is not None},
            LIFELINE_ENV: str(self.lifeline.read_end),
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(self.command if self.ours else dies_with_me(self.command)),
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
        status = await self._process.wait()
        self._end_what_it_started()
        return status

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
        self._end_what_it_started()

    def kill(self) -> None:
        """End the process at once."""
        if self.running:
            self._kill_group()

    def _end_what_it_started(self) -> None:
        if not self.ours:
            self._kill_group()

    def _kill_group(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def died(self) -> MarwayError:
        """Return the error that says how the process ended, with its last words."""
        status = self._process.returncode if self._process is not None else None
        text = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        words = " / ".join(plain_text(line.strip()) for line in text[-_LAST_LINES:]) or "it said nothing"
        where = f" (log: {self.log})" if self.log_stays else ""
        return MarwayError(f"{self.name} ended with status {status} while starting: {words}{where}")
