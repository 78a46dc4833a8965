"""What graphs cost: a node in a sequence against the same call made directly, nodes side by side against the slowest.

`make bench-graph`, or `python benchmarks/bench_graphs.py --rounds 8 --requests 40`. One caller on one connection asks
for each shape in turn, request by request, so that other load on the machine hits all alike; a round's figure is the
median of its requests. The models are the smallest there is, and one that takes 50 ms without a processor.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from documents import Table, add_output, spread, write
from servers import Connection, marway_up
from workloads import TINY, published

DIRECT, SLOW = "direct", "slow"
LENGTHS = (1, 2, 4, 8)
WIDTHS = (2, 4, 8)
MOST_MS = 2.0
"""What a node side by side may add to the slowest."""

ABOUT = (
    "Medians of interleaved rounds. Each node is a prediction of its own through the gateway's pipeline, with a pod of "
    "the native engine behind it."
)


def chain(count: int) -> dict[str, Any]:
    """Return a graph of the smallest model, so often one after the other, each time with the request's text."""
    names = [f"n{index}" for index in range(count)]
    asks = {"kind": "model", "model": "tiny", "input": "request", "content_type": "text/plain"}
    return {"start": "all", "nodes": {"all": {"kind": "sequence", "nodes": names}, **dict.fromkeys(names, asks)}}


def beside(count: int) -> dict[str, Any]:
    """Return a graph of the slow model, and of the smallest so often that they are ``count`` side by side."""
    names = [f"n{index}" for index in range(count)]
    nodes = {name: {"kind": "model", "model": "slow" if name == "n0" else "tiny"} for name in names}
    return {"start": "all", "nodes": {"all": {"kind": "parallel", "nodes": names}, **nodes}}


SHAPES: Mapping[str, tuple[str, dict[str, Any] | None]] = {
    DIRECT: ("/predict/tiny", None),
    **{f"chain-{count}": (f"/predict/chain-{count}", chain(count)) for count in LENGTHS},
    SLOW: ("/predict/slow", None),
    **{f"beside-{count}": (f"/predict/beside-{count}", beside(count)) for count in WIDTHS},
}


def measure(rounds: int, requests: int, engine: str) -> dict[str, Any]:
    """Return each shape's milliseconds, round by round."""
    with tempfile.TemporaryDirectory() as name, marway_up(Path(name) / "home", "--engine", engine) as up:
        registry, url, admin = (up.ready[each] for each in ("registry", "gateway", "admin"))
        for model in ("tiny", "slow"):
            published(model, ["abc"])(registry, admin)
        marway = [sys.executable, "-m", "marway", "graph", "publish"]
        for shape, (_, document) in SHAPES.items():
            if document is not None:
                file = Path(name) / f"{shape}.json"
                file.write_text(json.dumps(document))
                where = ["--registry", registry, "--gateway", admin]
                words = [str(file), "--model-name", shape, "--version", "1.0", "--label", "PROD", "--force"]
                subprocess.run([*marway, *words, *where], check=True, stdout=subprocess.DEVNULL)
        body, found = TINY.request().body, {shape: list[float]() for shape in SHAPES}
        with Connection(url) as caller:
            for path, _ in SHAPES.values():
                for _ in range(20):
                    caller.ask("POST", path, body)
            for _ in range(rounds):
                took: dict[str, list[float]] = {shape: [] for shape in SHAPES}
                for _ in range(requests):
                    for shape, (path, _) in SHAPES.items():
                        began = time.perf_counter()
                        caller.ask("POST", path, body)
                        took[shape].append((time.perf_counter() - began) * 1000)
                for shape, each in took.items():
                    found[shape].append(statistics.median(each))
    return {"rounds": rounds, "requests": requests, "engine": engine, "ms": found}


def graph_ms(result: Mapping[str, Any]) -> list[float]:
    """Return what asking through a graph of one node adds to asking directly, round by round, in milliseconds."""
    return [one - direct for one, direct in zip(result["ms"]["chain-1"], result["ms"][DIRECT], strict=True)]


def node_ratios(result: Mapping[str, Any]) -> list[float]:
    """Return what one more node takes, in direct calls of the same model, round by round."""
    ms, last = result["ms"], max(LENGTHS)
    rounds = zip(ms["chain-1"], ms[f"chain-{last}"], ms[DIRECT], strict=True)
    return [(longest - one) / (last - 1) / direct for one, longest, direct in rounds]


def beside_ms(result: Mapping[str, Any], count: int) -> list[float]:
    """Return what a node side by side adds to the slowest called directly, round by round, in milliseconds."""
    rounds = zip(result["ms"][f"beside-{count}"], result["ms"][SLOW], strict=True)
    return [(together - slow) / count for together, slow in rounds]


def lines(result: Mapping[str, Any]) -> list[str]:
    """Return the figures as a table."""
    table = Table("what", "took", "in comparison")
    ms = result["ms"]
    table.add("the smallest model, directly", spread(ms[DIRECT], unit=" ms"), "")
    for count in LENGTHS:
        ratios = [each / direct for each, direct in zip(ms[f"chain-{count}"], ms[DIRECT], strict=True)]
        what = f"a sequence of {count}"
        table.add(what, spread(ms[f"chain-{count}"], unit=" ms"), f"{spread(ratios)} direct calls")
    table.add("one more node of a sequence", "", f"{spread(node_ratios(result))} direct calls")
    table.add("a graph of one node beyond its model", spread(graph_ms(result), unit=" ms"), "")
    table.add("a model of 50 ms, directly", spread(ms[SLOW], unit=" ms"), "")
    for count in WIDTHS:
        what = f"it and {count - 1} of the smallest side by side"
        table.add(
            what, spread(ms[f"beside-{count}"], unit=" ms"), f"slowest + {spread(beside_ms(result, count))} ms a node"
        )
    return table.lines()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=40, help="of each shape in a round (default: %(default)s)")
    parser.add_argument("--engine", default="native", help="of the pod (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    result = measure(args.rounds, args.requests, args.engine)
    print("\n".join(lines(result)))
    worst = max(statistics.median(beside_ms(result, count)) for count in WIDTHS)
    print(f"side by side: slowest + {worst:.2f} ms a node, at most {MOST_MS:g} wanted")
    write(args, "graphs", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
