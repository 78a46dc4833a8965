"""A publish that is killed at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import killed_publish

LONG = bool(os.environ.get("MARWAY_TEST_LONG"))


@pytest.mark.extended  # test_power_cuts.py, and test_gc_under_writes.py with kills
@pytest.mark.timeout(900)
def test_killed_publish(store_url: str, tmp_path: Path) -> None:
    """Kill -9 at any point of a publish leaves no partial archive and no dangling label; publishing again succeeds."""
    tries = 100 if LONG or store_url.startswith("file") else 10
    done = subprocess.run(
        [sys.executable, killed_publish.__file__, store_url, str(tmp_path), "--tries", str(tries)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=800,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert len(found["tried"]) >= min(tries, found["points"])
