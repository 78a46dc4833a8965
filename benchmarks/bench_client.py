"""What `marway.client` adds to httpx: the same small prediction by both, in interleaved rounds.

The server, in a process of its own, answers 60 bytes with the headers of a gateway at once: what a model takes would
hide the client. Compared is the processor time of the thread that asks, which a busy machine changes little: of what a
caller waits it is the larger part here, and with a real model a small one. The overhead is the median of rounds, with
an interval by the bootstrap over rounds.

`make bench-client`, or `python benchmarks/bench_client.py --rounds 40 --requests 250`.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import uvloop

from marway.client import AsyncClient, Client
from marway_http.channel import CHANNEL, header_block
from marway_http.http1.limits import ConnectionLimits
from marway_http.http1.server import HttpServer, listening

VALUE = {"text": "wake me at seven"}
ANSWER = b'{"label": "set_alarm", "score": 0.98, "others": ["weather"]}'
ID = "01JD0Z6Y8Q6V5T4S3R2P1N0M9K"
HEADERS = {
    "content-type": "application/json", "content-length": str(len(ANSWER)), "x-model-name": "intent",
    "x-model-version": "1.0", "x-model-id": f"mv_{ID}", "x-request-id": ID, "x-prediction-id": ID,
    "server-timing": "resolve;dur=0.1, pod;dur=1.2, total;dur=1.5",
}  # fmt: skip
_BLOCK = header_block([(name.encode(), value.encode()) for name, value in HEADERS.items()])


async def answer(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await scope[CHANNEL].answer(200, _BLOCK, ANSWER)


def serve(sock: socket.socket) -> None:
    limits = ConnectionLimits(header_timeout_s=10, body_timeout_s=10, body_min_rate=1024, max_connections=100)
    uvloop.run(HttpServer(answer, limits, lifespan="off").serve(sockets=[sock]))


def blocking(url: str, requests: int) -> dict[str, Callable[[], float]]:
    """Return what asks so often by each client and says how many seconds each request took."""
    plain, ours = httpx.Client(), Client(url)

    def by_httpx() -> None:
        plain.post(f"{url}/predict/intent", json=VALUE, timeout=60).raise_for_status().json()

    def by_marway() -> None:
        ours.predict("intent", VALUE)

    def timed(ask: Callable[[], None]) -> float:
        began = time.thread_time()
        for _ in range(requests):
            ask()
        return (time.thread_time() - began) / requests

    return {"httpx": lambda: timed(by_httpx), "marway.client": lambda: timed(by_marway)}


def awaited(url: str, requests: int, runner: asyncio.Runner) -> dict[str, Callable[[], float]]:
    plain, ours = httpx.AsyncClient(), AsyncClient(url)

    async def by_httpx() -> None:
        (await plain.post(f"{url}/predict/intent", json=VALUE, timeout=60)).raise_for_status().json()

    async def by_marway() -> None:
        await ours.predict("intent", VALUE)

    async def timed(ask: Callable[[], Awaitable[None]]) -> float:
        began = time.thread_time()
        for _ in range(requests):
            await ask()
        return (time.thread_time() - began) / requests

    return {
        "httpx": lambda: runner.run(timed(by_httpx)),
        "marway.client": lambda: runner.run(timed(by_marway)),
    }


def compared(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Return medians in microseconds, and by how many percent ours is slower, of rounds in turn."""
    for ask in ways.values():
        ask()
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        order = list(ways.items())
        for name, ask in order if number % 2 else reversed(order):
            took[name].append(ask())
    ratios = [ours / plain for plain, ours in zip(took["httpx"], took["marway.client"], strict=True)]
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=rounds)) for _ in range(2000))
    return {
        "microseconds": {name: round(statistics.median(times) * 1e6) for name, times in took.items()},
        "overhead_percent": round((statistics.median(ratios) - 1) * 100, 1),
        "interval_95": [round((medians[at] - 1) * 100, 1) for at in (50, 1949)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=250, help="of each client in a round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with listening("127.0.0.1", 0, flag="--port") as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        server = multiprocessing.get_context("fork").Process(target=serve, args=(sock,), daemon=True)
        server.start()
    try:
        with asyncio.Runner() as runner:
            results = {
                "Client": compared(blocking(url, options.requests), options.rounds),
                "AsyncClient": compared(awaited(url, options.requests, runner), options.rounds),
            }
    finally:
        server.terminate()
        server.join(10)
    if options.json:
        print(json.dumps(results))
        return
    for name, found in results.items():
        low, high = found["interval_95"]
        took = ", ".join(f"{way} {time} µs" for way, time in found["microseconds"].items())
        print(f"{name:12} {took}: {found['overhead_percent']:+.1f} % ({low:+.1f} to {high:+.1f})")


if __name__ == "__main__":
    main()
