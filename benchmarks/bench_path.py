"""What the front door costs: one client asks TorchServe itself, the sidecar, and the gateway, in interleaved rounds.

`make bench`, or `python benchmarks/bench_path.py --rounds 20 --requests 100`.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

BODY = b"tell me a joke"
EXPECTED = "tell_joke"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=200, help="requests a round and target (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as home:
        began = time.monotonic()
        command = [sys.executable, "-m", "marway", "up", "--demo", "--json", "--port", "0", "--home", home]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
            try:
                measure(up, Path(home), began, args.rounds, args.requests)
            finally:
                up.terminate()
                up.communicate(timeout=40)
    return up.returncode


def measure(up: subprocess.Popen[str], home: Path, began: float, rounds: int, requests: int) -> None:
    assert up.stdout is not None
    ready = next(event for event in map(json.loads, up.stdout) if event["event"] == "ready")
    print(f"fresh home, both examples trained, to ready: {time.monotonic() - began:.1f} s")
    next(event for event in map(json.loads, up.stdout) if event["event"] == "prediction")
    runtime = json.loads((home / "pods" / "pod-0" / "runtime.json").read_text())
    pod = ready["pods"][0]["url"]
    with Connection(pod) as connection:
        model_id = next(m["id"] for m in json.loads(connection.get("/models")) if m["name"] == "intent")
    targets = {
        "TorchServe REST (tuned: quiet)": (runtime["addresses"]["inference"], f"/predictions/{model_id}"),
        "sidecar": (pod, "/predict/intent/1.0"),
        "gateway → sidecar": (ready["gateway"], "/predict/intent/PROD"),
    }
    medians: dict[str, list[float]] = {name: [] for name in targets}
    tails: dict[str, list[float]] = {name: [] for name in targets}
    for turn in range(rounds + 1):
        for name, (base, path) in targets.items():
            with Connection(base) as connection:
                times = sorted(connection.ask(path) for _ in range(requests))
            if turn:  # the first round warms up
                medians[name].append(statistics.median(times))
                tails[name].append(times[int(len(times) * 0.99)])
    print(f"intent, 1 client, {rounds} rounds of {requests} requests; medians over rounds, milliseconds")
    base_line = statistics.median(next(iter(medians.values())))
    for name in targets:
        p50, p99 = statistics.median(medians[name]), statistics.median(tails[name])
        print(
            f"  {name:32s} p50 {p50 * 1e3:6.2f}  p99 {p99 * 1e3:6.2f}  p50 against TorchServe {p50 / base_line:5.2f}x"
        )


class Connection:
    """One persistent HTTP connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str) -> bytes:
        self._connection.request("GET", path)
        return self._connection.getresponse().read()

    def ask(self, path: str) -> float:
        """Make one prediction, check its answer, and return the seconds it took."""
        started = time.perf_counter()
        self._connection.request("POST", path, BODY, {"content-type": "text/plain"})
        answer = self._connection.getresponse()
        body = answer.read()
        took = time.perf_counter() - started
        if answer.status != 200 or json.loads(body)["label"] != EXPECTED:
            raise AssertionError(f"{path}: {answer.status} {body[:200]!r}")
        return took


if __name__ == "__main__":
    sys.exit(main())
