"""A directory shared with a model server, in which the files of each loaded version lie below its name there.

Beside them, in `.marway/`, stands for each what it is; nothing else in the directory is ever removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from marway.bundles import UNPACKING_PREFIX, BundleManifest, read_bundle, unpack_bundle
from marway.errors import InvalidArchive, InvalidSettings, LoadFailed
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.errors import about

__all__ = ["ModelDirectory", "Placed", "bundle_of", "hold_directory"]

logger = logging.getLogger(__name__)

_OURS: Final = ".marway"
_HELD: Final[dict[Path, int]] = {}
"""Directories that this process has for itself, and the descriptors of their locks."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A version whose files are, or may be, in the directory."""

    server_name: str
    name: str
    version: str
    archive: str
    """The archive's file name, which has its digest."""


class ModelDirectory:
    """The directory. Every method blocks.

    Args:
        root: It itself; it is made where it is not there. One sidecar uses it.
        only_looks: Whether what is there is another's to know (`Backend.only_looks`).
    """

    def __init__(self, root: Path, *, only_looks: bool = False) -> None:
        self.root = root
        self._only_looks = only_looks
        self._ours = root / _OURS

    def place(self, model: ServedModel, *, below: str = "") -> Path:
        """Unpack a version's bundle, and return where its files are; those that are there already are kept.

        Args:
            model: The version.
            below: A directory of this name is put around them, within the version's own, where the server wants one.

        Raises:
            LoadFailed: It cannot be unpacked, or there is something of somebody else's in its place.
        """
        target = self.root / model.server_name
        files = target / below
        made = False
        placed = Placed(model.server_name, model.name, model.version, model.archive.name)
        try:
            self._ours.mkdir(parents=True, exist_ok=True)
            before = self._read(self._note(model.server_name))
            if before == placed and files.is_dir():
                return files
            if before is not None:
                self.remove(model.server_name)
            elif os.path.lexists(target):
                message = f"{target} is in the way of {model.name} {model.version}, and not Marway's: move it away"
                raise about(model, LoadFailed(message))
            # First what it is: of files without that, nobody would know whose they are.
            self._note(model.server_name).write_text(
                json.dumps({name: getattr(placed, name) for name in Placed.__slots__})
            )
            if below:
                target.mkdir()
                made = True
                target.chmod(0o755)  # the server may be another user
            unpack_bundle(model.archive, files)
        except (InvalidArchive, LoadFailed) as exc:
            self._forget(model.server_name, made=made)
            raise about(model, LoadFailed(exc.message)) from exc
        except OSError as exc:
            self._forget(model.server_name, made=made)
            message = f"{model.name} {model.version} cannot be put into {self.root}: {exc.strerror or exc}"
            raise about(model, LoadFailed(message)) from exc
        return files

    def remove(self, server_name: str) -> None:
        """Remove a version's files, if they are there and ours.

        Raises:
            OSError: They cannot be removed.
        """
        if self._read(self._note(server_name)) is None:
            return
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root / server_name)
        self._note(server_name).unlink(missing_ok=True)

    def left(self) -> list[Placed]:
        """Return what is there, and remove what a process that died had not unpacked whole."""
        if self._only_looks:
            return []
        for half in self.root.glob(f"{UNPACKING_PREFIX}*"):
            shutil.rmtree(half, ignore_errors=True)
        return sorted(self._notes(), key=lambda placed: placed.server_name)

    def _notes(self) -> Iterator[Placed]:
        for file in self._ours.glob("*.json"):
            placed = self._read(file)
            if placed is not None:
                yield placed

    def _note(self, server_name: str) -> Path:
        return self._ours / f"{server_name}.json"

    def _forget(self, server_name: str, *, made: bool) -> None:
        """Forget a version of which nothing is there, but for what was ``made`` around it."""
        if made:
            shutil.rmtree(self.root / server_name, ignore_errors=True)
        with contextlib.suppress(OSError):
            if not os.path.lexists(self.root / server_name):
                self._note(server_name).unlink(missing_ok=True)

    @staticmethod
    def _read(note: Path) -> Placed | None:
        """Return what a note says; one that was not written whole is of files that are not there."""
        try:
            document = json.loads(note.read_text())
            placed = Placed(**{name: str(document[name]) for name in Placed.__slots__})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            placed = Placed(note.stem, note.stem, "", "")
        return placed if placed.server_name == note.stem else None


def hold_directory(root: Path) -> None:
    """Have a directory, made where it is not there, for this process alone until it ends. Blocks.

    What lies in it and was not loaded by this process is taken for what a dead one left: two would undo each other.

    Raises:
        InvalidSettings: Another sidecar has it, or it cannot be written.
    """
    if root in _HELD:
        return
    try:
        (root / _OURS).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / _OURS / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise InvalidSettings(
            f"{root}, which is shared with the model server, cannot be written: {exc.strerror}"
        ) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(descriptor)
        raise InvalidSettings(
            f"{root}, which is shared with the model server, is used by another sidecar: every pod has a server and a "
            "directory of its own"
        ) from exc
    except OSError as exc:  # a file system without locks
        logger.warning("%s cannot be locked (%s): see that no other sidecar uses it", root, exc.strerror)
    _HELD[root] = descriptor  # for as long as this process lives


def bundle_of(model: ServedModel, backend: str) -> BundleManifest:
    """Return what a version's bundle says of itself. Blocks.

    Raises:
        LoadFailed: It is no bundle, or for another backend.
    """
    try:
        manifest = read_bundle(model.archive)
    except InvalidArchive as exc:
        raise about(model, LoadFailed(f"{model.name} {model.version} cannot be loaded: {exc.message}")) from exc
    if manifest.backend != backend:
        message = f"the bundle of {model.name} {model.version} is for the backend {manifest.backend}, not {backend}"
        raise about(model, LoadFailed(f"{message}: pack it again with --backend {backend}"))
    return manifest
