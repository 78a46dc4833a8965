"""Locks an archive's requirements: each comes to one wheel, for each Python and platform that is asked for."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

from marway.environments.lock import EnvironmentLock, Target, WheelRef, this_target
from marway.environments.requirements import PROVIDED, parse_requirements
from marway_archiver.publishing.locking.uv import resolve, uv_environment
from marway_archiver.publishing.locking.wheels import best, fetch

__all__ = ["LockOptions", "Locked", "lock_requirements"]

_REQUIREMENTS_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LockOptions:
    """Whether requirements are locked, and what for; none named means for this Python."""

    lock: bool = True
    targets: tuple[Target, ...] = ()

    @classmethod
    def of(cls, lock: bool, targets: Sequence[str]) -> LockOptions:
        """Return the wish that arguments express.

        Raises:
            InvalidInput: A target is none.
        """
        return cls(lock, tuple(dict.fromkeys(map(Target.parse, targets))))


@dataclass(frozen=True, slots=True)
class Locked:
    """What an archive's requirements came to: the locks for the record, and the files of wheels by their digests."""

    locks: tuple[EnvironmentLock, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)


def lock_requirements(
    archive: Path, requirements_file: str, directory: Path, wish: LockOptions, *, stored: Callable[[str], int | None]
) -> Locked:
    """Lock the requirements of an archive. What every pod has already (torch, torchserve) needs no lock.

    Args:
        archive: The `.mar`.
        requirements_file: Its requirements file, as its manifest names it.
        directory: An empty directory, in which the wheels are afterwards.
        wish: What for.
        stored: Returns the size of a wheel that the registry has, by its digest: its file is not needed.

    Raises:
        InvalidArchive: They cannot be locked; the message says why.
        InvalidSettings: uv is not installed.
        Unavailable: A wheel cannot be fetched.
    """
    with zipfile.ZipFile(archive) as opened, opened.open(requirements_file) as file:
        text = file.read(_REQUIREMENTS_MAX).decode("utf-8", errors="replace")
    wanted = parse_requirements(text)
    if not wanted.others and all(canonicalize_name(each.name) in PROVIDED for each in wanted.named):
        return Locked()
    named = tuple(sorted(map(str, wanted.named)))
    source = directory / "requirements.txt"
    source.write_text(text, encoding="utf-8")
    environment = uv_environment()
    locks: list[EnvironmentLock] = []
    files: dict[str, Path] = {}
    for target in wish.targets or (this_target(),):
        with tempfile.TemporaryDirectory(dir=directory) as work:
            chosen = [
                best(candidates, target)
                for candidates in resolve(source, target, Path(work), environment)
                if candidates
            ]
        sizes = {each.url: stored(each.sha256) for each in chosen if each.sha256 is not None}
        here = fetch([each for each in chosen if sizes.get(each.url) is None], directory, environment)
        wheels = []
        for each in chosen:
            size = sizes.get(each.url)
            if each.sha256 is not None and size is not None:
                wheels.append(WheelRef(filename=each.filename, sha256=each.sha256, size_bytes=size))
                continue
            sha256, size, path = here[each.url]
            files[sha256] = path
            wheels.append(WheelRef(filename=each.filename, sha256=sha256, size_bytes=size))
        if wheels:
            lock = EnvironmentLock(
                python=target.python,
                platform=target.platform,
                requirements=named,
                wheels=tuple(sorted(wheels, key=lambda wheel: wheel.filename)),
            )
            locks.append(lock)
    return Locked(tuple(locks), files)
