"""A process that wants one archive from an archive store; it can stop or die on the way.

Run as a program with one JSON argument, the fields of `Wish`. Prints JSON lines: ``{"at": …}`` when it is where it was
to send itself a signal or to hold the archive, and in the end ``{"outcomes": […], "error": …, "names": […]}``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from marway.archive_store import ArchiveStore, download
from marway.errors import MarwayError
from marway.objects import open_store
from marway.objects.files import Files
from marway.records import ArchiveRef
from marway.registry import Registry

__all__ = ["FILLER", "IN_TMPFS", "Process", "Wish", "fetching"]

FILLER = ".filler"
IN_TMPFS = 'mount -t tmpfs -o size="$SIZE" tmpfs "$ROOT" && exec "$@"'
"""What a shell does in a mount name space of its own before it becomes the process: nothing is left to unmount."""


@dataclass(frozen=True)
class Wish:
    """Which archive, from where, and what happens on the way."""

    root: str
    registry: str
    sha256: str
    size_bytes: int
    options: dict[str, Any] = field(default_factory=dict)
    """Of the store."""
    parallel_from_bytes: int | None = None
    signal: str | None = None
    """Sent to itself …"""
    after_bytes: int | None = None
    """… when so much is written, …"""
    before: str | None = None
    """… or before this change of the disk."""
    fill: bool = False
    """Whether somebody else fills the disk as soon as room is reserved."""
    hold: bool = False
    """Whether it keeps using the archive until its standard input closes."""


class _Signalling(Files):
    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._written = 0

    def write(self, descriptor: int, data: bytes) -> None:
        super().write(descriptor, data)
        self._count(data)

    def write_at(self, descriptor: int, data: bytes, offset: int) -> None:
        super().write_at(descriptor, data, offset)
        self._count(data)

    def resize(self, descriptor: int, size: int) -> None:
        super().resize(descriptor, size)
        if self._wish.fill:
            with suppress(OSError), (Path(self._wish.root) / FILLER).open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))

    def rename(self, source: Path, target: Path) -> None:
        self._before("rename")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._before("unlink")
        super().unlink(path)

    def _count(self, data: bytes) -> None:
        before, self._written = self._written, self._written + len(data)
        if self._wish.after_bytes is not None and before < self._wish.after_bytes <= self._written:
            self._send()

    def _before(self, what: str) -> None:
        if self._wish.before == what:
            self._send()

    def _send(self) -> None:
        assert self._wish.signal is not None
        print(json.dumps({"at": "signal"}), flush=True)
        os.kill(os.getpid(), getattr(signal, self._wish.signal))


class Process:
    """A running `fetching` process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> dict[str, Any]:
        """Return the next line it says; waits for it."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, "it ended without a word"
        said: dict[str, Any] = json.loads(text)
        return said

    def end(self) -> dict[str, Any]:
        """Let go of what it holds, wait for its end and return what it said last."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        said = self.line()
        assert self.process.wait(60) == 0
        return said


@contextmanager
def fetching(wish: Wish, *, prefix: Sequence[str] = (), env: dict[str, str] | None = None) -> Iterator[Process]:
    """Run one for the length of a block."""
    process = subprocess.Popen(
        [*prefix, sys.executable, __file__, json.dumps(asdict(wish))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **(env or {})},
    )
    try:
        with process:
            try:
                yield Process(process)
            finally:
                process.kill()  # also one that is stopped
    finally:
        process.wait(30)


def main() -> None:
    wish = Wish(**json.loads(sys.argv[1]))
    if wish.parallel_from_bytes is not None:
        download.PARALLEL_FROM_BYTES = wish.parallel_from_bytes  # type: ignore[misc]
        download._PART_BYTES = wish.parallel_from_bytes  # type: ignore[misc]
    outcomes: list[str] = []
    store = ArchiveStore(
        Path(wish.root),
        Registry(open_store(wish.registry)),
        observe=lambda outcome, _: outcomes.append(outcome),
        files=_Signalling(wish),
        **wish.options,
    )
    error = None
    names: list[str] = []
    try:
        with store.use(ArchiveRef(sha256=wish.sha256, size_bytes=wish.size_bytes)):
            if wish.hold:
                print(json.dumps({"at": "hold"}), flush=True)
                sys.stdin.read()
    except MarwayError as exc:
        error = f"{type(exc).__name__}: {exc.message}"
    if Path(wish.root).is_dir():
        names = sorted(path.name for path in Path(wish.root).iterdir() if path.name != ".locks")
    print(json.dumps({"outcomes": outcomes, "error": error, "names": names}), flush=True)


if __name__ == "__main__":
    main()
