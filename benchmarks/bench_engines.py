"""The engine `native` against TorchServe asked directly, the other engine behind the same hops, and its peers.

One run, within the minutes given: every target of a workload takes its turn in each round, in an order that changes,
and ratios are made within a round. Before anything is measured each target answers under load with every body compared.
The other Python model servers take part where `make bench-peers` has made their environments.

`make bench-engines`, or `python benchmarks/bench_engines.py --minutes 6 --only tiny,cold --write`.
"""

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench_cold
import bench_peers
import bench_speed
import native_goals
import report
import wrk
from bench_speed import STOCK, Effort, Target
from documents import MARWAY, add_output, write
from native_goals import BEHIND, BOTH_HOPS, SIDECAR
from peer_servers import PEERS_BY_NAME
from servers import Connection, MarwayUp, Processes, by_kind, marway_up, of_home
from workloads import EFFICIENTNET, POOLED_ONE, TENSOR, TINY, WORKLOADS, Workload, published

RESULTS = Path(__file__).parent / "results"
PARTS = ("tiny", "efficientnet", "tensor", "memory", "cold")
_SHARES = {"tiny": 0.75, "efficientnet": 0.15, "tensor": 0.1}
"""Of the time that is left for loads once all is warm."""
_SECONDS = {"efficientnet": 3, "tensor": 2}
"""Of one load, at least, where a second sees a few answers only."""
_LOADS_MIN, _LOADS_MAX = 3, 12
_BETWEEN_S = 0.4
_JAVA_WARM_S = 8.0
_IDLE_MODELS = 20
_LAST_S = {"memory": 25, "cold": 30}


@dataclass(frozen=True)
class Pods:
    """Two `marway up`, alike but for the engine of their one pod."""

    native: MarwayUp
    torchserve: MarwayUp


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12, help="for all of it (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=1, help="of load a round and target (default: %(default)s)")
    parser.add_argument(
        "--only", default=",".join(PARTS), help="parts, with commas between them (default: %(default)s)"
    )
    parser.add_argument("--without-peers", action="store_true", help="leave the other Python model servers out")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/engines.md as well")
    add_output(parser)
    args = parser.parse_args()
    parts = args.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if not wrk.is_installed():
        sys.exit("wrk is missing: install it (Debian: apt-get install wrk)")
    until = time.monotonic() + args.minutes * 60
    result: dict[str, Any] = {"workloads": {}, "left_out": {}}
    workloads = [WORKLOADS[part] for part in parts if part in WORKLOADS]
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as name, contextlib.ExitStack() as stack:
        scratch = Path(name)
        pods = Pods(*(stack.enter_context(marway_up(scratch / e, "--engine", e)) for e in ("native", "torchserve")))
        if workloads:
            servers = bench_speed.started(scratch, stack, workloads, pods.native)
        for workload in workloads:
            later = sum(_LAST_S.get(part, 0) for part in parts)
            rest = sum(_SHARES[each.name] for each in workloads[workloads.index(workload) :])
            share_s = (until - later - time.monotonic()) * _SHARES[workload.name] / rest
            try:
                found = measure(workload, servers, pods, scratch, share_s, args, result["left_out"])
            except Exception as exc:  # one workload less is no reason to lose the others
                traceback.print_exc()
                found = {"title": workload.title, "error": f"{type(exc).__name__}: {exc}"[:500]}
            result["workloads"][workload.name] = found
            print(f"{workload.name}: {max(0, until - time.monotonic()):.0f} s are left", flush=True)
        if "memory" in parts:
            result["memory"] = {
                "native": with_idle_models(pods.native),
                "torchserve": with_idle_models(pods.torchserve),
            }
    if "cold" in parts:
        sides = bench_cold.cold(max(3, min(10, int((until - time.monotonic() - 20) / 1.5))))
        labels = {"native": bench_cold.NATIVE, "torchserve": bench_cold.PLAIN, "forked": bench_cold.FORKED}
        result["cold"] = {name: sides[label].answered for name, label in labels.items()}
    print(native_goals.markdown(result))
    if args.write:
        args.json = RESULTS / "data" / "engines.json"
    write(args, "engines", result)
    if args.write:
        report.write(RESULTS)
    return 1 if any("error" in each for each in result["workloads"].values()) else 0


def measure(
    workload: Workload,
    servers: bench_speed.Servers,
    pods: Pods,
    scratch: Path,
    share_s: float,
    args: argparse.Namespace,
    left_out: dict[str, str],
) -> dict[str, Any]:
    """Warm a workload's targets up and measure them for as long as its share of the time allows."""
    until = time.monotonic() + share_s
    clients = workload.clients
    with contextlib.ExitStack() as stack:
        targets = targets_of(workload, servers, pods)
        if workload is TINY and not args.without_peers:
            targets += peers(stack, scratch, pods, left_out)
        generator = bench_speed.ready(
            workload, targets, scratch / "wrk" / workload.name, clients, 2, warm_s=_JAVA_WARM_S
        )
        seconds = max(args.seconds, _SECONDS.get(workload.name, 1))
        one_s = seconds + _BETWEEN_S
        rounds = int((until - time.monotonic() - 2 * len(targets)) / (one_s * len(clients) * len(targets)))
        effort = Effort(max(_LOADS_MIN, min(_LOADS_MAX, rounds)), seconds)
        efforts = dict.fromkeys(clients, effort)
        bench_speed.measure(targets, generator, efforts)
        bench_speed.still_right(workload, targets, generator, max(clients))
    return bench_speed.document(workload, targets, efforts)


def targets_of(workload: Workload, servers: bench_speed.Servers, pods: Pods) -> list[Target]:
    """Have all of Marway's and TorchServe's targets serve a workload's model."""
    found = [each for each in bench_speed.targets_of(workload, servers) if each.name != POOLED_ONE.name]
    native = next(each for each in found if each.name == MARWAY)
    found.remove(native)
    # Stock TorchServe is what the tensor is held against, tuned TorchServe all else.
    found = [each for each in found if (each.name == STOCK) == (workload is TENSOR)]
    found.append(replace(native, name=BOTH_HOPS))
    if workload is not EFFICIENTNET:
        pod = pods.native.ready["pods"][0]["url"]
        found.append(Target(SIDECAR, f"{pod}/predict/{workload.name}/1.0", native.parts))
    if workload is TINY:
        up = pods.torchserve
        workload.publish(up.ready["registry"], up.ready["admin"])
        url = f"{up.ready['gateway']}/predict/{workload.name}"
        bench_speed.answer(url, workload.request())  # has it loaded
        found.append(Target(BEHIND, url, lambda: by_kind(of_home(up.home))))
    return found


def peers(stack: contextlib.ExitStack, scratch: Path, pods: Pods, left_out: dict[str, str]) -> Iterator[Target]:
    """Start the other model servers whose environments are there, and yield them; why not the others is noted."""
    request = TINY.request()
    right = json.loads(bench_speed.answer(f"{pods.native.ready['gateway']}/predict/{TINY.name}", request))
    for name, what in PEERS_BY_NAME.items():
        if not bench_peers.has_environment(what.package):
            left_out[name] = "it has no environment here, which `make bench-peers` makes"
            continue
        try:
            peer = stack.enter_context(bench_peers.peer(name, what, scratch, right))
        except Exception as exc:  # one peer less is no reason to lose the others
            traceback.print_exc()
            left_out[name] = f"{type(exc).__name__}: {exc}"[:500]
        else:
            yield Target(name, peer.url, lambda peer=peer: _as_parts(peer), peer.generator)


def _as_parts(peer: bench_peers.Target) -> Processes:
    return {"server": peer.processes()}


def with_idle_models(up: MarwayUp) -> float:
    """Load tiny models into a pod until it has as many idle ones, and return the memory of all its processes, MiB.

    What processes share is shared out among them; the gateway is no part of a pod.
    """
    request = TINY.request()
    for number in range(_IDLE_MODELS):
        name = f"idle-{number}"
        published(name, [], handler="tiny.py")(up.ready["registry"], up.ready["admin"])
        with Connection(up.ready["gateway"]) as gateway:
            gateway.ask("POST", f"/predict/{name}", request.body, request.content_type)
    for name in WORKLOADS:  # only the idle ones are counted
        with Connection(up.ready["pods"][0]["url"]) as pod, contextlib.suppress(AssertionError):
            pod.ask("POST", f"/models/{name}/1.0/unload")
    kinds = by_kind(of_home(up.home))
    return sum(p.memory_full_info().pss for kind, all_ in kinds.items() if kind != "gateway" for p in all_) / 2**20


if __name__ == "__main__":
    random.seed(7)
    sys.exit(main())
