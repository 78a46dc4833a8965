"""The benchmarks run and print their figures; what the figures are is not for a test to say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from support.every import LONG

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
# Extended: tests/benchmarks have the parts of the benchmarks.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.extended]


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "figure"),
    [
        (
            "bench_change.py",
            ["--rounds", "1", "--seconds", "1", "--clients", "2", "--surfaces", "native,v2 gRPC"],
            r"native +2 clients: [\d.]+x requests/s.*\nv2 gRPC +2 clients: [\d.]+x requests/s",
        ),
        ("bench_bandit.py", ["--runs", "2"], r"the same \| Marway \| [\d.]+ %"),
        ("bench_fetch.py", ["--rounds", "1", "--size-mib", "16"], r"4 streams / 1 stream = [\d.]+ for 16 MiB"),
        (
            "bench_gateway.py",
            ["--models", "50", "--requests", "100", "--pods", "10"],
            r"resolve, warm: .*p99 [\d.]+ ms.*\n.*memory: \d+ MiB.*\nchoosing a pod: .*p99 [\d.]+ µs of 10",
        ),
        (
            "bench_graphs.py",
            ["--rounds", "1", "--requests", "2"],
            r"one more node of a sequence \| *\| [\d.-]+ .*direct calls[^$]*side by side: slowest \+ [\d.-]+ ms a node",
        ),
        (
            "bench_http.py",
            ["--rounds", "1", "--seconds", "1"],
            r"ours, by channel +\d+ requests/s +[\d.]+x of uvicorn's own",
        ),
        ("bench_logging.py", ["--rounds", "1", "--requests", "20"], r"quiet / stock = [\d.]+x requests/s, [\d.]+x"),
        ("bench_path.py", ["--rounds", "1", "--requests", "20"], r"gateway → sidecar +p50 +[\d.]+ .* [\d.]+x"),
        ("bench_weights.py", ["--rounds", "1", "--mib", "48"], r"a second worker is ready \d+ times sooner"),
        ("bench_publish.py", ["--rounds", "1", "--size-mib", "16"], r"publish / upload_file = [\d.]+ for 16 MiB"),
    ],
)
def test_benchmarks_print_their_figure(script: str, arguments: list[str], figure: str) -> None:
    """A benchmark at its smallest ends with status 0 and prints its ratio."""
    printed = run(script, *arguments)
    assert re.search(figure, printed), printed
    print(printed)


@pytest.mark.skipif(not LONG, reason="measures for some minutes: make test-long")
def test_the_report_has_every_part(tmp_path: Path) -> None:
    """`make bench` at its smallest measures each part, checks answers, and writes goals, tables and charts."""
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    parts = ["speed", "features", "cache", "bodies", "cold", "workers"]
    run("bench_all.py", "--quick", "--only", ",".join(parts), "--out", str(tmp_path))
    report = (tmp_path / "latest.md").read_text()
    for figure in (
        r"\| 8 \| tuned, batch 8 / 1 ms \| \d+ \|.*JVM [\d.]+, worker [\d.]+",
        r"\| 8 \| tuned \+ Java pool, batch 8 / 1 ms \| \d+ \|.*JVM [\d.]+, worker [\d.]+",
        r"\| 8 \| Marway \| \d+ \| .*gateway [\d.]+, sidecar [\d.]+, JVM",
        r"\| auth, 32 clients \| .* µs, -?[\d.]+% \| (met|\*\*missed\*\*) \|",
        r"\| cache hit, 32 clients \| .* [\d.]+x \([\d.]+ to [\d.]+\) \| (met|\*\*missed\*\*) \|",
        r"4 predicts of 10 MiB at once \(40 MiB\): 4 answered right, 0 refused or failed",
        r"\| pod: register \| [\d.]+ ",
        r"\| sidecar notices \(wait\) \| [\d.]+ ",
        r": first answer [\d.]+ times sooner, memory [\d.]+ times smaller",
        r"commit ([0-9a-f]{12}|unknown).*torchserve 0\.12\.0; torch ",
    ):
        assert re.search(figure, report), f"{figure}: {report}"
    shown = set(re.findall(r"\]\((.*\.svg)\)", report))
    assert shown == {path.name for path in tmp_path.glob("*.svg")}
    for chart in shown:
        assert ET.parse(tmp_path / chart).getroot().tag.endswith("svg")
    documents = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "data").glob("*.json")}
    assert sorted(documents) == sorted(parts)
    assert all(document["machine"]["kernel"] for document in documents.values())


def test_the_committed_report_is_what_its_documents_say(tmp_path: Path) -> None:
    """latest.md and its charts are made from the committed figures alone: nothing in them was written by hand."""
    results = BENCHMARKS / "results"
    shutil.copytree(results / "data", tmp_path / "data")
    run("report.py", str(tmp_path))
    made = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert made == {path.name: path.read_text() for path in results.iterdir() if path.is_file()}
