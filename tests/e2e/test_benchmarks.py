"""The benchmarks run and print their figures; what the figures are is not for a test to say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("script", "arguments", "figure"),
    [
        ("bench_path.py", ["--rounds", "1", "--requests", "20"], r"gateway → sidecar +p50 +[\d.]+ .* [\d.]+x"),
        (
            "bench_cache.py",
            ["--rounds", "1", "--requests", "40"],
            r"cache / without = [\d.]+\n.*\n.*cache / without = [\d.]+",
        ),
        ("bench_fetch.py", ["--rounds", "1", "--size-mib", "16"], r"4 streams / 1 stream = [\d.]+ for 16 MiB"),
        (
            "bench_gateway.py",
            ["--models", "50", "--requests", "100", "--pods", "10"],
            r"resolve, warm: .*p99 [\d.]+ ms.*\n.*memory: \d+ MiB.*\nchoosing a pod: .*p99 [\d.]+ µs of 10",
        ),
        ("bench_logging.py", ["--rounds", "1", "--requests", "20"], r"quiet / stock = [\d.]+x requests/s, [\d.]+x"),
        ("bench_cold.py", ["--rounds", "1"], r"cold start: [\d.]+ times faster\nmemory: +[\d.]+ times smaller"),
        (
            "bench_speed.py",
            ["--rounds", "1", "--seconds", "1", "--clients", "1,8"],
            r"Marway at 8 clients: stock TorchServe [\d.]+x, tuned, batch 1 [\d.]+x",
        ),
        ("bench_publish.py", ["--rounds", "1", "--size-mib", "16"], r"publish / upload_file = [\d.]+ for 16 MiB"),
    ],
)
def test_benchmarks_print_their_figure(script: str, arguments: list[str], figure: str) -> None:
    """A benchmark at its smallest ends with status 0 and prints its ratio."""
    if script == "bench_speed.py" and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(figure, done.stdout), done.stdout
    print(done.stdout)
