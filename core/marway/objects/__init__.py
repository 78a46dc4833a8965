"""Object stores and how a URL opens one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from marway.errors import InvalidSettings, clip
from marway.objects.base import (
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    ObjectStore,
    Progress,
    StoredObject,
)
from marway.objects.directory import DirectoryStore

__all__ = [
    "DirectoryStore",
    "ObjectChanged",
    "ObjectExists",
    "ObjectMissing",
    "ObjectStore",
    "Progress",
    "StoredObject",
    "open_store",
]


def open_store(url: str) -> ObjectStore:
    """Open the object store that ``url`` names: ``s3://bucket/prefix``, ``file:///path``, or a plain path.

    Raises:
        InvalidSettings: The URL is of no known kind, or names nothing that can be used.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InvalidSettings(
                f"registry {clip(url, 200)!r} has a host in it: a directory is file:///path, with three slashes"
            )
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        from marway.objects.s3 import S3Store  # boto3 takes a third of a second to import: only who uses it pays

        return S3Store(url)
    if parts.scheme == "" and url:
        return DirectoryStore(Path(url).expanduser())
    raise InvalidSettings(f"registry {clip(url, 200)!r} is of no known kind: use s3://bucket/prefix or file:///path")
