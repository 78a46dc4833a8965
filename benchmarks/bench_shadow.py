"""What shadow copies cost callers: their latency with every request copied, and with none, in turns.

`make bench-shadow`, or `python benchmarks/bench_shadow.py --rounds 6 --seconds 8`. Requests come at a fixed rate,
whether or not the ones before were answered, and latency counts from when one was due: a queue would show. The base and
the version that gets copies share a pod, whose processors they compete for, as in the worst case.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from documents import Table, add_output, spread, write
from servers import Connection, marway_up
from workloads import HERE, TINY, published

from marway_archiver import publish

SEED = 20261130
FOLLOW_S = 3.0
"""How long until every gateway process has followed a change."""
THREADS = 16


class Load:
    """Callers who send requests at random moments, so many a second on the average (a Poisson process)."""

    def __init__(self, url: str, path: str) -> None:
        self._address, self._path = urlsplit(url).netloc, path

    def run(self, rate: float, seconds: float, seed: int) -> list[float]:
        """Return the latency of every request, in milliseconds."""
        draw, due, at = random.Random(seed), [], 0.0
        while (at := at + draw.expovariate(rate)) < seconds:
            due.append(at)
        began, taken, found = time.perf_counter() + 0.2, iter(due), []
        lock = threading.Lock()
        body, kind = TINY.request().body, TINY.request().content_type

        def caller() -> None:
            connection = HTTPConnection(self._address, timeout=60)
            while True:
                with lock:
                    moment = next(taken, None)
                if moment is None:
                    connection.close()
                    return
                time.sleep(max(0.0, began + moment - time.perf_counter()))
                connection.request("POST", self._path, body, {"content-type": kind})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200, answer.status
                found.append((time.perf_counter() - began - moment) * 1000)

        callers = [threading.Thread(target=caller) for _ in range(THREADS)]
        for each in callers:
            each.start()
        for each in callers:
            each.join()
        return found


def copies(url: str) -> dict[str, float]:
    """Return how many copies ended in which way."""
    with Connection(url) as gateway:
        text = gateway.ask("GET", "/metrics").decode()
    name = 'marway_gateway_shadow_requests_total{outcome="'
    lines = [line.removeprefix(name).split('"} ') for line in text.splitlines() if line.startswith(name)]
    return {outcome: float(count) for outcome, count in lines}


def quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def measure(rates: Sequence[float], rounds: int, seconds: float, engine: str) -> dict[str, Any]:
    result: dict[str, Any] = {"seconds": seconds, "engine": engine, "rates": {}}
    with tempfile.TemporaryDirectory() as home, marway_up(Path(home), "--engine", engine) as up:
        registry, url, admin = (up.ready[name] for name in ("registry", "gateway", "admin"))
        published("tiny", ["abc"])(registry, admin)
        marway = [sys.executable, "-m", "marway"]
        handler = str(HERE / "models" / "tiny.py")
        serving = {"serving": {"min_workers": 1, "max_workers": 1}}
        publish(model_name="tiny", version="1.1", handler=handler, registry=registry, record=serving, examples=["abc"])

        def turn(on: bool) -> None:
            words = ["start", "tiny", "1.1"] if on else ["stop", "tiny"]
            subprocess.run([*marway, "shadow", *words, "--gateway", admin], check=True, stdout=subprocess.DEVNULL)
            time.sleep(FOLLOW_S)

        load = Load(url, "/predict/tiny/PROD")
        load.run(50, 3, SEED)
        for rate in rates:
            found: dict[bool, list[list[float]]] = {False: [], True: []}
            before = copies(url)
            for number in range(rounds):
                for on in (False, True) if number % 2 else (True, False):
                    if on:
                        turn(on)
                    found[on].append(load.run(rate, seconds, SEED + number))
                    if on:
                        turn(False)
            after = copies(url)
            result["rates"][f"{rate:g}"] = {
                "requests": sum(map(len, found[True])),
                "copies": {name: count - before.get(name, 0.0) for name, count in after.items()},
                **{
                    f"{name}_{'copied' if on else 'plain'}_ms": [quantile(each, part) for each in found[on]]
                    for name, part in (("p50", 0.5), ("p99", 0.99))
                    for on in (False, True)
                },
            }
    return result


def lines(result: dict[str, Any]) -> list[str]:
    table = Table("requests/s", "p50 alone", "p50 with copies", "p99 alone", "p99 with copies", "of copies, answered")
    for rate, row in result["rates"].items():
        times = [spread(row[f"{name}_{how}_ms"], unit=" ms") for name in ("p50", "p99") for how in ("plain", "copied")]
        table.add(rate, *times, f"{row['copies'].get('ok', 0) / row['requests']:.1%}")
    return table.lines()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="50,100,200", help="requests a second (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="of load a turn (default: %(default)s)")
    parser.add_argument("--engine", default="native", help="of the pod (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    result = measure([float(each) for each in args.rates.split(",")], args.rounds, args.seconds, args.engine)
    print("\n".join(lines(result)))
    for rate, row in result["rates"].items():
        ratios = [a / b for a, b in zip(row["p99_copied_ms"], row["p99_plain_ms"], strict=True)]
        print(
            f"{rate}/s: p99 with copies / alone = {statistics.median(ratios):.2f}, copies {json.dumps(row['copies'])}"
        )
    write(args, "shadow", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
