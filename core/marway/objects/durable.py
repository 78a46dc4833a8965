"""Files below one root that last once they are seen: they are fsynced, and so are the names that lead to them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from marway.errors import RegistryUnavailable
from marway.objects.base import ObjectExists
from marway.objects.files import Files

__all__ = ["DurableFiles"]


class DurableFiles:
    """Makes files below ``root``, each in a temporary file first.

    Args:
        root: The directory; it is made by the first write.
        files: How the disk is changed.
    """

    def __init__(self, root: Path, files: Files) -> None:
        self._root = root
        self._files = files
        self._lasting: set[Path] = set()

    @contextlib.contextmanager
    def temporary(self, directory: Path, prefix: str) -> Iterator[tuple[int, Path]]:
        """Yield descriptor and path of a temporary file in ``directory``, which is made; the file goes in the end."""
        self._make_lasting(directory)
        try:
            descriptor, temporary = self._files.create_temporary(directory, prefix)
        except FileNotFoundError:  # somebody removed the directory since this process made sure of it
            self._lasting.clear()
            self._make_lasting(directory)
            descriptor, temporary = self._files.create_temporary(directory, prefix)
        try:
            yield descriptor, temporary
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                self._files.unlink(temporary)

    def link(self, descriptor: int, temporary: Path, target: Path) -> None:
        """Let a temporary file be seen as ``target``.

        Raises:
            ObjectExists: There is one already, which lasts from now on.
        """
        self._files.sync(descriptor)
        try:
            self._files.link(temporary, target)
        except FileExistsError as exc:
            self._files.sync_directory(target.parent)
            raise ObjectExists(target.name) from exc
        except FileNotFoundError as exc:
            raise RegistryUnavailable(
                f"registry directory {self._root}: {temporary.name} was removed while it was being written: try again"
            ) from exc
        self._files.sync_directory(target.parent)

    def not_a_directory(self, path: Path) -> RegistryUnavailable:
        """Return the error about a file where a directory should be."""
        return RegistryUnavailable(f"registry directory {self._root}: {path} is a file, not a directory")

    def _make_lasting(self, directory: Path) -> None:
        """Make a directory and those above it, each fsynced in its parent at least once by this process."""
        if directory in self._lasting:
            return
        above = directory.parent
        if directory != self._root:
            self._make_lasting(above)
        elif not above.exists():
            above.mkdir(parents=True, exist_ok=True)
        made = self._files.make_directory(directory)
        if not made and not directory.is_dir():
            raise self.not_a_directory(directory)
        # What lies above the root is none of ours: it may not even be readable.
        if made or directory != self._root:
            self._files.sync_directory(above)
        self._lasting.add(directory)
