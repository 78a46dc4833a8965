"""What serving HTTP costs: uvicorn with its own protocol, and with `marway_http.connection`, under load from wrk.

Each serves the same app, which reads the body and answers 60 bytes, from a process of its own, in interleaved rounds.
The third does what predictions do: its answer goes out by the request's channel, in one write.

`make bench-http`, or `python benchmarks/bench_http.py --rounds 10 --seconds 2`.
"""

import argparse
import multiprocessing
import socket
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from wrk import Generator, Request

from marway_http.channel import CHANNEL, header_block
from marway_http.limits import ConnectionLimits
from marway_http.server import HttpServer, listening

BODY = b"tell me a joke"
ANSWER = b'{"label": "tell_joke", "score": 0.98, "others": ["weather"]}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
_BLOCK = header_block(HEADERS)


async def by_asgi(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER, "more_body": False})


async def by_channel(scope: Any, receive: Any, send: Any) -> None:
    assert scope[CHANNEL].body == BODY
    await scope[CHANNEL].answer(200, _BLOCK, ANSWER)


def uvicorns(sock: socket.socket) -> None:
    config = uvicorn.Config(by_asgi, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    uvloop.run(uvicorn.Server(config).serve(sockets=[sock]))


def ours(sock: socket.socket, app: Any) -> None:
    limits = ConnectionLimits(header_timeout_s=10, body_timeout_s=10, body_min_rate=1024, max_connections=10_000)

    async def serve() -> None:
        await HttpServer(app, limits, lifespan="off").serve(sockets=[sock])

    uvloop.run(serve())


TARGETS: dict[str, Callable[[socket.socket], None]] = {
    "uvicorn as it is": uvicorns,
    "ours, by ASGI": lambda sock: ours(sock, by_asgi),
    "ours, by channel": lambda sock: ours(sock, by_channel),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of load a round and target (default: %(default)s)")
    args = parser.parse_args()
    fork = multiprocessing.get_context("fork")
    servers, urls = [], {}
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as scratch:
        for name, serve in TARGETS.items():
            with listening("127.0.0.1", 0, flag="--port") as sock:
                urls[name] = f"http://127.0.0.1:{sock.getsockname()[1]}/"
                servers.append(fork.Process(target=serve, args=(sock,), daemon=True))
                servers[-1].start()
        try:
            measure(Generator(Path(scratch), Request(BODY, "text/plain"), ANSWER), urls, args.rounds, args.seconds)
        finally:
            for server in servers:
                server.kill()
                server.join()
    return 0


def measure(generator: Generator, urls: dict[str, str], rounds: int, seconds: int) -> None:
    for url in urls.values():
        generator.check(url, clients=1, seconds=1)
    first = next(iter(urls))
    for clients in (1, 32):
        rates: dict[str, list[float]] = {name: [] for name in urls}
        for _ in range(rounds):
            for name, url in urls.items():
                rates[name].append(generator.load(url, clients=clients, seconds=seconds).rate)
        print(f"{clients} clients, {rounds} rounds of {seconds} s each; medians")
        for name, each in rates.items():
            ratio = statistics.median(a / b for a, b in zip(each, rates[first], strict=True))
            print(f"  {name:18s} {statistics.median(each):7.0f} requests/s  {ratio:.2f}x of uvicorn's own")


if __name__ == "__main__":
    sys.exit(main())
