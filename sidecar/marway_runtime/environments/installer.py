"""Installs wheels into a directory with `uv`: offline, each held to its digest, nothing built and nothing resolved."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from packaging.utils import parse_wheel_filename

from marway.environments.lock import WheelRef
from marway.environments.uv import find_uv
from marway.errors import clip
from marway.worker.environment import handler_environment

__all__ = ["Installer", "NotInstalled"]

_LINES: Final = 12
_SAID_MAX: Final = 1200


class NotInstalled(Exception):
    """An environment could not be built: its text says why, with what the installer said last."""


class Installer:
    """Runs `uv`.

    Args:
        temporary: A directory for temporary files.
        timeout_s: How long an installation may take, in seconds.
    """

    def __init__(self, temporary: Path, *, timeout_s: float) -> None:
        self._temporary = temporary
        self._timeout_s = timeout_s
        self.pid: int | None = None
        """The process that installs, while there is one."""

    async def install(self, wheels: Mapping[WheelRef, Path], target: Path, work: Path) -> None:
        """Install wheels into ``target``, working in the empty directory ``work`` on the same file system.

        Raises:
            NotInstalled: It fails, or takes too long.
        """
        links, listed, cache = work / "wheels", work / "requirements.txt", work / "cache"
        links.mkdir()
        lines = []
        for wheel, path in wheels.items():
            (links / wheel.filename).symlink_to(path)
            name, version, _, _ = parse_wheel_filename(wheel.filename)
            lines.append(f"{name}=={version} --hash=sha256:{wheel.sha256}")
        listed.write_text("\n".join(lines))
        command = [
            _uv(), "pip", "install", "--offline", "--no-index", "--no-config", "--no-deps", "--require-hashes",
            "--only-binary", ":all:", "--requirements", str(listed), "--find-links", str(links),
            "--target", str(target), "--python", sys.executable, "--cache-dir", str(cache), "--link-mode", "hardlink",
            "--compile-bytecode", "--no-progress", "--color", "never",
        ]  # fmt: skip
        said: deque[str] = deque(maxlen=_LINES)
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await self._run(command, said)
        except TimeoutError as exc:
            raise NotInstalled(f"not within {self._timeout_s:g} s (environment_timeout_s){_last(said)}") from exc
        except OSError as exc:
            raise NotInstalled(f"uv cannot be started: {exc}") from exc
        if status:
            raise NotInstalled(f"uv ended with status {status}{_last(said)}")

    async def _run(self, command: list[str], said: deque[str]) -> int:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**handler_environment(self._temporary), "UV_NO_PROGRESS": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # what it starts to compile bytecode ends with it
        )
        self.pid = process.pid
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                said.append(line.decode(errors="replace").rstrip())
            return await process.wait()
        finally:
            self.pid = None
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()


def _uv() -> str:
    found = find_uv()
    if found is None:
        raise NotInstalled("uv is missing in the runtime's Python: pip install uv there")
    return found


def _last(said: deque[str]) -> str:
    return f"; it said last: {clip(' / '.join(filter(None, said)), _SAID_MAX)}" if any(said) else ""
