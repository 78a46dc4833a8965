"""`models.log`: what workers write, each line with whose it is, as TorchServe's front end writes it.

`marway.wire.model_log` reads it. 16 MiB, and one older file is kept, as config/log4j2.xml has it for TorchServe.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from marway.wire.model_log import FILE

__all__ = ["ModelsLog"]

_BYTES_MAX: Final = 16 * 1024 * 1024
_LINE_MAX: Final = 262_144


class ModelsLog:
    """Writes the lines of all workers.

    Args:
        logs: The runtime's directory of logs.
    """

    def __init__(self, logs: Path) -> None:
        self._path = logs / FILE
        self._older = self._path.with_suffix(".1.log")
        self._file: BinaryIO | None = None

    async def pipes(self, title: str, number: int) -> tuple[int, int]:
        """Return what a worker is to have as standard output and standard error; the caller closes both.

        What is written to them comes into the log until nobody has them open.

        Args:
            title: Whose lines they are: `<server name>_<version>`.
            number: The worker's.
        """
        loop = asyncio.get_running_loop()
        ends = []
        for name, level in (("stdout", "INFO"), ("stderr", "WARN")):
            read_end, write_end = os.pipe()
            reader = os.fdopen(read_end, "rb", buffering=0)
            prefix = f" {level} W-{number}-{title}-{name} | ".encode()
            await loop.connect_read_pipe(lambda prefix=prefix: _Lines(self, prefix), reader)  # type: ignore[misc]  # mypy knows no default of a lambda
            ends.append(write_end)
        return ends[0], ends[1]

    def write(self, prefix: bytes, lines: list[bytes]) -> None:
        """Write whole lines."""
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
        now = datetime.now(UTC).isoformat(timespec="milliseconds").encode()
        self._file.write(b"".join(now + prefix + line + b"\n" for line in lines))
        if self._file.tell() >= _BYTES_MAX:
            self.close()
            self._path.replace(self._older)

    def close(self) -> None:
        """Close the file; what is written later opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _Lines(asyncio.Protocol):
    """Takes lines out of what a worker writes."""

    def __init__(self, log: ModelsLog, prefix: bytes) -> None:
        self._log = log
        self._prefix = prefix
        self._begun = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > _LINE_MAX:
            lines.append(self._begun)
            self._begun = b""
        if lines:
            self._log.write(self._prefix, lines)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._begun:
            self._log.write(self._prefix, [self._begun])
