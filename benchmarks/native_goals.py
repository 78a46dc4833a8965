"""What the engine `native` should reach against TorchServe and the other model servers, and whether it was reached."""

import statistics
from collections.abc import Mapping
from typing import Any

import goals
import speed_tables
from bench_speed import STOCK
from documents import ratios, spread
from goals import Documents, Goal, best, later, rate
from peer_servers import PEERS_BY_NAME
from workloads import EIGHT, ONE, POOLED_EIGHT

BOTH_HOPS, SIDECAR, BEHIND = "native: gateway → sidecar", "native: sidecar", "torchserve: gateway → sidecar"
_PEER_CLIENTS = (8, 32, 64)
_COLD, _MEMORY = "cold", "memory"


def _peer(name: str) -> Goal:
    def found(documents: Documents) -> tuple[str, bool]:
        document, said, met = documents["speed"]["tiny"], [], True
        for count in _PEER_CLIENTS:
            faster, later_ = (
                statistics.median(ratios(document, name, str(count), figure, ours=BOTH_HOPS))
                for figure in ("rate", "p99")
            )
            said.append(f"{count}: {faster:.2f}x, p99 {later_:.2f}x")
            met = met and faster > 1 > later_
        return "; ".join(said), met

    clients = ", ".join(map(str, _PEER_CLIENTS))
    return Goal(f"tiny, {clients} clients, {BOTH_HOPS}", name, "ahead in requests/s and p99", found)


def _cold_ratio() -> Goal:
    def found(documents: Documents) -> tuple[str, bool]:
        cold = documents[_COLD]
        each = [theirs / ours for theirs, ours in zip(cold["torchserve"], cold["native"], strict=True)]
        return spread(each, unit="x"), statistics.median(each) >= 15

    return Goal("archive on disk to first answer, tiny model", "TorchServe's own way", "≥ 15x sooner", found)


def _cold_seconds() -> Goal:
    def found(documents: Documents) -> tuple[str, bool]:
        each = documents[_COLD]["native"]
        return spread(each, 3, " s"), statistics.median(each) <= 0.05

    return Goal("archive on disk to first answer, tiny model", "the clock", "≤ 0.05 s", found)


def _memory() -> Goal:
    def found(documents: Documents) -> tuple[str, bool]:
        memory = documents[_MEMORY]
        ours, theirs = memory["native"], memory["torchserve"]
        return f"{ours / theirs:.2f}x ({ours:.0f} MiB of {theirs:.0f} MiB)", ours / theirs <= 0.4

    return Goal("memory of a pod with 20 idle tiny models", "the same pod with TorchServe", "≤ 0.4x", found)


NATIVE_GOALS = (
    later("tiny", 1, ONE.name, 0.35, ours=BOTH_HOPS),
    later("tiny", 1, ONE.name, 0.12, ours=SIDECAR),
    *(later("tiny", 1, name, 0, ours=SIDECAR) for name in ("KServe SDK", "MLServer")),
    rate("tiny", 32, EIGHT.name, 0.9, ours=BOTH_HOPS),
    rate("tiny", 64, EIGHT.name, 1.1, ours=BOTH_HOPS),
    rate("tiny", 64, POOLED_EIGHT.name, 1.0, ours=SIDECAR),
    *(_peer(name) for name in PEERS_BY_NAME),
    best("efficientnet", 1, 1.0, ours=BOTH_HOPS),
    best("efficientnet", 8, 1.0, ours=BOTH_HOPS),
    rate("tensor", 1, STOCK, 1.0, ours=BOTH_HOPS),
    rate("tensor", 8, STOCK, 1.0, ours=BOTH_HOPS),
    _cold_ratio(),
    _cold_seconds(),
    _memory(),
)


def markdown(result: Mapping[str, Any]) -> str:
    """Return the table of goals, and below it what was measured of each workload."""
    documents = {"speed": result["workloads"], **{part: result[part] for part in (_COLD, _MEMORY) if part in result}}
    lines = [
        "`make bench-engines`: medians of interleaved rounds, with the least and the greatest; ratios are made within",
        "a round. Everything is on: request ids, metrics, access log, trace context. The load generator shares the",
        "processors. *native: sidecar* is a pod asked directly, *torchserve* the same pod with the other engine;",
        "*tuned* and *stock* TorchServe are asked directly, over REST. Peers have one worker each.",
        "",
        goals.markdown(documents, NATIVE_GOALS),
    ]
    for name, workload in result["workloads"].items():
        if "error" in workload:
            lines += [f"### {name}", "", f"Failed: {workload['error']}", ""]
        else:
            lines += [speed_tables.markdown(name, workload, BOTH_HOPS)]
    lines += [f"- {name} was not measured: {why}" for name, why in result["left_out"].items()]
    return "\n".join(lines).rstrip() + "\n"
