"""What Marway's speed is judged against: TorchServe as anybody would tune it, and beside it a stricter one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from marway_runtime.engines.torchserve.configuration import command_line
from marway_runtime.resources import cpu_count
from marway_runtime.settings import RuntimeSettings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
POOL = "-Djava.util.concurrent.ForkJoinPool.common.parallelism="
STOCK, ONE, EIGHT, TWO_WORKERS = (
    "stock TorchServe",
    "tuned, batch 1",
    "tuned, batch 8 / 1 ms",
    "tuned, batch 1, 2 workers",
)
POOLED_ONE, POOLED_EIGHT = "tuned + Java pool, batch 1", "tuned + Java pool, batch 8 / 1 ms"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what imports a module of the benchmarks, which are scripts and no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def measured(rates: dict[str, float], clients: tuple[int, ...]) -> dict[str, Any]:
    """Return a workload's figures: three rounds of the same requests/s, and of a p50 that is 1000 / requests/s."""
    each = {name: {"rate": [rate] * 3, "p50": [1000 / rate] * 3} for name, rate in rates.items()}
    return {
        "title": "",
        "clients": list(clients),
        "targets": {name: {str(count): found for count in clients} for name, found in each.items()},
    }


def rows(table: str, what: str) -> list[list[str]]:
    """Return what a table says of something: against what, goal, reached, verdict."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [row[1:] for row in cells if row[0] == what]


def test_goals_are_judged_without_our_own_repair_and_the_stricter_figure_stands_below(benchmarks: Any) -> None:
    """A goal against tuned TorchServe is met or not by the plain one alone; the row below has no verdict."""
    rates = {STOCK: 500.0, ONE: 1000.0, EIGHT: 8000.0, POOLED_ONE: 2000.0, POOLED_EIGHT: 10_000.0, "Marway": 2500.0}
    table = benchmarks("goals").markdown({"speed": {"tiny": measured(rates, (1, 32, 64))}})
    assert rows(table, "tiny, 32 clients")[:5] == [
        [STOCK, "≥ 3x requests/s", "5.00x (5.00 to 5.00)", "met"],
        [ONE, "≥ 1.7x requests/s", "2.50x (2.50 to 2.50)", "met"],
        [POOLED_ONE, "no goal: stricter", "1.25x (1.25 to 1.25)", ""],
        [EIGHT, "≥ 0.55x requests/s", "0.31x (0.31 to 0.31)", "**missed**"],
        [POOLED_EIGHT, "no goal: stricter", "0.25x (0.25 to 0.25)", ""],
    ]
    assert [row[0] for row in rows(table, "tiny, 64 clients")] == [STOCK, EIGHT, POOLED_EIGHT]
    assert rows(table, "tiny, 1 client") == [
        [ONE, "p50 ≤ +0.7 ms", "-0.60 ms (-0.60 to -0.60)", "met"],
        [POOLED_ONE, "no goal: stricter", "-0.10 ms (-0.10 to -0.10)", ""],
        [EIGHT, "p50 faster", "+0.28 ms (+0.28 to +0.28)", "**missed**"],
        [POOLED_EIGHT, "no goal: stricter", "+0.30 ms (+0.30 to +0.30)", ""],
    ]
    assert "repair of Marway's own" in table


def test_a_document_without_the_stricter_baseline_says_nothing_of_it(benchmarks: Any) -> None:
    """Goals of what was measured before there was a stricter baseline stand as they were; nothing is missing."""
    rates = {STOCK: 500.0, ONE: 1000.0, EIGHT: 8000.0, "Marway": 2500.0}
    table = benchmarks("goals").markdown({"speed": {"tiny": measured(rates, (1, 32, 64))}})
    assert [row[0] for row in rows(table, "tiny, 64 clients")] == [STOCK, EIGHT]
    assert "Java pool" not in table
    nothing = benchmarks("goals").markdown({})
    assert rows(nothing, "tiny, 64 clients") == [
        [STOCK, "≥ 4.5x requests/s", "not measured", ""],
        [EIGHT, "≥ 0.7x requests/s", "not measured", ""],
    ]


def test_the_best_setting_is_one_that_anybody_would_tune(benchmarks: Any) -> None:
    """Of tuned settings the best is taken; neither stock TorchServe nor one with our repair is one of them."""
    rates = {STOCK: 90.0, ONE: 30.0, TWO_WORKERS: 60.0, EIGHT: 40.0, POOLED_ONE: 95.0, "Marway": 66.0}
    table = benchmarks("goals").markdown({"speed": {"efficientnet": measured(rates, (1, 8))}})
    (row,) = rows(table, "efficientnet, 8 clients")
    assert row == ["tuned, best setting", "≥ 0.97x requests/s", f"1.10x (1.10 to 1.10) of {TWO_WORKERS}", "met"]


def test_goals_of_the_native_engine_are_judged_on_its_own_targets(benchmarks: Any) -> None:
    """Both hops and the sidecar are each held against their own goal; what was not measured says so, never met."""
    native = benchmarks("native_goals")
    rates = {ONE: 1000.0, EIGHT: 8000.0, POOLED_EIGHT: 9000.0, "KServe SDK": 900.0}
    rates |= {native.BOTH_HOPS: 8000.0, native.SIDECAR: 9900.0}
    found = measured(rates, (1, 8, 32, 64))
    for each in found["targets"].values():
        for figures in each.values():
            figures |= {"p99": figures["p50"], "cpu": {}}
    result = {"workloads": {"tiny": found}, "left_out": {"BentoML": "it has no environment here"}}
    result |= {
        "cold": {"native": [0.04] * 3, "torchserve": [1.0] * 3},
        "memory": {"native": 300.0, "torchserve": 600.0},
    }
    table = native.markdown(result)
    assert rows(table, f"tiny, 64 clients, {native.BOTH_HOPS}") == [
        [EIGHT, "≥ 1.1x requests/s", "1.00x (1.00 to 1.00)", "**missed**"]
    ]
    assert rows(table, f"tiny, 64 clients, {native.SIDECAR}") == [
        [POOLED_EIGHT, "≥ 1x requests/s", "1.10x (1.10 to 1.10)", "met"]
    ]
    peers = {row[0]: row[-1] for row in rows(table, f"tiny, 8, 32, 64 clients, {native.BOTH_HOPS}")}
    assert (peers["KServe SDK"], peers["BentoML"]) == ("met", "")
    assert [row[2:] for row in rows(table, "archive on disk to first answer, tiny model")] == [
        ["25.00x (25.00 to 25.00)", "met"],
        ["0.040 s (0.040 to 0.040)", "met"],
    ]
    assert rows(table, "memory of a pod with 20 idle tiny models")[0][-1] == "**missed**"
    assert "- BentoML was not measured: it has no environment here" in table


def test_tuned_torchserve_has_the_pool_that_java_itself_chooses(
    benchmarks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The last of the options for the pool, which Java takes, is its own default and not that of the runtime."""
    places = {"home": tmp_path, "worker": tmp_path, "temporary": tmp_path, "config": tmp_path}
    usual = [word for word in command_line(RuntimeSettings(), **places) if word.startswith(POOL)]
    for name, value in benchmarks("servers").javas_own_pool().items():
        monkeypatch.setenv(name, value)
    found = [word for word in command_line(RuntimeSettings(), **places) if word.startswith(POOL)]
    assert len(usual) == 1
    assert found == [*usual, f"{POOL}{max(1, cpu_count() - 1)}"]
