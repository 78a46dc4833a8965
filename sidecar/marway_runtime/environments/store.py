"""The environments of one runtime: built when a version wants one, kept while there is room, the least recently used
one that nobody is in goes first.

::

    <digest of lock>-<digest of this Python's packages>/    one that is whole: what goes in front of these packages
    .build-<random>/                                        one that is being built, or was when its runtime ended
    machine                                                 which start of the machine the others were built in
    lock                                                    locked by the runtime that works here

An environment is not synced to the disk, as building it again takes seconds: after the machine was started again those
from before are removed, since nobody knows how much of them is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final, Literal

from marway.environments.lock import EnvironmentLock, WheelRef, this_target
from marway.errors import LoadFailed, Unavailable
from marway.wire.environments import EnvironmentUse, wheel_file
from marway_runtime.environments.installer import Installer, NotInstalled
from marway_runtime.environments.layers import base, layer

__all__ = ["BuildOutcome", "EnvironmentStore"]

logger = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BUILD: Final = ".build-"

InUse = Callable[[], Collection[str]]
BuildOutcome = Literal["ok", "failed", "no_room"]


class EnvironmentStore:
    """Builds environments, and removes them.

    Args:
        root: Where they are; for this runtime alone.
        model_store: Where the sidecar puts wheels.
        installer: Installs them.
        limit_bytes: What they may take together.
        observe: Told what came of each build, and its duration in seconds.
    """

    def __init__(
        self,
        root: Path,
        model_store: Path,
        installer: Installer,
        *,
        limit_bytes: int,
        observe: Callable[[BuildOutcome, float], None],
    ) -> None:
        self._root = root
        self._model_store = model_store
        self._installer = installer
        self.limit_bytes = limit_bytes
        self._observe = observe
        self._building = asyncio.Lock()
        self._sizes: dict[str, int] | None = None
        self._held: int | None = None

    @property
    def installing(self) -> int | None:
        """The process that installs an environment, while there is one."""
        return self._installer.pid

    def close(self) -> None:
        """Let another runtime work here."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def path(self, name: str) -> Path:
        """Return where an environment is."""
        return self._root / name

    def sizes(self) -> dict[str, int]:
        """Return what each environment takes, in bytes, the one used last at the end."""
        known = dict(self._sizes or {})
        return dict(sorted(known.items(), key=lambda item: _used_at(self._root / item[0])))

    def existing(self, lock: EnvironmentLock) -> str | None:
        """Return the name of the environment of a lock, if it is there, and note that it is used now."""
        if self._sizes is None or (name := self._name(lock)) not in self._sizes:
            return None
        self.touch(name)
        return name

    def touch(self, name: str) -> None:
        """Note that an environment was used until now."""
        with contextlib.suppress(OSError):
            os.utime(self.path(name))

    async def built(self, use: EnvironmentUse, *, in_use: InUse) -> str | None:
        """Return the name of a version's environment, once it is there; None where this Python has all of it.

        Args:
            use: The version.
            in_use: Returns the environments that have to stay.

        Raises:
            LoadFailed: It cannot be built.
            Unavailable: There is no room for it.
        """
        title = f"{use.name} {use.version}"
        if use.lock.target != this_target():
            raise LoadFailed(
                f"{title} cannot be loaded: its requirements are locked for {use.lock.target}, this is {this_target()}"
            )
        async with self._building:  # one at a time: each takes all processors for a while
            over = await asyncio.to_thread(base)
            await asyncio.to_thread(self._open)
            if (there := self.existing(use.lock)) is not None:
                return there
            files = {wheel: self._model_store / wheel_file(wheel.sha256) for wheel in use.lock.wheels}
            wanted = await asyncio.to_thread(layer, use.lock.requirements, files, over.packages, title)
            if not wanted:
                return None
            name = self._name(use.lock)
            began = time.monotonic()
            try:
                await self._build(name, {wheel: files[wheel] for wheel in wanted}, title, in_use)
            except (LoadFailed, Unavailable) as exc:
                self._observe("failed" if isinstance(exc, LoadFailed) else "no_room", time.monotonic() - began)
                raise
            self._observe("ok", time.monotonic() - began)
            return name

    def _name(self, lock: EnvironmentLock) -> str:
        # With other packages below it, it would have to be another one.
        return f"{lock.digest[:32]}-{base().digest[:12]}"

    async def _build(self, name: str, wheels: dict[WheelRef, Path], title: str, in_use: InUse) -> None:
        assert self._sizes is not None
        began = time.monotonic()
        needed = await asyncio.to_thread(_expanded, wheels.values())
        for gone in self._make_room(needed, title, in_use()):
            await asyncio.to_thread(shutil.rmtree, self.path(gone), ignore_errors=True)
            logger.info("removed the environment %s, which nobody was in", gone)
        work = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=_BUILD, dir=self._root))
        try:
            target = work / "environment"
            target.mkdir()
            try:
                await self._installer.install(wheels, target, work)
            except NotInstalled as exc:
                raise LoadFailed(f"{title} cannot be loaded: what it requires cannot be installed: {exc}") from exc
            size = await asyncio.to_thread(_size, target)
            target.rename(self.path(name))
            self._sizes[name] = size
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        took = time.monotonic() - began
        logger.info(
            "built an environment for %s: %d packages, %d MiB, in %.1f s", title, len(wheels), size // _MIB, took
        )

    def _open(self) -> None:
        """Make the directory this runtime's, and see what is in it."""
        if self._sizes is not None:
            return
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(self._root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(held)
            raise LoadFailed(
                f"another runtime has its environments in {self._root}: set `environments` to a directory of its own"
            ) from exc
        self._held = held
        machine, boot = self._root / "machine", _boot_id()
        same = machine.is_file() and machine.read_text() == boot
        sizes = {}
        for path in self._root.iterdir():
            if path.is_dir() and (path.name.startswith(_BUILD) or not same):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                sizes[path.name] = _size(path)
        machine.write_text(boot)
        self._sizes = sizes

    def _make_room(self, needed: int, title: str, in_use: Collection[str]) -> list[str]:
        """Choose what was used least recently until ``needed`` bytes find room, forget it, and return its names.

        Nobody else gets a turn meanwhile, so nobody enters what is about to go.
        """
        assert self._sizes is not None
        gone: list[str] = []
        freed = 0
        for name, size in self.sizes().items():
            if self._short(needed, freed) and name not in in_use:
                gone.append(name)
                freed += size
        taken = sum(self._sizes.values()) - freed
        if short := self._short(needed, freed):
            raise Unavailable(
                f"{title} cannot be loaded: its environment needs {needed // _MIB + 1} MiB in {self._root}, "
                f"{short // _MIB + 1} more than there is: versions that are loaded are in {taken // _MIB} MiB, and "
                f"environments_bytes is {self.limit_bytes // _MIB} MiB"
            )
        for name in gone:
            del self._sizes[name]
        return gone

    def _short(self, needed: int, freed: int) -> int:
        """Return how many bytes are missing once ``freed`` bytes have gone."""
        assert self._sizes is not None
        free = shutil.disk_usage(self._root).free
        return max(0, needed + sum(self._sizes.values()) - freed - self.limit_bytes, needed - free - freed)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""  # macOS: taken for the same start


def _expanded(wheels: Iterable[Path]) -> int:
    """Return what wheels take when they are installed, with bytecode for their sources."""
    total = 0
    for path in wheels:
        with zipfile.ZipFile(path) as opened:
            total += sum(each.file_size * (2 if each.filename.endswith(".py") else 1) for each in opened.infolist())
    return total


def _size(directory: Path) -> int:
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - thousands of files
    return total


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
