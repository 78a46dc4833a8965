"""What TorchServe's default logging costs: one model in a stock TorchServe and in one that Marway's runtime started.

Both are asked over their own REST port, in interleaved rounds, and both have the thread pool that Java itself chooses,
so that the difference is the server's configuration and worker alone.

`make bench-logging`, or `python benchmarks/bench_logging.py --rounds 10 --requests 400`.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit
from zipfile import ZipFile

import psutil
from servers import Connection, MarwayUp, below, cpu_seconds, javas_own_pool, marway_up, register, stock_torchserve

BODY = b"tell me a joke"
EXPECTED = "tell_joke"
MODEL = "intent"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=400, help="requests a client and round (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="connections at once (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as scratch, contextlib.ExitStack() as stack:
        up = stack.enter_context(marway_up(Path(scratch) / "home", "--demo", **javas_own_pool()))
        served = first_prediction(up)
        (archive,) = (path for path in (up.home / "store").glob("*.mar") if is_intent(path))
        inference, management, store, stock = stack.enter_context(stock_torchserve(Path(scratch) / "stock"))
        register(management, store, archive, MODEL)
        targets = {
            "stock TorchServe": (f"{inference}/predictions/{MODEL}", below(stock)),
            "Marway's runtime": (f"{up.runtime['addresses']['inference']}/predictions/{served}", runtime_of(up)),
        }
        measure(targets, args.rounds, args.requests, args.clients)
    return 0


def measure(targets: dict[str, tuple[str, list[psutil.Process]]], rounds: int, requests: int, clients: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in targets}
    costs: dict[str, list[float]] = {name: [] for name in targets}
    for turn in range(rounds + 1):
        for name, (url, processes) in targets.items():
            before, began = cpu_seconds(processes), time.perf_counter()
            ask_all(url, requests, clients)
            took = time.perf_counter() - began
            if turn:  # the first round warms up
                rates[name].append(requests * clients / took)
                costs[name].append((cpu_seconds(processes) - before) / (requests * clients) * 1000)
    print(f"intent over TorchServe's REST, {clients} clients, {rounds} rounds of {requests} requests each; medians")
    for name in targets:
        rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
        print(f"  {name:18s} {rate:7.0f} requests/s  {cost:6.3f} CPU-seconds (Java and worker) per 1000 requests")
    stock, quiet = targets
    faster = statistics.median(q / s for q, s in zip(rates[quiet], rates[stock], strict=True))
    cheaper = statistics.median(s / q for q, s in zip(costs[quiet], costs[stock], strict=True))
    print(f"quiet / stock = {faster:.2f}x requests/s, {cheaper:.2f}x requests per CPU-second")


def ask_all(url: str, requests: int, clients: int) -> None:
    """Ask from ``clients`` connections at once and check every answer."""
    failed: list[str] = []

    def ask() -> None:
        parts = urlsplit(url)
        connection = HTTPConnection(parts.netloc, timeout=60)
        for _ in range(requests):
            connection.request("POST", parts.path, BODY, {"content-type": "text/plain"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or json.loads(body)["label"] != EXPECTED:
                failed.append(f"{url}: {answer.status} {body[:200]!r}")
                break
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise AssertionError(failed[0])


def first_prediction(up: MarwayUp) -> str:
    """Have the model loaded, and return its name in TorchServe."""
    with Connection(up.ready["gateway"]) as gateway:
        gateway.ask("POST", f"/predict/{MODEL}", BODY)
    return up.server_name(MODEL)


def runtime_of(up: MarwayUp) -> list[psutil.Process]:
    """Return TorchServe, its fork server and its workers."""
    return below(psutil.Process(up.runtime["pid"]).ppid())


def is_intent(archive: Path) -> bool:
    """Return whether an archive's manifest names the intent model."""
    with ZipFile(archive) as file:
        manifest = json.loads(file.read("MAR-INF/MANIFEST.json"))
    return bool(manifest["model"]["modelName"] == MODEL)


if __name__ == "__main__":
    sys.exit(main())
