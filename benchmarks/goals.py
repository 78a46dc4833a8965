"""What speed should be reached, and whether it was: the goals of the project, evaluated on what was measured."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bench_cache
import bench_features
import bench_graphs
from bench_speed import STOCK
from documents import MARWAY, Table, ratios, spread
from peer_servers import PEERS_BY_NAME
from workloads import EIGHT, ONE, POOLED_EIGHT, POOLED_ONE, WORKLOADS

Documents = Mapping[str, Mapping[str, Any]]
"""Results of benchmarks by their part's name; one that was not measured or failed is missing."""

_STRICTER = (
    "*tuned*: TorchServe with quiet logs, a buffered worker and these batches. *tuned + Java pool*: the same, and its "
    "Java has the larger common pool that Marway's runtime gives it, a repair of Marway's own. No goal is judged "
    "against that; it shows how much of a lead over *tuned* comes of this repair alone."
)


@dataclass(frozen=True)
class Goal:
    """One goal, or a comparison beside one.

    Attributes:
        what: Workload and clients.
        against: What with.
        reach: The goal in words; None of a comparison that nothing is asked of.
        found: Returns the figure in words and whether the goal is met; raises `KeyError` when it was not measured.
    """

    what: str
    against: str
    reach: str | None
    found: Callable[[Documents], tuple[str, bool]]


def rate(workload: str, clients: int, other: str, least: float | None, *, ours: str = MARWAY) -> Goal:
    """Return the goal to make at least so many times the requests/s of another target; None only compares."""

    def found(documents: Documents) -> tuple[str, bool]:
        each = ratios(documents["speed"][workload], other, str(clients), ours=ours)
        return spread(each, unit="x"), statistics.median(each) >= (least or 0)

    reach = None if least is None else f"≥ {least:g}x requests/s"
    return Goal(_what(workload, clients, ours), other, reach, found)


def best(workload: str, clients: int, least: float, *, ours: str = MARWAY) -> Goal:
    """Return the goal to make so many times the requests/s of the best setting of tuned TorchServe."""
    settings = [tuning.name for tuning in WORKLOADS[workload].tunings if not tuning.java_pool]

    def found(documents: Documents) -> tuple[str, bool]:
        document = documents["speed"][workload]
        others = {name: statistics.median(document["targets"][name][str(clients)]["rate"]) for name in settings}
        name = max(others, key=lambda each: others[each])
        each = ratios(document, name, str(clients), ours=ours)
        return f"{spread(each, unit='x')} of {name}", statistics.median(each) >= least

    return Goal(_what(workload, clients, ours), "tuned, best setting", f"≥ {least:g}x requests/s", found)


def later(workload: str, clients: int, other: str, most_ms: float | None, *, ours: str = MARWAY) -> Goal:
    """Return the goal of a p50 at most so many milliseconds above another target's; None only compares."""

    def found(documents: Documents) -> tuple[str, bool]:
        targets = documents["speed"][workload]["targets"]
        mine, theirs = (targets[name][str(clients)]["p50"] for name in (ours, other))
        more = [one - another for one, another in zip(mine, theirs, strict=True)]
        median = statistics.median(more)
        return f"{median:+.2f} ms ({min(more):+.2f} to {max(more):+.2f})", median <= (most_ms or 0)

    reach = None if most_ms is None else f"p50 ≤ {most_ms:+g} ms" if most_ms else "p50 faster"
    return Goal(_what(workload, clients, ours), other, reach, found)


def _cache(clients: int) -> Goal:
    def found(documents: Documents) -> tuple[str, bool]:
        each = bench_cache.ratios(dict(documents["cache"]), str(clients))
        return spread(each, unit="x"), statistics.median(each) >= 3

    return Goal(f"cache hit, {_clients(clients)}", "the same without cache", "≥ 3x requests/s", found)


def _beside(count: int) -> Goal:
    """Return the goal of nodes side by side, of which one takes 50 ms."""

    def found(documents: Documents) -> tuple[str, bool]:
        each = bench_graphs.beside_ms(documents["graphs"], count)
        return f"{spread(each)} ms a node", statistics.median(each) <= bench_graphs.MOST_MS

    what, reach = f"graph of {count} nodes side by side", f"its time + ≤ {bench_graphs.MOST_MS:g} ms a node"
    return Goal(what, "its slowest node alone", reach, found)


def _feature(name: str) -> Goal:
    def found(documents: Documents) -> tuple[str, bool]:
        result = dict(documents["features"])
        whole = statistics.median(result["micros"][bench_features.EVERYTHING])
        cost = statistics.median(bench_features.costs(result)[name])
        return f"{cost:.1f} µs, {cost / whole:.1%}", cost / whole <= bench_features.GOAL

    return Goal(f"{name}, 32 clients", "the gateway without", "≤ 10 % of its CPU", found)


def _observed(name: str) -> Goal:
    most = bench_features.GOALS[name]

    def found(documents: Documents) -> tuple[str, bool]:
        observed = dict(documents["features"])["observed"][name]
        cost, whole = statistics.median(observed["cost"]), statistics.median(observed["whole"])
        return f"{cost:.1f} µs, {cost / whole:.1%}", cost / whole <= most

    return Goal(f"{name}, 32 clients", "the gateway without", f"≤ {100 * most:g} % of its CPU", found)


def _bodies(part: str, most: float) -> Goal:
    def found(documents: Documents) -> tuple[str, bool]:
        result = documents["bodies"]
        value = result["growth_bytes"][part] / result["in_flight_bytes"][part]
        return f"{value:.2f}x of {result['in_flight_bytes'][part] / 2**20:.0f} MiB", value <= most

    said = "memory flat (≤ 0.1x of the bytes sent)" if part == "gateway" else f"memory < {most:g}x the bytes in flight"
    return Goal("20 predicts of 50 MiB at once", part, said, found)


def _polls() -> Goal:
    def found(documents: Documents) -> tuple[str, bool]:
        waited = max(documents["cold"]["waited_ms"].values())
        return f"waits of at most {waited:.0f} ms", waited <= 50

    return Goal("publish to first answer; pod start to ready", "its phases", "no poll > 50 ms", found)


def _peer(name: str) -> Goal:
    def found(documents: Documents) -> tuple[str, bool]:
        result = dict(documents["peers"])
        faster, later_ = (statistics.median(ratios(result, name, "32", each)) for each in ("rate", "p99"))
        return f"{faster:.2f}x requests/s, {later_:.2f}x p99", faster > 1 > later_

    return Goal("tiny, 32 clients", name, "ahead in requests/s and p99", found)


def _what(workload: str, clients: int, ours: str) -> str:
    return f"{workload}, {_clients(clients)}" + (f", {ours}" if ours != MARWAY else "")


def _clients(count: int) -> str:
    return f"{count} client{'s' if count > 1 else ''}"


GOALS = (
    rate("tiny", 32, STOCK, 3),
    rate("tiny", 32, ONE.name, 1.7),
    rate("tiny", 32, POOLED_ONE.name, None),
    rate("tiny", 32, EIGHT.name, 0.55),
    rate("tiny", 32, POOLED_EIGHT.name, None),
    rate("tiny", 64, STOCK, 4.5),
    rate("tiny", 64, EIGHT.name, 0.7),
    rate("tiny", 64, POOLED_EIGHT.name, None),
    later("tiny", 1, ONE.name, 0.7),
    later("tiny", 1, POOLED_ONE.name, None),
    later("tiny", 1, EIGHT.name, 0),
    later("tiny", 1, POOLED_EIGHT.name, None),
    best("efficientnet", 1, 0.97),
    best("efficientnet", 8, 0.97),
    *(_peer(name) for name in PEERS_BY_NAME),
    *(_cache(count) for count in bench_cache.CLIENTS),
    *(_beside(count) for count in bench_graphs.WIDTHS),
    *(_feature(name) for name in ("request ids", "metrics", "access log", "trace context", "auth")),
    *map(_observed, bench_features.SLICED),
    _bodies("gateway", 0.1),
    _bodies("sidecar", 2.5),
    _polls(),
)


def markdown(documents: Documents, goals: Sequence[Goal] = GOALS) -> str:
    """Return the table of goals: reached, goal, and whether it was met; below a goal what is compared beside it."""
    table, stricter = Table("what", "against", "goal", "reached", ""), False
    for goal in goals:
        try:
            reached, met = goal.found(documents)
        except KeyError:
            if goal.reach is not None:
                table.add(goal.what, goal.against, goal.reach, "not measured", "")
            continue
        if goal.reach is None:
            stricter = True
            table.add(goal.what, goal.against, "no goal: stricter", reached, "")
        else:
            table.add(goal.what, goal.against, goal.reach, reached, "met" if met else "**missed**")
    return "\n".join([*table.lines(), "", *((_STRICTER, "") if stricter else ())])
