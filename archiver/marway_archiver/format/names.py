"""Names of files inside an archive: portable, below the root, and unlike one another on every file system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from marway.errors import InvalidArchive, clip

__all__ = [
    "MANIFEST_NAME",
    "MAX_COMPONENT_BYTES",
    "MAX_ENTRIES",
    "MAX_NAME_BYTES",
    "canonical_order",
    "check_name",
    "check_no_collisions",
    "shown",
]

MANIFEST_NAME = "MAR-INF/MANIFEST.json"
"""Where an archive holds its manifest."""
MAX_COMPONENT_BYTES = 255
"""Longest file or directory name, in bytes of UTF-8: what the usual file systems take."""
MAX_ENTRIES = 10_000
"""Most files in an archive."""
MAX_NAME_BYTES = 1024
"""Longest path in an archive, in bytes of UTF-8: leaves room for the directory it is unpacked below."""

_DRIVE = re.compile(r"[A-Za-z]:")


def shown(name: str) -> str:
    """Return ``name`` quoted and cut, so that an untrusted one is safe on a terminal."""
    return clip(ascii(name), 160)


def check_name(name: str) -> str:
    """Return ``name`` if a file of that name unpacks everywhere to the same place, else raise.

    Raises:
        InvalidArchive: It is empty, absolute, has a drive letter, a backslash, a control character, a
            component that is empty, `.`, `..`, too long or ends with a dot or a space, or is no UTF-8.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError as exc:
        raise InvalidArchive(f"{shown(name)} is not a UTF-8 name") from exc
    if not name:
        raise InvalidArchive("an entry has an empty name")
    if any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in name):
        raise InvalidArchive(f"{shown(name)} has a control character in its name")
    if name.startswith("/") or _DRIVE.match(name):
        raise InvalidArchive(f"{shown(name)} is an absolute path")
    if "\\" in name:
        raise InvalidArchive(f"{shown(name)} has a backslash in its name, which is a separator elsewhere")
    if len(encoded) > MAX_NAME_BYTES:
        raise InvalidArchive(f"{shown(name)} is longer than {MAX_NAME_BYTES} bytes")
    for component in name.split("/"):
        if component == "..":
            raise InvalidArchive(f"{shown(name)} leaves the archive's directory ('..')")
        if component in {"", "."}:
            raise InvalidArchive(f"{shown(name)} has an empty component or '.' in its path")
        if component[-1] in ". ":
            raise InvalidArchive(f"{shown(name)} has a component that ends with a dot or a space")
        if len(component.encode()) > MAX_COMPONENT_BYTES:
            raise InvalidArchive(f"{shown(name)} has a component longer than {MAX_COMPONENT_BYTES} bytes")
    return name


def check_no_collisions(names: Iterable[str]) -> None:
    """Refuse names that fall together on a file system that ignores case or Unicode form.

    Raises:
        InvalidArchive: Two names are one, differ only in case or form, or one is a directory of another.
    """
    files: dict[str, str] = {}
    for name in names:
        folded = _fold(name)
        if folded in files:
            other = files[folded]
            if other == name:
                raise InvalidArchive(f"{shown(name)} is there twice")
            raise InvalidArchive(
                f"{shown(other)} and {shown(name)} differ only in case: they are one file on some systems"
            )
        files[folded] = name
    for folded, name in files.items():
        parent = folded
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in files:
                raise InvalidArchive(f"{shown(files[parent])} is a file, and a directory of {shown(name)}")


def canonical_order(name: str) -> tuple[bool, bytes]:
    """Sort key of entries: the manifest first, the others by the bytes of their names."""
    return name != MANIFEST_NAME, name.encode()


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
