"""Bundles for tests: the bytes that `marway pack --backend NAME` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from marway.archives.entries import BUNDLE_MANIFEST_NAME, from_bytes
from marway.archives.zipformat import write_archive
from marway.bundles import BundleManifest

__all__ = ["write_bundle"]


def write_bundle(path: Path, backend: str, files: Mapping[str, bytes] | None = None, **facts: object) -> Path:
    """Write a bundle with these files below its root, and return its path.

    Args:
        path: Where.
        backend: What it is for.
        files: Contents by name; none make an empty bundle.
        facts: More of its manifest: `name`, `version`, `server_model`.
    """
    manifest = BundleManifest.model_validate({"name": "tiny", "version": "1.0", "backend": backend, **facts})
    told = from_bytes(BUNDLE_MANIFEST_NAME, manifest.model_dump_json(exclude_none=True).encode())
    entries = [told, *(from_bytes(f"{manifest.root}/{name}", data) for name, data in (files or {}).items())]
    with path.open("xb") as out:
        write_archive(out, entries, lambda _: None)
    return path
