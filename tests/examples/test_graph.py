"""The example of a graph, run with the one command that its page shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.every import LONG

ROOT = Path(__file__).parents[2]


# When there is time: each of its steps is in tests/gateway/graph, tests/archiver and tests/observations/why.
@pytest.mark.extended
@pytest.mark.e2e
@pytest.mark.skipif(not LONG, reason="trains three models: make test-long")
def test_two_models_make_one_answer() -> None:
    """`make example-graph` prints the answer of both models, one without a picture, and every step of the first."""
    without = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    done = subprocess.run(
        ["make", "example-graph", f"VENV={sys.prefix}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
        env={name: value for name, value in os.environ.items() if name not in without},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('→ {"wants": "set_alarm", "hour": "7"}') == 2
    assert "x-marway-graph: digit=failed" in done.stdout
    assert 'desc="intent 1.1"' in done.stdout
    for step in ("intent: intent 1.0 (PROD): ok", "digit: digits 1.0 (PROD): ok"):
        assert step in done.stdout
