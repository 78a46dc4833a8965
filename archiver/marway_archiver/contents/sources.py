"""Collects the files to pack, each under the name it has in the archive, as torch-model-archiver does.

Single files go to the archive's root under their basename. `--extra-files` takes files, wildcards and
directories; a directory's contents go to the root and its subdirectories stay below it, without
`__pycache__`, `__MACOSX` and hidden directories. Unlike there, nothing overwrites anything in silence.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from marway.archives.entries import MAX_ENTRIES, MAX_NAME_BYTES, Entry, check_name, from_bytes, from_file, reason, shown
from marway.errors import InvalidArchive
from marway_archiver.atomic_output import is_temporary

__all__ = ["Sources"]

_SKIPPED = frozenset({"__MACOSX", "__pycache__"})
_WILDCARDS = frozenset("*?[")


class Sources:
    """The files of one archive, as they are collected.

    Args:
        output: Where the archive will be; a source that is this file is refused.

    Attributes:
        entries: By name in the archive.
        warnings: What was skipped.
    """

    def __init__(self, output: Path) -> None:
        self.entries: dict[str, Entry] = {}
        self.warnings: list[str] = []
        self._output = output
        self._empty: str | None = None

    def add(self, entry: Entry, *, reserved: bool = False) -> None:
        """Add one file; a ``reserved`` one may lie in MAR-INF, which is kept for the archive itself.

        Raises:
            InvalidArchive: Its name is not portable, or taken by a file with other content.
        """
        check_name(entry.name)
        if not reserved and entry.name.partition("/")[0].casefold() == "mar-inf":
            raise InvalidArchive(f"{entry.origin} would lie in MAR-INF, which is kept for the manifest")
        if entry.path is not None and entry.path.resolve() == self._output.resolve():
            raise InvalidArchive(f"{entry.path} is the archive to be written: it cannot hold itself")
        other = self.entries.setdefault(entry.name, entry)
        if other is not entry and not _equal(other, entry):
            raise InvalidArchive(
                f"{other.origin} and {entry.origin} would both be {shown(entry.name)} in the archive, and "
                "their contents differ: rename one"
            )
        if len(self.entries) > MAX_ENTRIES:
            raise InvalidArchive(f"more than {MAX_ENTRIES} files: an archive holds no more")

    def add_file(self, what: str, path: str | os.PathLike[str]) -> str:
        """Add a file, which the flag ``what`` gave, at the root and return its name there."""
        found = Path(path)
        try:
            self.add(from_file(found.name, found))
        except InvalidArchive as exc:
            raise InvalidArchive(f"{what}: {exc.message}") from exc
        return found.name

    def add_extra(self, extra: str | Sequence[str | os.PathLike[str]]) -> None:
        """Add what `--extra-files` names: a comma-separated list, or one path or wildcard an item."""
        items = map(str.strip, extra.split(",")) if isinstance(extra, str) else (os.fspath(each) for each in extra)
        try:
            for item in filter(None, items):
                self._add_pattern(item)
        except InvalidArchive as exc:
            raise InvalidArchive(f"--extra-files: {exc.message}") from exc

    def add_tree(self, directory: Path, below: str, empty: str) -> None:
        """Add all that a directory holds below ``below``; one without files as an empty file called ``empty`` in it.

        Hidden directories stay away, and a warning names each.
        """
        root = directory.resolve()
        if not root.is_dir():
            raise InvalidArchive(f"{directory} {'is no directory' if root.exists() else 'does not exist'}")
        self._empty = empty
        self._add_directory(directory, below, root, (root,))

    def _add_pattern(self, item: str) -> None:
        if Path(item).exists():
            found = [item]
        elif _WILDCARDS.isdisjoint(item):
            raise InvalidArchive(f"{item} does not exist")
        else:
            found = sorted(glob.glob(item))  # noqa: PTH207 - it takes what torch-model-archiver takes
            if not found:
                self.warnings.append(f"--extra-files: {item} matches no file")
        for each in map(Path, found):
            if each.is_dir():
                root = each.resolve()
                self._add_directory(each, "", root, (root,))
            elif not is_temporary(each.name):
                self.add(from_file(each.name, each))

    def _add_directory(self, directory: Path, prefix: str, root: Path, above: tuple[Path, ...]) -> None:
        """Add what ``directory`` holds; ``above`` are the real directories that lead to it."""
        if len(os.fsencode(prefix)) > MAX_NAME_BYTES:
            raise InvalidArchive(f"{directory}: its path is longer than {MAX_NAME_BYTES} bytes")
        try:
            with os.scandir(directory) as found:
                items = sorted(found, key=lambda item: os.fsencode(item.name))
        except OSError as exc:
            raise InvalidArchive(f"{directory} cannot be read: {reason(exc)}") from exc
        taken = 0
        for item in items:
            path = directory / item.name
            if item.is_symlink():
                _check_link(path, root)
            if item.is_dir():
                if item.name in _SKIPPED or item.name.startswith("."):
                    if self._empty is not None and item.name not in _SKIPPED:
                        self.warnings.append(f"{path} is a hidden directory, and stays away")
                    continue
                real = path.resolve()
                if real in above:
                    raise InvalidArchive(f"{path} is a link to a directory that holds it")
                self._add_directory(path, f"{prefix}{item.name}/", root, (*above, real))
            elif not is_temporary(item.name):
                self.add(from_file(f"{prefix}{item.name}", path))
            taken += 1
        if self._empty is not None and not taken and len(above) > 1:
            self.add(from_bytes(f"{prefix}{self._empty}", b"", origin=str(directory)))


def _check_link(path: Path, root: Path) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as exc:  # RuntimeError: a loop, before Python 3.13
        raise InvalidArchive(f"{path} is a symbolic link to nothing") from exc
    if not target.is_relative_to(root):
        raise InvalidArchive(
            f"{path} is a symbolic link out of its directory, to {target}: copy the file there (cp -L)"
        )


def _equal(one: Entry, other: Entry) -> bool:
    if one.size != other.size:
        return False
    if one.path is not None and other.path is not None and one.path.samefile(other.path):
        return True
    return all(left == right for left, right in zip_longest(one.chunks(), other.chunks()))
