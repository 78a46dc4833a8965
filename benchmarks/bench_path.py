"""What the front door costs: one client asks TorchServe itself, the sidecar, and the gateway, in interleaved rounds.

TorchServe is the pod's own, which both others ask as well: with all that Marway's runtime gives it.

`make bench-path`, or `python benchmarks/bench_path.py --rounds 20 --requests 100`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from documents import add_output, write
from servers import Connection, MarwayUp, marway_up

MODEL = "intent"
BODY = b"tell me a joke"
EXPECTED = "tell_joke"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=200, help="requests a round and target (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as scratch, marway_up(Path(scratch), "--demo") as up:
        lines = [f"fresh home, both examples trained, to ready: {time.monotonic() - began:.1f} s"]
        lines += measure(up, args.rounds, args.requests)
    printed = "\n".join(lines)
    print(printed)
    write(args, "path", {"printed": printed})
    return 0


def measure(up: MarwayUp, rounds: int, requests: int) -> list[str]:
    with Connection(up.ready["gateway"]) as gateway:
        ask(gateway, f"/predict/{MODEL}/PROD")  # has it loaded
    targets = {
        "the pod's TorchServe, over REST": (
            up.runtime["addresses"]["inference"],
            f"/predictions/{up.server_name(MODEL)}",
        ),
        "sidecar": (up.ready["pods"][0]["url"], f"/predict/{MODEL}/1.0"),
        "gateway → sidecar": (up.ready["gateway"], f"/predict/{MODEL}/PROD"),
    }
    medians: dict[str, list[float]] = {name: [] for name in targets}
    tails: dict[str, list[float]] = {name: [] for name in targets}
    for turn in range(rounds + 1):
        for name, (base, path) in targets.items():
            with Connection(base) as connection:
                times = sorted(ask(connection, path) for _ in range(requests))
            if turn:  # the first round warms up
                medians[name].append(statistics.median(times))
                tails[name].append(times[int(len(times) * 0.99)])
    lines = [f"intent, 1 client, {rounds} rounds of {requests} requests; medians over rounds, milliseconds"]
    base_line = statistics.median(next(iter(medians.values())))
    for name in targets:
        p50, p99 = statistics.median(medians[name]), statistics.median(tails[name])
        ratio = f"p50 against TorchServe {p50 / base_line:5.2f}x"
        lines.append(f"  {name:32s} p50 {p50 * 1e3:6.2f}  p99 {p99 * 1e3:6.2f}  {ratio}")
    return lines


def ask(connection: Connection, path: str) -> float:
    """Make one prediction, check its answer, and return the seconds it took."""
    started = time.perf_counter()
    body = connection.ask("POST", path, BODY)
    took = time.perf_counter() - started
    if json.loads(body)["label"] != EXPECTED:
        raise AssertionError(f"{path}: {body[:200]!r}")
    return took


if __name__ == "__main__":
    sys.exit(main())
