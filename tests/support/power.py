"""Power cuts without a plug: what a disk may hold when the power goes between two changes of a file system.

`RecordingFiles` does what the directory store asks for and writes it down. `after_cut` makes the tree that may be left
when the power goes after the first N of these changes, by POSIX's own promise: what was fsynced is there, and of the
rest nothing is certain. How much of the rest is there is the caller's choice.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from marway.objects.files import Files

__all__ = ["Cut", "ForgetsDirectories", "ForgetsFiles", "RecordingFiles", "after_cut"]

Cut = Literal["nothing", "names", "some"]
"""What is left of changes that were not fsynced: nothing; all names but no bytes, as a journal of metadata only leaves
them; or in each directory and file the beginning of them, of random length."""


@dataclass(frozen=True)
class _Change:
    what: Literal["mkdir", "create", "write", "sync", "syncdir", "link", "rename", "unlink"]
    path: Path = Path()
    other: Path = Path()
    inode: int = 0
    data: bytes = b""


class RecordingFiles(Files):
    """Changes the real disk, and records each change."""

    def __init__(self) -> None:
        self.changes: list[_Change] = []
        self._descriptors: dict[int, int] = {}
        self._inodes = 0

    def make_directory(self, path: Path) -> bool:
        made = super().make_directory(path)
        if made:
            self.changes.append(_Change("mkdir", path))
        return made

    def create_temporary(self, directory: Path, prefix: str) -> tuple[int, Path]:
        descriptor, path = super().create_temporary(directory, prefix)
        self._inodes += 1
        self._descriptors[descriptor] = self._inodes
        self.changes.append(_Change("create", path, inode=self._inodes))
        return descriptor, path

    def write(self, descriptor: int, data: bytes) -> None:
        super().write(descriptor, data)
        self.changes.append(_Change("write", inode=self._descriptors[descriptor], data=bytes(data)))

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.changes.append(_Change("sync", inode=self._descriptors[descriptor]))

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.changes.append(_Change("syncdir", path))

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self.changes.append(_Change("link", source, target))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.changes.append(_Change("rename", source, target))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.changes.append(_Change("unlink", path))


class ForgetsFiles(RecordingFiles):
    """A store's mistake, to see that it would be found: files are not fsynced."""

    def sync(self, descriptor: int) -> None:
        """Do nothing."""


class ForgetsDirectories(RecordingFiles):
    """Another: directories are not fsynced."""

    def sync_directory(self, path: Path) -> None:
        """Do nothing."""


@dataclass
class _File:
    data: bytes = b""
    durable: bytes = b""


@dataclass
class _Directory:
    now: dict[str, _File | _Directory] = field(default_factory=dict)
    durable: dict[str, _File | _Directory] = field(default_factory=dict)
    pending: list[dict[str, _File | _Directory | None]] = field(default_factory=list)

    def change(self, **names: _File | _Directory | None) -> None:
        self.pending.append(names)
        _apply(self.now, names)

    def sync(self) -> None:
        for names in self.pending:
            _apply(self.durable, names)
        self.pending.clear()


def _apply(entries: dict[str, _File | _Directory], names: dict[str, _File | _Directory | None]) -> None:
    for name, node in names.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def after_cut(changes: list[_Change], root: Path, *, count: int, cut: Cut, seed: int, into: Path) -> Path:
    """Make the tree that is left of ``root``, empty at first, when the power goes after ``count`` changes."""
    tree = _Directory()
    inodes: dict[int, _File] = {}

    def directory(path: Path) -> _Directory:
        node: _File | _Directory = tree
        for part in path.relative_to(root).parts:
            assert isinstance(node, _Directory)
            node = node.now[part]
        assert isinstance(node, _Directory)
        return node

    for change in changes[:count]:
        path, other = change.path, change.other
        if change.what == "mkdir" and path != root:
            directory(path.parent).change(**{path.name: _Directory()})
        elif change.what == "create":
            inodes[change.inode] = _File()
            directory(path.parent).change(**{path.name: inodes[change.inode]})
        elif change.what == "write":
            inodes[change.inode].data += change.data
        elif change.what == "sync":
            inodes[change.inode].durable = inodes[change.inode].data
        elif change.what == "syncdir" and path.is_relative_to(root):
            directory(path).sync()
        elif change.what == "link":
            directory(other.parent).change(**{other.name: directory(path.parent).now[path.name]})
        elif change.what == "rename":
            assert path.parent == other.parent
            directory(path.parent).change(**{other.name: directory(path.parent).now[path.name], path.name: None})
        elif change.what == "unlink":
            directory(path.parent).change(**{path.name: None})
    _write_out(tree, into, cut, random.Random(seed))
    return into


def _write_out(node: _Directory, into: Path, cut: Cut, chance: random.Random) -> None:
    into.mkdir(parents=True)
    entries = dict(node.durable)
    kept = {"nothing": 0, "names": len(node.pending), "some": chance.randint(0, len(node.pending))}[cut]
    for names in node.pending[:kept]:
        _apply(entries, names)
    for name, child in entries.items():
        if isinstance(child, _Directory):
            _write_out(child, into / name, cut, chance)
            continue
        data = child.durable
        if cut == "some":
            data = child.data[: chance.randint(len(data), len(child.data))]
        (into / name).write_bytes(data)
