"""The report: benchmarks/results/latest.md and its charts, made from the documents in results/data alone.

`python benchmarks/report.py [DIRECTORY]` makes it again without measuring anything.
"""

import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import bench_bodies
import bench_cache
import bench_cold_path
import bench_features
import bench_graphs
import evidence_tables
import goals
import lookup_tables
import native_goals
import open_inference_tables
import peer_tables
import release_tables
import speed_tables
from charts import Bar, bars
from documents import MARWAY

RESULTS = Path(__file__).parent / "results"
_PAGES: Mapping[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "engines": ("The native engine, TorchServe and other model servers", native_goals.markdown),
    "open_inference": ("Marway before Triton", open_inference_tables.markdown),
    "evidence": ("Evidence of rollouts: false alarms and delay", evidence_tables.markdown),
    "releases": ("A hundred releases", release_tables.markdown),
    "tables": ("Tables of lookup nodes", lookup_tables.markdown),
}
"""What has a page of its own, and not a section of latest.md."""
_PARTS = ("gateway", "sidecar", "JVM", "worker", "runtime")


def write(out: Path = RESULTS) -> str:
    """Write latest.md and its charts into a directory that has documents in ``data``; return the text."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted((out / "data").glob("*.json"))}
    peers = found.get("peers")
    if peers is not None:
        (out / "peers.md").write_text(f"# Marway and its peers\n\n{peer_tables.markdown(peers['result'])}")
    for name, (heading, page) in _PAGES.items():
        document = found.pop(name, None)
        if document is not None:
            text = f"# {heading}\n\n{_measured(document)}\n\n{page(document['result'])}"
            (out / f"{name}.md").write_text(text)
    charts: dict[str, str] = {}
    text = "\n".join(_lines(found, charts)).rstrip() + "\n"
    out.mkdir(parents=True, exist_ok=True)
    for chart in out.glob("*.svg"):
        chart.unlink()
    for name, svg in charts.items():
        (out / f"{name}.svg").write_text(svg)
    (out / "latest.md").write_text(text)
    return text


def _measured(document: Mapping[str, Any]) -> str:
    return f"`{document['command']}`, {document['took_s']:.0f} s, {document['machine']['measured']}"


def _lines(found: Mapping[str, dict[str, Any]], charts: dict[str, str]) -> list[str]:
    lines = ["# Where Marway stands", ""]
    lines += ["Written by `make bench`; [docs/speed.md](../../docs/speed.md) says how to read it. Medians of"]
    lines += ["interleaved rounds, with the least and the greatest; ratios are made within a round. Everything is on:"]
    lines += ["request ids, metrics, access log, trace context. The load generator shares the processors.", ""]
    results = {name: document["result"] for name, document in found.items()}
    took = sum(document["took_s"] for name, document in found.items() if name != "peers")
    lines += [f"All of it but the peers took {took / 60:.1f} minutes.", ""]
    lines += ["## Goals", "", goals.markdown(results)]
    for name, (heading, section) in _SECTIONS.items():
        lines += [f"## {heading}", ""]
        document = found.get(name)
        if document is None:
            lines += ["Not measured.", ""]
            continue
        if "problem" in document:
            lines += [f"**{document['problem'].capitalize()}.**", ""]
        if re.search(r"--rounds 1\b", document["command"]):
            lines += ["**One round: this shows that it works, and its figures mean nothing.**", ""]
        lines += [f"`{document['command']}`, {document['took_s']:.0f} s", "", *section(document["result"], charts), ""]
    lines += ["## Machine and versions", ""]
    for said, parts in _machines(found).items():
        lines += [f"{', '.join(parts)}: {said}", ""]
    return lines


def _machines(found: Mapping[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Return what parts were measured with; usually the same for all but the time and the load before."""
    said: dict[str, list[str]] = {}
    for name, document in found.items():
        text = "; ".join(
            f"{key} {value}" for key, value in document["machine"].items() if key not in ("measured", "load average")
        )
        said.setdefault(text, []).append(f"{name} ({document['machine']['measured']})")
    return said


def _speed(result: dict[str, Any], charts: dict[str, str]) -> list[str]:
    lines: list[str] = []
    for name, workload in result.items():
        lines += [speed_tables.markdown(name, workload)]
        if "error" in workload:
            continue
        charts[f"speed-{name}"] = _rates(name, workload)
        charts[f"cpu-{name}"] = _cpu(name, workload)
        lines += [f"![requests a second, {name}](speed-{name}.svg)", f"![processor time, {name}](cpu-{name}.svg)", ""]
    return lines


def _rates(name: str, workload: dict[str, Any]) -> str:
    groups = {
        f"{count} client{'s' if count > 1 else ''}": [
            Bar(target, {"requests/s": rate}, f"{rate:.0f}", ours=target == MARWAY)
            for target, measured in workload["targets"].items()
            for rate in [statistics.median(measured[str(count)]["rate"])]
        ]
        for count in workload["clients"]
    }
    return bars(f"{name}: requests a second", groups)


def _cpu(name: str, workload: dict[str, Any]) -> str:
    count = workload["clients"][-2] if len(workload["clients"]) > 2 else workload["clients"][-1]
    rows = []
    for target, measured in workload["targets"].items():
        cpu = measured[str(count)]["cpu"]
        parts = {part: statistics.median(cpu.get(part, [0.0])) for part in _PARTS}
        rows.append(Bar(target, parts, f"{sum(parts.values()):.3f}"))
    return bars(f"{name}: CPU-seconds for 1000 requests, {count} clients", {"": rows}, legend=True)


def _features(result: dict[str, Any], charts: dict[str, str]) -> list[str]:
    rows = [
        Bar(name, {"µs": max(0.0, statistics.median(values))}, f"{statistics.median(values):.1f}", ours=True)
        for name, values in bench_features.costs(result).items()
    ]
    charts["features"] = bars("What a feature costs: µs of the gateway's processor time a request", {"": rows})
    return [bench_features.markdown(result), "![cost of features](features.svg)"]


def _bodies(result: dict[str, Any], charts: dict[str, str]) -> list[str]:
    rows = [
        Bar(part, {"before": before / 2**20, "more at the peak": result["growth_bytes"][part] / 2**20}, said)
        for part, before in result["before_bytes"].items()
        for said in [f"{result['growth_bytes'][part] / 2**20:+.0f} MiB"]
    ]
    charts["bodies"] = bars("Memory of each process, MiB", {"": rows}, legend=True)
    return [bench_bodies.markdown(result), "![memory](bodies.svg)"]


def _cold(result: dict[str, Any], charts: dict[str, str]) -> list[str]:
    groups = {}
    for path, rounds in result["phases_ms"].items():
        names = list(dict.fromkeys(name for phases in rounds for name in phases))
        middle = {name: statistics.median([phases.get(name, 0.0) for phases in rounds]) for name in names}
        groups[path] = [Bar(name, {"ms": value}, f"{value:.0f} ms", ours=True) for name, value in middle.items()]
    charts["cold"] = bars("Cold paths: milliseconds of each phase", groups)
    return [bench_cold_path.markdown(result), "![cold paths](cold.svg)"]


def _cache(result: dict[str, Any], _: dict[str, str]) -> list[str]:
    return [bench_cache.markdown(result)]


def _graphs(result: dict[str, Any], _: dict[str, str]) -> list[str]:
    return [*bench_graphs.lines(result), "", bench_graphs.ABOUT]


def _peers(result: dict[str, Any], charts: dict[str, str]) -> list[str]:
    groups = {
        f"{count} client{'s' if count > 1 else ''}": [
            Bar(name, {"requests/s": rate}, f"{rate:.0f}", ours=name == MARWAY)
            for name, figures in result["targets"].items()
            for rate in [statistics.median(figures[str(count)]["rate"])]
        ]
        for count in peer_tables.CLIENTS
    }
    charts["peers"] = bars("Model servers: requests a second", groups)
    return [peer_tables.markdown(result), "![requests a second of model servers](peers.svg)"]


def _printed(result: dict[str, Any], _: dict[str, str]) -> list[str]:
    return ["```", result["printed"].rstrip(), "```"]


_SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], dict[str, str]], list[str]]]] = {
    "speed": ("Against TorchServe alone", _speed),
    "features": ("What each feature costs", _features),
    "cache": ("A kept answer", _cache),
    "graphs": ("Graphs, one client", _graphs),
    "path": ("Hop by hop, one client", _printed),
    "bodies": ("Large bodies", _bodies),
    "cold": ("Cold paths", _cold),
    "workers": ("A worker's start", _printed),
    "peers": ("Against other Python model servers", _peers),
}


if __name__ == "__main__":
    sys.stdout.write(write(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS))
