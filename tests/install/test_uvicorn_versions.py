"""Our HTTP server on each minor version of uvicorn that pyproject.toml allows; other tests run with the pinned one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import lowest

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
# Extended: the lowest version and the pinned one run whole suites.
pytestmark = [pytest.mark.install, pytest.mark.timeout(600), pytest.mark.extended]


def on_the_index() -> set[int]:
    """Return the minor versions of uvicorn 0 that pip finds."""
    done = subprocess.run([*PIP, "index", "versions", "uvicorn"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {int(minor) for minor in re.findall(r"\b0\.(\d+)\.\d+", done.stdout)}


def serve(minor: int, directory: Path) -> str:
    """Install the newest release of a minor version there, run our server on it, and return its version."""
    install = ("install", "-q", "--no-deps", "--target", str(directory), f"uvicorn==0.{minor}.*")
    subprocess.run([*PIP, *install], check=True, timeout=120)
    script = lowest.ROOT / "tests" / "support" / "one_server.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env=lowest.environment(directory),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


def test_every_minor_version(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """It answers, keeps a connection, finishes what is in flight and stops, from the lowest version to the newest."""
    found = on_the_index()
    lowest_minor = int(lowest.lowest()["uvicorn"].split(".")[1])
    assert found, "pip finds no uvicorn"
    for minor in range(lowest_minor, max(found) + 1):
        with subtests.test(f"uvicorn 0.{minor}"):
            if minor not in found:
                pytest.skip(f"uvicorn 0.{minor} is not on the index")
            assert serve(minor, tmp_path / str(minor)).startswith(f"0.{minor}.")
