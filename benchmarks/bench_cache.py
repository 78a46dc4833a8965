"""What a kept answer saves: the same requests with the cache and past it, in interleaved rounds through the gateway.

`make bench-cache`, or `python benchmarks/bench_cache.py --rounds 5 --seconds 2`. The model is the smallest there is; a
larger one gains more. Past the cache means `Cache-Control: no-cache`, so that both go the same way until there.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wrk
from documents import add_output, spread, write
from servers import MarwayUp, marway_up
from workloads import TINY, check

PATH = f"/predict/{TINY.name}"
CLIENTS = (1, 8, 32)
HIT, BYPASS = "hit", "bypass"
_SEEN_S = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of load a round and way (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    if not wrk.is_installed():
        sys.exit("wrk is missing: install it (Debian: apt-get install wrk)")
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as name, marway_up(Path(name) / "home") as up:
        result = measure(up, Path(name), args.rounds, args.seconds)
    print(markdown(result))
    write(args, "cache", result)
    return 0


def measure(up: MarwayUp, scratch: Path, rounds: int, seconds: int) -> dict[str, Any]:
    registry, url = up.ready["registry"], up.ready["gateway"] + PATH
    TINY.publish(registry, up.ready["admin"])
    command = [sys.executable, "-m", "marway", "serving", TINY.name, "--set", "cache=true", "--registry", registry]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    request = TINY.request()
    past = wrk.Request(request.body, request.content_type, {"Cache-Control": "no-cache"})
    deadline = time.monotonic() + _SEEN_S
    while (said := ask(url, request))[0] != HIT:  # the gateway sees the setting within 2 s
        assert time.monotonic() < deadline, "the gateway does not keep answers"
    check(TINY, said[1])
    ways = {HIT: request, BYPASS: past}
    generators = {use: wrk.Generator(scratch / use, sent, said[1]) for use, sent in ways.items()}
    rates: dict[str, dict[str, list[float]]] = {str(count): {use: [] for use in ways} for count in CLIENTS}
    for generator in generators.values():
        generator.check(url, clients=max(CLIENTS), seconds=1)
    for _ in range(rounds):
        for count in CLIENTS:
            for use, sent in ways.items():
                if ask(url, sent)[0] != use:
                    raise AssertionError(f"an answer came as {ask(url, sent)[0]}, not as {use}")
                rates[str(count)][use].append(generators[use].load(url, clients=count, seconds=seconds).rate)
    return {"rounds": rounds, "seconds": seconds, "rates": rates}


def ask(url: str, request: wrk.Request) -> tuple[str | None, bytes]:
    """Return how the cache had an answer, and its body."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request("POST", PATH, request.body, {**request.headers, "content-type": request.content_type})
        answer = connection.getresponse()
        return answer.headers.get("x-cache"), answer.read()
    finally:
        connection.close()


def ratios(result: dict[str, Any], clients: str) -> list[float]:
    """Return requests/s of kept answers in those of made ones, round by round."""
    rates = result["rates"][clients]
    return [hit / made for hit, made in zip(rates[HIT], rates[BYPASS], strict=True)]


def markdown(result: dict[str, Any]) -> str:
    """Return a line for each number of clients."""
    lines = []
    for count, rates in result["rates"].items():
        hit, without = (statistics.median(rates[use]) for use in (HIT, BYPASS))
        lines.append(
            f"- {count} clients: cache {hit:.0f} requests/s, without {without:.0f}, "
            f"cache / without = {spread(ratios(result, count), unit='x')}"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
