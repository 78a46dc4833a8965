"""The example of a predictor over gRPC: its service is the sidecar's, and its one command goes all the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "grpc_predictor"


def test_its_service_is_the_sidecars() -> None:
    """The file that a predictor is made from says what the sidecar asks."""
    asked = ROOT / "sidecar/marway_sidecar/backends/grpc_predictor/proto/predictor.proto"
    assert (EXAMPLE / "predictor.proto").read_bytes() == asked.read_bytes()


# Extended: tests/sidecar/backends/test_grpc_predictor.py has each step but the training.
@pytest.mark.extended
@pytest.mark.e2e
def test_it_trains_releases_and_answers() -> None:
    """`make example-grpc-predictor` prints what the model says of each sentence and ends with status 0."""
    without = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    done = subprocess.run(
        ["make", "example-grpc-predictor", f"VENV={sys.prefix}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env={name: value for name, value in os.environ.items() if name not in without},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for intent in ("set_alarm", "play_music", "weather"):
        assert f'→ {{"result": "{intent}"}}' in done.stdout
    assert "in the predictor's model directory: mv_" in done.stdout
