"""Unpacks a bundle's files into a directory that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from marway.archives.entries import reason
from marway.bundles.manifest import EMPTY_DIRECTORY, BundleManifest
from marway.bundles.reading import Bundle, content_of, opened_bundle
from marway.errors import InvalidArchive, LoadFailed

__all__ = ["UNPACKING_PREFIX", "unpack_bundle"]

UNPACKING_PREFIX: Final = ".marway-unpacking-"
"""How the name of a directory begins that a bundle is being unpacked to, beside its target: one whose process is dead
can be removed."""

_FILE_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o755


def unpack_bundle(path: Path, target: Path) -> BundleManifest:
    """Unpack the files below a bundle's root as the new directory ``target``, whose parent is there. Blocks.

    Files get mode 0644 and directories 0755, whatever the umask: the server may be another user.

    Returns:
        What the bundle says of itself.

    Raises:
        InvalidArchive: It is not a bundle as packing writes one, or is damaged.
        LoadFailed: ``target`` is there, or cannot be written.
    """
    with opened_bundle(path) as bundle:
        if os.path.lexists(target):
            raise LoadFailed(f"{path} cannot be unpacked: {target} is there")
        temporary: Path | None = None
        try:
            temporary = Path(tempfile.mkdtemp(prefix=UNPACKING_PREFIX, dir=target.parent))
            _write(bundle, temporary)
            temporary.chmod(_DIRECTORY_MODE)
            temporary.rename(target)
        except InvalidArchive as exc:
            raise InvalidArchive(f"{path}: {exc.message}") from exc
        except OSError as exc:
            raise LoadFailed(f"{path} cannot be unpacked to {target}: {reason(exc)}") from exc
        finally:
            if temporary is not None:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(temporary)
        return bundle.manifest


def _write(bundle: Bundle, directory: Path) -> None:
    below = f"{bundle.manifest.root}/"
    for each in bundle.files:
        if not each.name.startswith(below):
            continue
        place = directory / each.name.removeprefix(below)
        _make(place.parent, directory)
        if place.name == EMPTY_DIRECTORY:
            continue
        with place.open("xb") as out:
            for chunk in content_of(bundle.file, each):
                out.write(chunk)
            os.fchmod(out.fileno(), _FILE_MODE)


def _make(directory: Path, root: Path) -> None:
    """Make a directory and those that lead to it from ``root``."""
    if directory == root or directory.is_dir():
        return
    _make(directory.parent, root)
    directory.mkdir()
    directory.chmod(_DIRECTORY_MODE)
