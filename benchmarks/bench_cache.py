"""What a kept answer saves: the same requests with the cache and past it, in interleaved rounds through the gateway.

`make bench-cache`, or `python benchmarks/bench_cache.py --rounds 20 --requests 100`. The model is the intent example;
a larger one gains more. Past the cache means `Cache-Control: no-cache`, so that both go the same way until there.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from servers import marway_up

PATH = "/predict/intent/PROD"
EXPECTED = "tell_joke"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=300, help="requests a round and client (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as home, marway_up(Path(home), "--demo") as up:
        measure(up.ready, args.rounds, args.requests)
    return 0


def measure(ready: dict[str, Any], rounds: int, requests: int) -> None:
    command = [sys.executable, "-m", "marway", "serving", "intent", "--set", "cache=true"]
    subprocess.run([*command, "--registry", ready["registry"]], check=True, stdout=subprocess.DEVNULL)
    while ask(ready["gateway"], 1, fresh=False) != {"hit"}:
        pass  # the gateway sees the setting within 2 s
    for clients in (1, 8):
        rates: dict[str, list[float]] = {"hit": [], "bypass": []}
        for turn in range(rounds + 1):
            for use, measured in rates.items():
                rate = together(ready["gateway"], clients, requests // clients + 1, use)
                if turn:  # the first round warms up
                    measured.append(rate)
        hit, without = (statistics.median(measured) for measured in rates.values())
        print(f"intent, {clients} client(s), {rounds} rounds of {requests} requests; requests/s, medians over rounds")
        print(f"  cache {hit:8.0f}   without {without:8.0f}   cache / without = {hit / without:.2f}")


def together(url: str, clients: int, requests: int, use: str) -> float:
    """Return the requests a second of so many clients at once; each answer must have come as ``use`` says."""
    seen: set[str | None] = set()
    threads = [
        threading.Thread(target=lambda: seen.update(ask(url, requests, fresh=use == "bypass"))) for _ in range(clients)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if seen != {use}:
        raise AssertionError(f"answers came as {seen}, not as {use}")
    return clients * requests / took


def ask(url: str, requests: int, *, fresh: bool) -> set[str | None]:
    """Make predictions over one connection, check their answers, and return how the cache had them."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {"content-type": "text/plain", **({"cache-control": "no-cache"} if fresh else {})}
    uses: set[str | None] = set()
    try:
        for _ in range(requests):
            connection.request("POST", PATH, b"tell me a joke", headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or json.loads(body)["label"] != EXPECTED:
                raise AssertionError(f"{answer.status} {body[:200]!r}")
            uses.add(answer.headers.get("x-cache"))
    finally:
        connection.close()
    return uses


if __name__ == "__main__":
    sys.exit(main())
