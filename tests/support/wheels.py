"""Small wheels, made by a test, and a publisher's Python that is offered nothing else."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from marway.records import VersionRecord
from marway_archiver import publish

__all__ = ["only_these", "published", "wheel"]

HANDLER = """\
import importlib.metadata, os
import marway_probe

def handle(data, context):
    if data is None:
        return None
    found = {name: importlib.metadata.version(name) for name in ("idna", "numpy")}
    return [{"probe": marway_probe.WHAT, "pid": os.getpid(), **found}] * len(data)
"""


def wheel(
    directory: Path, name: str, version: str, source: str = "", requires: Sequence[str] = (), tag: str = "py3-none-any"
) -> Path:
    """Write a wheel of one module, and return it."""
    directory.mkdir(exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    path = directory / f"{module}-{version}-{tag}.whl"
    needed = "".join(f"Requires-Dist: {each}\n" for each in requires)
    with zipfile.ZipFile(path, "w") as target:
        target.writestr(f"{module}.py", source)
        target.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        target.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        target.writestr(f"{info}/RECORD", "")
    return path


def only_these(monkeypatch: pytest.MonkeyPatch, wheels: Path) -> None:
    """Have uv find wheels in a directory, and nowhere else."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))


def published(
    directory: Path, registry: str, requirements: str, *, version: str = "1.0", handler: str = HANDLER, **options: Any
) -> VersionRecord:
    """Publish a version of the model `needs` with these requirements."""
    directory.mkdir(exist_ok=True)
    (directory / "its_handler.py").write_text(handler)
    (directory / "requirements.txt").write_text(requirements)
    return publish(
        model_name="needs", version=version, handler=str(directory / "its_handler.py"), registry=registry,
        requirements_file=directory / "requirements.txt", **options,
    )  # fmt: skip
