"""What `make bench-features` switches off in a gateway is still there to be switched off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
_SWITCH_ALL = (
    "import gateway_without as without; [switch() for switch in without.SEAMS.values()]; print(len(without.SEAMS))"
)


def test_every_seam_of_the_benchmark_exists() -> None:
    """Each feature can be switched off: the function that the benchmark replaces has not gone or changed its name."""
    done = subprocess.run(
        [sys.executable, "-c", _SWITCH_ALL], cwd=BENCHMARKS, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 6
