"""The examples of other model servers, each run with the one command that its page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from support.servers.environments import environment
from support.trained import EXAMPLES

# Extended: tests/backends serve from the same servers; tests/ops/test_up_plan.py has how a server is kept up.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400), pytest.mark.extended]


@pytest.mark.parametrize("name", ["triton", "mlserver"])
def test_it_tells_its_story(name: str) -> None:
    """Two versions are released and asked in both ways, the first is put back, and everything ends."""
    environment(name)  # which an example would make itself, and say so
    done = subprocess.run(
        [sys.executable, EXAMPLES / name / "run.py"], capture_output=True, text=True, timeout=360,
        env={key: value for key, value in os.environ.items() if not key.startswith("MARWAY_")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    asked = re.findall(r"^POST /(v2|predict)/\S+ → version (\S+): (\d), with probability", done.stdout, re.MULTILINE)
    ways = [(way, version) for way, version, _ in asked]
    assert ways == [(way, version) for version in ("1.0", "2.0", "1.0") for way in ("v2", "predict")]
    assert re.search(r"^stopped in [\d.]+ s with exit status 0$", done.stdout, re.MULTILINE)
