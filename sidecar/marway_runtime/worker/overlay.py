"""How a worker that TorchServe starts finds its version's environment: by what its archive's manifest says.

TorchServe gives a worker the directory of its archive, and tells it the version's name only when it is to load it; by
then what an environment replaces may have been imported. Standard library only, for it is asked before all else.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["OVERLAYS_ENV", "find_overlay", "plain_command", "read_manifest", "write_overlay"]

OVERLAYS_ENV: Final = "MARWAY_WORKER_OVERLAYS"
"""Environment variable that names the directory where `write_overlay` writes."""

_MANIFEST: Final = "MAR-INF/MANIFEST.json"


def read_manifest(model_dir: str | Path) -> Mapping[str, Any]:
    """Return what the manifest of an unpacked archive says, nothing where there is none or it cannot be read."""
    try:
        found = json.loads(Path(model_dir, _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def find_overlay(manifest: Mapping[str, Any], overlays: str | None) -> str | None:
    """Return what goes in front of Python's packages for a version, if anything does.

    Without a requirements file there is nothing, and no file is looked for.
    """
    model = manifest.get("model")
    if not overlays or not isinstance(model, dict) or not model.get("requirementsFile"):
        return None
    name = _file(str(model.get("modelName")), str(model.get("modelVersion")))
    with contextlib.suppress(OSError):
        return (Path(overlays) / name).read_text() or None
    return None


def plain_command(home: object, reason: str, arguments: Sequence[str], *, overlay: object | None = None) -> list[str]:
    """Return the command that starts a worker as a Python of its own (`marway_runtime.worker`)."""
    # Isolated: nothing in an archive is taken for a package of the worker's.
    command = [sys.executable, "-I", "-u", "-B", "-m", "marway_runtime.worker", "--home", str(home), "--reason", reason]
    if overlay is not None:
        command += ["--overlay", str(overlay)]
    return [*command, "--", *arguments]


def write_overlay(overlays: Path, name: str, version: str, overlay: Path | None) -> None:
    """Say what goes in front of Python's packages for a version; None for nothing."""
    path = overlays / _file(name, version)
    if overlay is None:
        path.unlink(missing_ok=True)
        return
    overlays.mkdir(mode=0o700, exist_ok=True)
    unready = path.with_name(f".{os.getpid()}-{path.name}")
    unready.write_text(str(overlay))
    unready.replace(path)


def _file(name: str, version: str) -> str:
    return f"{name}@{version}".replace("/", "_")
