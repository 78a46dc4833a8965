"""The limits of this process's cgroup and of those around it, on both versions of the interface (cgroups(7))."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["Room", "cgroup_cpus", "cgroup_room"]

_PROC = Path("/proc")
_MOUNTED = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Room:
    """The cgroup whose memory limit is the smallest; ``v2``, of version 2 of the interface."""

    folder: Path
    v2: bool
    limit_bytes: int

    def left_bytes(self, *, enough: int) -> int:
        """Return how much memory is left before the limit, what the page cache could give back counted as left.

        From ``enough`` bytes on the page cache is not asked for, which costs more than the rest.
        """
        used = _read(self.folder / ("memory.current" if self.v2 else "memory.usage_in_bytes"))
        left = self.limit_bytes - int(used) if used.isdigit() else self.limit_bytes
        if left >= enough:
            return left
        prefix = "" if self.v2 else "total_"
        cached = (f"{prefix}active_file", f"{prefix}inactive_file")
        lines = (line.split() for line in _read(self.folder / "memory.stat").splitlines())
        return left + sum(int(words[1]) for words in lines if words[0] in cached)


def cgroup_room(*, proc: Path = _PROC, mounted: Path = _MOUNTED) -> Room | None:
    """Return the cgroup whose memory limit is the smallest; None when none is set."""
    found = [
        Room(folder, v2, int(text))
        for v2, folder in _folders("memory", proc, mounted)
        if (text := _read(folder / ("memory.max" if v2 else "memory.limit_in_bytes"))).isdigit()
    ]
    return min(found, key=lambda room: room.limit_bytes, default=None)


def cgroup_cpus(*, proc: Path = _PROC, mounted: Path = _MOUNTED) -> float | None:
    """Return the smallest share of processors, 1.5 for one and a half; None when none is set."""
    found = []
    for v2, folder in _folders("cpu", proc, mounted):
        if v2:
            words = _read(folder / "cpu.max").split()
        else:
            words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def _folders(controller: str, proc: Path, mounted: Path) -> Iterator[tuple[bool, Path]]:
    """Yield the folders of this process's cgroups, inner ones first, and whether each is of version 2.

    Version 2 has one tree, version 1 one for each controller. A container may see its own cgroup as the root of the
    tree while `/proc` still names the path that the host sees.
    """
    paths = {True: PurePosixPath("/"), False: PurePosixPath("/")}
    for line in _read(proc / "self" / "cgroup").splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            paths[True] = PurePosixPath(path)
        elif controller in controllers.split(","):
            paths[False] = PurePosixPath(path)
    for v2, root in ((True, mounted), (False, mounted / controller)):
        for folder in (paths[v2], *paths[v2].parents):
            yield v2, root / folder.relative_to("/")


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
