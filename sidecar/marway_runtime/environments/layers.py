"""What of a lock is installed: nothing that this Python has already and that satisfies all who ask for it.

torch alone takes gigabytes, and the workers' own packages are shared by all of them since the fork. So an environment
is a layer in front of this Python's packages, and holds only what differs.
"""

from __future__ import annotations

import email
import hashlib
import importlib.metadata
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from marway.environments.lock import WheelRef
from marway.environments.requirements import PROVIDED
from marway.errors import LoadFailed

__all__ = ["Base", "Package", "base", "layer"]


@dataclass(frozen=True, slots=True)
class Package:
    """One package: its version, and what it requires here."""

    version: str
    requires: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Base:
    """What this Python has, by canonical name, and what names it as a whole."""

    packages: Mapping[str, Package]
    digest: str


@cache
def base() -> Base:
    """Return what this Python has; reads some hundred files, once."""
    packages: dict[str, Package] = {}
    for found in importlib.metadata.distributions():
        name = canonicalize_name(found.metadata["Name"] or "")
        if name and name not in packages:  # the first on the path is what is imported
            packages[name] = Package(found.version, tuple(_applying(found.requires or ())))
    listed = "\n".join(f"{name}=={package.version}" for name, package in sorted(packages.items()))
    return Base(packages, hashlib.sha256(listed.encode()).hexdigest())


def layer(
    requirements: Iterable[str], wheels: Mapping[WheelRef, Path], over: Mapping[str, Package], title: str
) -> list[WheelRef]:
    """Return the wheels of a lock that have to be installed over what is there. Blocks.

    Args:
        requirements: What the archive asks for by itself.
        wheels: All wheels of the lock, with their files.
        over: What is there.
        title: The version, for messages.

    Raises:
        LoadFailed: A wheel cannot be read or is not to be here, or one asks for another torch than there is.
    """
    locked = {}
    for wheel, path in wheels.items():
        name, version, _, _ = parse_wheel_filename(wheel.filename)
        if name in PROVIDED:
            raise LoadFailed(
                f"{title} cannot be loaded: its lock has {wheel.filename}, which every pod has: lock it again"
            )
        locked[str(name)] = Package(str(version), tuple(_applying(_requires(path, wheel, title))))
    asked: dict[str, list[tuple[Requirement, str]]] = {}
    own: list[tuple[Requirement, str]] = [(each, "it") for each in _applying(requirements)]
    for requirement, who in own + [(each, name) for name, package in locked.items() for each in package.requires]:
        asked.setdefault(canonicalize_name(requirement.name), []).append((requirement, who))
    for provided in sorted(PROVIDED & asked.keys() & over.keys()):
        for requirement, who in asked[provided]:
            if not _meets(over[provided].version, requirement):
                raise LoadFailed(
                    f"{title} cannot be loaded: {who} requires {requirement}, and this pod has {provided} "
                    f"{over[provided].version}, which no environment replaces"
                )
    taken = {
        name
        for name in locked.keys() & over.keys()
        if all(_meets(over[name].version, requirement) for requirement, _ in asked.get(name, ()))
    }
    while unfit := [name for name in taken if not _goes_with(over[name], locked, taken)]:
        taken.difference_update(unfit)
    return [wheel for wheel in wheels if str(parse_wheel_filename(wheel.filename)[0]) not in taken]


def _goes_with(package: Package, locked: Mapping[str, Package], taken: Iterable[str]) -> bool:
    """Return whether a package that is there is content with what would be put in front of it."""
    return all(
        name not in locked or name in taken or _meets(locked[name].version, requirement)
        for requirement in package.requires
        for name in (canonicalize_name(requirement.name),)
    )


def _meets(version: str, requirement: Requirement) -> bool:
    return requirement.url is None and requirement.specifier.contains(version, prereleases=True)


def _applying(texts: Sequence[str] | Iterable[str]) -> Iterator[Requirement]:
    """Yield the requirements that hold here, those of extras aside: a lock has whatever extras asked for."""
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _requires(path: Path, wheel: WheelRef, title: str) -> list[str]:
    try:
        with zipfile.ZipFile(path) as opened:
            names = [
                name for name in opened.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")
            ]
            metadata = email.message_from_bytes(opened.read(names[0]))
    except (OSError, zipfile.BadZipFile, IndexError) as exc:
        raise LoadFailed(f"{title} cannot be loaded: {wheel.filename}, which it requires, is no wheel ({exc})") from exc
    return list(map(str, metadata.get_all("Requires-Dist", [])))
