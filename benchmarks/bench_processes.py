"""What several processes of one gateway give: requests/s, and processor time a request, against one process.

Answers come from the gateway's cache, so that nothing works but the gateway and wrk. Both gateways are up for the whole
run and are asked in turns, one idle while the other is measured. Processor time is that of all processes of a gateway:
it says what sharing the ports costs, also on a machine with too few processors to show what it gives.

    python benchmarks/bench_processes.py --processes 2 --clients 32 --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from wrk import Generator, Request, is_installed


def cpu_s(root: int) -> float:
    """Return the processor time that a process and those below it have used."""
    parent = psutil.Process(root)
    times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
    return sum(each.user + each.system for each in times)


async def measure(directory: Path, processes: int, clients: int, seconds: int, rounds: int) -> list[dict[int, tuple]]:
    """Return for each round requests/s, milliseconds of a processor for a request, and p99 in ms, by processes."""
    from gateway.fakes import FakePod
    from marway.objects import open_store
    from marway.registry import Registry
    from support.gateways import GatewayProcess
    from support.registry import publish

    registry = Registry(open_store((directory / "registry").as_uri()))
    publish(registry, directory)
    registry.set_serving("intent", set_fields={"cache": True}, by="bench")
    pod = FakePod("pod")
    await pod.start()
    asked = Generator(directory / "wrk", Request(b"wake me at seven", "text/plain"), b"wake me at seven")
    gateways = {
        count: GatewayProcess(
            directory / f"home-{count}", registry=registry.url, pods=[f"{pod.name}={pod.url}"], processes=count
        )
        for count in (1, processes)
    }
    found = []
    try:
        for gateway in gateways.values():
            await asyncio.to_thread(gateway.__enter__)
            await asyncio.to_thread(asked.check, f"{gateway.url}/predict/intent/1.0", clients=clients, seconds=1)
        for _ in range(rounds):
            measured = {}
            for count, gateway in gateways.items():
                before = cpu_s(gateway.process.pid)
                url = f"{gateway.url}/predict/intent/1.0"
                load = await asyncio.to_thread(asked.load, url, clients=clients, seconds=seconds)
                used_ms = (cpu_s(gateway.process.pid) - before) * 1000
                measured[count] = (load.rate, used_ms / load.requests, load.p99)
            found.append(measured)
    finally:
        for gateway in gateways.values():
            await asyncio.to_thread(gateway.__exit__)
        await pod.stop()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not is_installed():
        print("wrk is not installed: apt-get install wrk", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as directory:
        rounds = asyncio.run(
            measure(Path(directory), options.processes, options.clients, options.seconds, options.rounds)
        )
    print(f"{os.cpu_count()} processors, {options.clients} clients, {options.rounds} rounds in turns; medians")
    for count in (1, options.processes):
        rate, cpu_ms, p99 = (statistics.median(each[count][part] for each in rounds) for part in range(3))
        print(
            f"{count} process{'es' if count > 1 else ''}: {rate:.0f} requests/s, {cpu_ms:.3f} CPU-ms, p99 {p99:.1f} ms"
        )
    for part, what in ((0, "requests/s"), (1, "CPU-ms a request")):
        ratios = sorted(each[options.processes][part] / each[1][part] for each in rounds)
        print(
            f"{what}, {options.processes} / 1: {statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
