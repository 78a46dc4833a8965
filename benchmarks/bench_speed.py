"""Marway in front of TorchServe against TorchServe alone: requests a second, times, and processor time of each part.

`make bench-speed`, or `python benchmarks/bench_speed.py --rounds 5 --seconds 3`. The load comes from wrk, in a process
of its own; targets take turns in an order that changes with each round, and ratios are made within a round. Marway has
everything on: ids, metrics, access log, trace context. Before a workload is measured every target answers it under
load with each body compared, which has to be what stock TorchServe answers.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import wrk
from documents import MARWAY, add_output, write
from servers import (
    Connection,
    MarwayUp,
    Processes,
    below,
    by_kind,
    cpu_seconds,
    javas_own_pool,
    marway_runtime,
    marway_up,
    of_home,
    register,
    stock_torchserve,
    stored_archive,
)
from speed_tables import markdown, summary
from workloads import WORKLOADS, Tuning, Workload, check

STOCK = "stock TorchServe"
_WARM_CALLS = 15_000
_WARM_S = 30
_SMALL_RATE = 200


@dataclass
class Target:
    """One way to the model.

    Attributes:
        url: Where it is asked.
        parts: Its processes, by what they are.
        generator: What asks it, where it is not asked as all others are.
        rates, p50, p99, cpu: What was measured, by number of clients, a value a round: requests/s, milliseconds, and
            by part CPU-seconds for 1000 requests.
    """

    name: str
    url: str
    parts: Callable[[], Processes]
    generator: wrk.Generator | None = None
    rates: dict[int, list[float]] = field(default_factory=dict)
    p50: dict[int, list[float]] = field(default_factory=dict)
    p99: dict[int, list[float]] = field(default_factory=dict)
    cpu: dict[int, dict[str, list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stock:
    """A TorchServe with its own defaults."""

    inference: str
    management: str
    store: Path
    pid: int


@dataclass(frozen=True)
class Servers:
    """What serves all workloads: Marway with one pod, and TorchServes alone.

    Attributes:
        tuned: The `runtime.json` of those that Marway's runtime started, by whether their Java has Marway's pool.
    """

    up: MarwayUp
    stock: Stock
    tuned: dict[bool, dict[str, Any]]


@dataclass(frozen=True)
class Effort:
    """How much is measured of a target: interleaved rounds, and seconds of load in each."""

    rounds: int
    seconds: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--workloads", default="tiny", help="with commas between them, of: all, " + ", ".join(WORKLOADS)
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of load a round and target (default: %(default)s)")
    parser.add_argument("--more-rounds", type=int, help="rounds of what has no goal (default: as --rounds)")
    parser.add_argument("--more-seconds", type=int, help="of load where there is no goal (default: as --seconds)")
    parser.add_argument(
        "--warm",
        type=int,
        default=3,
        help="seconds of load before, by the most clients, for a workload with a goal; 1 for others and by the fewest. "
        "With more than 1, the fewest then go on until Java has compiled what is asked (default: %(default)s)",
    )
    parser.add_argument("--clients", help="connections at once (default: as each workload says)")
    add_output(parser)
    args = parser.parse_args()
    if not wrk.is_installed():
        sys.exit("wrk is missing: install it (Debian: apt-get install wrk)")
    names = list(WORKLOADS) if args.workloads == "all" else args.workloads.split(",")
    asked = tuple(int(count) for count in args.clients.split(",")) if args.clients else None
    most = Effort(args.rounds, args.seconds)
    more = Effort(args.more_rounds or args.rounds, args.more_seconds or args.seconds)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as name, contextlib.ExitStack() as stack:
        scratch = Path(name)
        workloads = [WORKLOADS[name] for name in names]
        servers = started(scratch, stack, workloads, stack.enter_context(marway_up(scratch / "home")))
        for workload in workloads:
            clients = asked or workload.clients
            efforts = {count: most if count in workload.goal_clients else more for count in clients}
            try:
                targets = targets_of(workload, servers)
                generator = ready(workload, targets, scratch / "wrk" / workload.name, clients, args.warm)
                measure(targets, generator, efforts)
                still_right(workload, targets, generator, max(clients))
            except Exception as exc:  # one workload less is no reason to lose the others
                traceback.print_exc()
                result[workload.name] = {"title": workload.title, "error": f"{type(exc).__name__}: {exc}"[:500]}
                continue
            result[workload.name] = document(workload, targets, efforts)
            print(markdown(workload.name, result[workload.name]))
            print(summary(result[workload.name]), flush=True)
    write(args, "speed", result)
    return 1 if any("error" in each for each in result.values()) else 0


def started(scratch: Path, stack: contextlib.ExitStack, workloads: Sequence[Workload], up: MarwayUp) -> Servers:
    """Start everything that serves these workloads beside ``up``."""
    stock = Stock(*stack.enter_context(stock_torchserve(scratch / "stock")))
    pools = sorted({tuning.java_pool for workload in workloads for tuning in workload.tunings})
    tuned = {
        pool: stack.enter_context(
            marway_runtime(scratch / "pooled") if pool else marway_runtime(scratch / "tuned", **javas_own_pool())
        )
        for pool in pools
    }
    return Servers(up, stock, tuned)


def targets_of(workload: Workload, servers: Servers) -> list[Target]:
    """Publish a workload's model and have all targets serve it."""
    up, stock = servers.up, servers.stock
    workload.publish(up.ready["registry"], up.ready["admin"])
    gateway = f"{up.ready['gateway']}/predict/{workload.name}"
    answer(gateway, workload.request())  # has it loaded, and so the archive fetched
    archive = stored_archive(up.home / "store", workload.name)
    register(stock.management, stock.store, archive, workload.name, initial_workers=workload.workers)
    targets = [
        Target(STOCK, f"{stock.inference}/predictions/{workload.name}", lambda: by_kind(below(stock.pid))),
    ]
    targets += [tuned(workload, tuning, servers.tuned[tuning.java_pool], archive) for tuning in workload.tunings]
    targets.append(Target(MARWAY, gateway, lambda: by_kind(of_home(up.home))))
    return targets


def tuned(workload: Workload, tuning: Tuning, runtime: dict[str, Any], archive: Path) -> Target:
    """Have a TorchServe that Marway's runtime started, and that is asked itself, serve a workload's model."""
    addresses, root = runtime["addresses"], psutil.Process(runtime["pid"]).ppid()
    name = f"{workload.name}-{tuning.batch}-{tuning.workers}"
    register(addresses["management"], Path(runtime["model_store"]), archive, name, **settings_of(tuning))
    return Target(tuning.name, f"{addresses['inference']}/predictions/{name}", lambda: by_kind(below(root)))


def settings_of(tuning: Tuning) -> dict[str, int]:
    return {
        "initial_workers": tuning.workers,
        "batch_size": tuning.batch,
        "max_batch_delay": tuning.delay_ms,
    }


def answer(url: str, request: wrk.Request) -> bytes:
    """Return the answer to the one body that is sent."""
    with Connection(url) as connection:
        return connection.ask("POST", urlsplit(url).path, request.body, request.content_type)


def ready(
    workload: Workload,
    targets: list[Target],
    scratch: Path,
    clients: Sequence[int],
    seconds: int,
    *,
    warm_s: float = _WARM_S,
) -> wrk.Generator:
    """Warm all targets up, comparing every answer with the first target's; return what loads them.

    By the fewest clients as well as by the most: Java compiles what has run some ten thousand times, and where requests
    travel together a target sees few calls. Small models get that many from the fewest, as far as ``warm_s`` allows; of
    a model that takes so long that Java does not matter the rest is spared.
    """
    thorough = bool(workload.goal_clients) and seconds > 1
    request = workload.request()
    expected = answer(targets[0].url, request)
    check(workload, expected)
    usual = wrk.Generator(scratch, request, expected)
    for target in targets:
        generator = target.generator or usual
        if max(clients) > min(clients):
            generator.check(target.url, clients=max(clients), seconds=seconds if thorough else 1)
        load = generator.check(target.url, clients=min(clients), seconds=1)
        calls, until = load.requests, time.monotonic() + warm_s
        java = thorough and target.generator is None  # who is asked in another way is another server
        while java and load.rate > _SMALL_RATE and calls < _WARM_CALLS and time.monotonic() < until:
            load = generator.load(target.url, clients=min(clients), seconds=2)
            calls += load.requests
    return usual


def measure(targets: list[Target], generator: wrk.Generator, efforts: Mapping[int, Effort]) -> None:
    """Measure all targets, in an order of its own for each round and number of clients."""
    order = random.Random(7)
    for turn in range(max(effort.rounds for effort in efforts.values())):
        for count in (count for count, effort in efforts.items() if turn < effort.rounds):
            for target in order.sample(targets, len(targets)):
                parts = target.parts()
                before = {name: cpu_seconds(processes) for name, processes in parts.items()}
                asks = target.generator or generator
                load = asks.load(target.url, clients=count, seconds=efforts[count].seconds)
                target.rates.setdefault(count, []).append(load.rate)
                target.p50.setdefault(count, []).append(load.p50)
                target.p99.setdefault(count, []).append(load.p99)
                costs = target.cpu.setdefault(count, {})
                for name, processes in parts.items():
                    costs.setdefault(name, []).append((cpu_seconds(processes) - before[name]) / load.requests * 1000)


def still_right(workload: Workload, targets: list[Target], generator: wrk.Generator, clients: int) -> None:
    """Raise unless what was measured still gives the right answers, under load and alone."""
    for target in targets:
        (target.generator or generator).check(target.url, clients=clients, seconds=1)
        if target.generator is None:
            check(workload, answer(target.url, workload.request()))


def document(workload: Workload, targets: list[Target], efforts: Mapping[int, Effort]) -> dict[str, Any]:
    """Return what was measured as plain data: every round of every target."""
    return {
        "title": workload.title,
        "rounds": {str(count): effort.rounds for count, effort in efforts.items()},
        "seconds": {str(count): effort.seconds for count, effort in efforts.items()},
        "clients": list(efforts),
        "body_bytes": len(workload.request().body),
        "targets": {
            target.name: {
                str(count): {
                    "rate": target.rates[count],
                    "p50": target.p50[count],
                    "p99": target.p99[count],
                    "cpu": target.cpu[count],
                }
                for count in efforts
            }
            for target in targets
        },
    }


if __name__ == "__main__":
    sys.exit(main())
