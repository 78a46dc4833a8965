"""Looks at a pod's model server for `marway doctor`: whether it answers, which one it is, what its backend says of it.

Nothing is loaded or unloaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from marway.errors import MarwayError
from marway.wire.pods import Remark
from marway_sidecar.backends.base import Backend

__all__ = ["examine", "of_directory", "of_versions"]


async def examine(backend: Backend) -> list[Remark]:
    """Return what there is to say of the server that a backend finds, the first thing whether it answers."""
    backend.only_looks = True
    server = backend.connect()
    if server is None:
        return [Remark("problem", backend.trouble(found=False), "start it, or see its settings")]
    try:
        await server.is_same(timeout_s=backend.probe_timeout_s)
        names = (await server.status()).server_names
    except MarwayError as exc:
        advice = "start it, or see its address in the settings of the sidecar"
        return [Remark("problem", f"{backend.trouble(found=True)}: {exc.message}", advice)]
    else:
        versions = server.info.versions
        shown = ", ".join(f"{name} {versions[name]}".rstrip() for name in sorted(versions)) or backend.name
        loaded = f"{len(names)} {'version' if len(names) == 1 else 'versions'}"
        found = [Remark("ok", f"{shown} answers, with {loaded} loaded"), *of_versions(backend.tested, versions)]
        found += of_directory(backend.directory) if backend.directory is not None else []
        try:
            found += await backend.examine(server)
        except MarwayError as exc:
            found.append(Remark("problem", exc.message, "see the server's log"))
        return found
    finally:
        await server.aclose()


def of_versions(tested: Mapping[str, str], versions: Mapping[str, str]) -> list[Remark]:
    """Return a warning for each server of another version than those that tests run: the first two numbers count."""
    found = []
    for name, known in tested.items():
        version = versions.get(name)
        if version and version.split(".")[:2] != known.split(".")[:2]:
            advice = "prove your versions on it: `marway load MODEL/VERSION --prove` compares their golden answers"
            found.append(Remark("warning", f"{name} {version} was not tried with Marway, {known} was", advice))
    return found


def of_directory(directory: Path) -> list[Remark]:
    """Return what is wrong with a directory that the sidecar writes and the server reads."""
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        advice = "give this user the right to write there: versions are unpacked into it"
        return [Remark("problem", f"{directory}, shared with the server, cannot be written", advice)]
    if existing != directory:
        found = f"{directory}, to be shared with the server, is not there yet"
        return [Remark("warning", found, "make it, and see that the server reads the same directory")]
    return []
