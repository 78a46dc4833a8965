"""The example of monitoring: its one command goes all the way, from serving to the webhook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


# Extended: tests/observations/evaluate has the gate, tests/gateway/events the webhook, tests/gateway/feedback truth.
@pytest.mark.extended
@pytest.mark.e2e
def test_quality_falls_and_the_webhook_is_told() -> None:
    """`make example-monitoring` shows the event with the figure, what Marway knows of it, and ends with status 0."""
    without = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    done = subprocess.run(
        ["make", "example-monitoring", f"VENV={sys.prefix}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env={name: value for name, value in os.environ.items() if name not in without},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"(\d+) of 192 were right", done.stdout)[0] == "181"
    (event,) = re.findall(r"webhook ← dev.marway.model.quality_below_minimum intent (\{.*\})", done.stdout)
    assert '"minimum": 0.85' in event
    for command in ("quality intent", "events intent", "why "):
        assert f"$ marway {command}" in done.stdout
    assert "with exit status 0" in done.stdout
