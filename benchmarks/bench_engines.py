"""The engine `native` against TorchServe behind the same sidecar and the same gateway, in interleaved rounds.

Two `marway up` with one pod each, alike but for the engine, serve the same archive. Targets take turns in an order that
changes with each round, and ratios are made within a round. Beside them stands TorchServe itself, of the pod that has
one, asked over REST with no part of Marway's before it. Before anything is measured every target answers under load
with each body compared.

`make bench-engines`, or `python benchmarks/bench_engines.py --rounds 8 --seconds 3 --workload tiny`.
"""

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
from pathlib import Path

import wrk
from documents import Table, add_output, spread, write
from servers import Connection, MarwayUp, cpu_seconds, marway_up, of_home
from workloads import WORKLOADS, Workload, check

ENGINES = ("torchserve", "native")
ALONE = "TorchServe of that pod, over REST"
_WARM_S = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="for each target and round (default: %(default)s)")
    parser.add_argument("--clients", default="1,8,32", help="connections at once (default: %(default)s)")
    parser.add_argument("--workload", default="tiny", choices=WORKLOADS, help="the model (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    if not wrk.is_installed():
        print("bench_engines: needs wrk", file=sys.stderr)
        return 1
    workload = WORKLOADS[args.workload]
    clients = [int(each) for each in args.clients.split(",")]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marway-bench-")))
        ups = {engine: stack.enter_context(marway_up(scratch / engine, "--engine", engine)) for engine in ENGINES}
        targets = serve(workload, ups)
        request = workload.request()
        generator = wrk.Generator(scratch / "wrk", request, answer(workload, targets))
        for url in targets.values():
            generator.check(url, clients=8, seconds=_WARM_S)
        measured = measure(generator, targets, clients, args.rounds, args.seconds)
        memory = {engine: resident(up) for engine, up in ups.items()}
        cpu = {engine: processor(generator, targets[f"{engine}: sidecar"], up) for engine, up in ups.items()}
    lines = report(workload, measured, memory, cpu)
    print("\n".join(lines))
    write(args, "engines", {"workload": workload.name, "targets": measured, "memory": memory, "cpu": cpu})
    return 0


def serve(workload: Workload, ups: dict[str, MarwayUp]) -> dict[str, str]:
    """Publish the model in each home, and return where it is asked, by name."""
    targets: dict[str, str] = {}
    for engine, up in ups.items():
        workload.publish(up.ready["registry"], up.ready["admin"])
        targets[f"{engine}: gateway → sidecar"] = f"{up.ready['gateway']}/predict/{workload.name}/PROD"
        targets[f"{engine}: sidecar"] = f"{up.ready['pods'][0]['url']}/predict/{workload.name}/1.0"
    with Connection(ups["torchserve"].ready["gateway"]) as gateway:  # has it loaded
        request = workload.request()
        gateway.ask("POST", f"/predict/{workload.name}/PROD", request.body, request.content_type)
    inference = ups["torchserve"].runtime["addresses"]["inference"]
    targets[ALONE] = f"{inference}/predictions/{ups['torchserve'].server_name(workload.name)}"
    return targets


def answer(workload: Workload, targets: dict[str, str]) -> bytes:
    """Return the answer that all targets give."""
    request, found = workload.request(), set()
    for url in targets.values():
        with Connection(url) as connection:
            path = "/" + url.split("/", 3)[3]
            found.add(connection.ask("POST", path, request.body, request.content_type))
    if len(found) != 1:
        raise AssertionError(f"the targets answer differently: {found}")
    (body,) = found
    check(workload, body)
    return body


def measure(
    generator: wrk.Generator, targets: dict[str, str], clients: list[int], rounds: int, seconds: int
) -> dict[str, dict[int, dict[str, list[float]]]]:
    """Return requests/s and milliseconds by target and number of clients, a value a round."""
    found = {name: {count: {"rate": [], "p50": [], "p99": []} for count in clients} for name in targets}
    for _ in range(rounds):
        for count in clients:
            for name in random.sample(sorted(targets), len(targets)):
                load = generator.load(targets[name], clients=count, seconds=seconds)
                for figure in ("rate", "p50", "p99"):
                    found[name][count][figure].append(getattr(load, figure))
    return found


def resident(up: MarwayUp) -> float:
    """Return the memory of a home's processes, MiB: what they share is shared out among them."""
    return sum(process.memory_full_info().pss for process in of_home(up.home)) / 2**20


def processor(generator: wrk.Generator, url: str, up: MarwayUp) -> float:
    """Return the processor time of one small prediction at one client, milliseconds, of all processes of a home."""
    processes = of_home(up.home)
    before = cpu_seconds(processes)
    load = generator.load(url, clients=1, seconds=_WARM_S)
    return (cpu_seconds(processes) - before) / load.requests * 1000


def report(
    workload: Workload,
    measured: dict[str, dict[int, dict[str, list[float]]]],
    memory: dict[str, float],
    cpu: dict[str, float],
) -> list[str]:
    lines = [
        f"{workload.name}: {workload.title}; medians over the rounds, and of ratios the least and the greatest",
        "",
    ]
    table = Table("clients", "target", "requests/s", "p50 ms", "p99 ms", "native / torchserve")
    for count in next(iter(measured.values())):
        for name, by_clients in measured.items():
            figures = by_clients[count]
            ratio = ""
            if name.startswith("native"):
                other = measured[name.replace("native", "torchserve")][count]["rate"]
                ratio = spread([ours / theirs for ours, theirs in zip(figures["rate"], other, strict=True)], unit="x")
            shown = (("rate", 0), ("p50", 2), ("p99", 2))
            medians = [f"{statistics.median(figures[each]):.{digits}f}" for each, digits in shown]
            table.add(str(count), name, *medians, ratio)
    lines += table.lines()
    for engine in ENGINES:
        took = f"{cpu[engine]:.2f} ms of processor time a prediction at 1 client of the sidecar"
        lines.append(f"{engine}: {memory[engine]:.0f} MiB, {took}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
