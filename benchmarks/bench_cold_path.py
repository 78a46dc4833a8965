"""The two cold paths by phases: from `publish` to the first answer on a warm pod, and from a pod's start to ready.

`make bench-cold-path`, or `python benchmarks/bench_cold_path.py --rounds 5`. Phases come from what the parts say
themselves: `Server-Timing` of the gateway, the fields of the sidecar's log line of a load, the time stamps of logs and
of runtime.json. What no phase accounts for is a phase of its own: a poll would show there.
"""

import argparse
import contextlib
import json
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from documents import Table, add_output, spread, write
from servers import MarwayUp, free_ports, marway_up, of_home, with_classes
from workloads import TINY, check

PUBLISHED, STARTED = "publish to first answer", "pod start to ready"
LOOK_S = 0.005
_SEEN_S = 20
_TIMING = re.compile(r"(\w+);dur=([\d.]+)")
# Waits of a path that are nobody's work: what a poll that is too slow would make long.
_WAITS = {
    PUBLISHED: ("unaccounted for",),
    STARTED: ("sidecar notices", "gateway notices", "marway up notices"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each path (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    phases: dict[str, list[dict[str, float]]] = {PUBLISHED: [], STARTED: []}
    with_classes()  # before a clock runs
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as name:
        for turn in range(args.rounds):
            began, port = time.time(), neighbouring_port()
            gateway = Readiness(port)
            with gateway, marway_up(Path(name) / f"home-{turn}", "--port", str(port)) as up:
                phases[STARTED].append(start(up, began, gateway.since(), time.time()))
                if turn == 0:
                    publish(up, "warm-up")  # the first load of a pod reads what later ones have in the page cache
                phases[PUBLISHED].append(publish(up, f"round-{turn}"))
    result = {"rounds": args.rounds, "phases_ms": phases, "waited_ms": waited(phases)}
    print(markdown(result))
    write(args, "cold", result)
    return 0


class Readiness(threading.Thread):
    """Looks, as often as it can, from which moment on a gateway can serve; gives up when the context ends."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._ended = threading.Event()
        self._since: float | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while self._since is None and not self._ended.wait(LOOK_S):
            with contextlib.suppress(OSError, HTTPException):
                connection = HTTPConnection("127.0.0.1", self._port, timeout=5)
                with contextlib.closing(connection):
                    connection.request("GET", "/readyz")
                    if connection.getresponse().status == 200:
                        self._since = time.time()

    def since(self) -> float:
        """Return the moment; the gateway must have said so."""
        self.join(_SEEN_S)
        assert self._since is not None, "the gateway never said that it is ready"
        return self._since


def neighbouring_port() -> int:
    """Return a port that nobody listens on, nor on the next two, which `marway up` takes as well."""
    while True:
        (port,) = free_ports(1)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for number in (port, port + 1, port + 2):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port


def start(up: MarwayUp, began: float, gateway: float, ready: float) -> dict[str, float]:
    """Return the phases of a pod's start in milliseconds, from the moments at which each ended."""
    runtime = events(up.home / "logs" / "runtime-pod-0.log")
    sidecar = events(up.home / "logs" / "sidecar-pod-0.log")
    processes = {process.create_time() for process in of_home(up.home) if "runtime" in process.cmdline()}
    attached = at(sidecar, "torchserve ")
    answers = at(runtime, "TorchServe answers")
    moments = {
        "marway up starts runtime": min(processes),
        "runtime starts Java": answers - took(runtime, "TorchServe answers"),
        "TorchServe answers": answers,
        "runtime says where it is": (up.home / "pods" / "pod-0" / "runtime.json").stat().st_mtime,
        "sidecar notices": attached,
        "gateway notices": gateway,
        "marway up notices": ready,
    }
    found, since = {}, began
    for name, moment_of in moments.items():
        found[name] = max(0.0, moment_of - since) * 1000
        since = max(since, moment_of)
    return found


def publish(up: MarwayUp, name: str) -> dict[str, float]:
    """Publish a version under a new name, ask for it at once, and return the phases in milliseconds."""
    from marway_archiver import publish as publish_version

    request = TINY.request()
    began = time.perf_counter()
    publish_version(
        model_name=name,
        version="1.0",
        handler=str(Path(__file__).parent / "models" / "tiny.py"),
        registry=up.ready["registry"],
        record={"serving": {"max_workers": 1}},
        examples=["abc", "defgh", "ijk"],
    )
    published = time.perf_counter()
    connection = HTTPConnection(urlsplit(up.ready["gateway"]).netloc, timeout=120)
    with contextlib.closing(connection):
        total, timing = ask(connection, f"/predict/{name}/1.0", request.body)
        again, warm = ask(connection, f"/predict/{name}/1.0", request.body)
    load = phases_of(up.home / "logs" / "sidecar-pod-0.log", f"{name} 1.0 is ready")
    found = {"publish: pack, prove, store": (published - began) * 1000, "gateway resolves": timing["resolve"]}
    found |= {f"pod: {phase}": value for phase, value in load.items()}
    found["model"] = timing["model"]
    hops = again - warm["model"]  # what gateway and sidecar take of any request
    found["gateway and sidecar"] = hops
    known = timing["resolve"] + sum(load.values()) + timing["model"] + hops
    found["unaccounted for"] = max(0.0, total - known)
    return found


def ask(connection: HTTPConnection, path: str, body: bytes) -> tuple[float, dict[str, float]]:
    """Return the milliseconds of a prediction, and those of its phases in the gateway."""
    began = time.perf_counter()
    connection.request("POST", path, body, {"content-type": "text/plain"})
    answer = connection.getresponse()
    data = answer.read()
    took_ms = (time.perf_counter() - began) * 1000
    assert answer.status == 200, data[:300]
    check(TINY, data)
    said = ", ".join(answer.headers.get_all("server-timing", ()))  # the sidecar's own, and the gateway's
    return took_ms, {name: float(value) for name, value in _TIMING.findall(said)}


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def phases_of(log: Path, event: str) -> dict[str, float]:
    """Return the phases in the log line of a load, which may still be on its way."""
    deadline = time.monotonic() + _SEEN_S
    while True:
        for line in events(log):
            if str(line["message"]).startswith(event):
                found: dict[str, float] = line["phases_ms"]
                return found
        assert time.monotonic() < deadline, f"{log} does not say that {event}"
        time.sleep(0.02)  # the log is a file


def at(lines: list[dict[str, Any]], event: str) -> float:
    (line, *_) = (line for line in lines if str(line["message"]).startswith(event))
    return datetime.fromisoformat(line["time"]).timestamp()


def took(lines: list[dict[str, Any]], event: str) -> float:
    """Return the seconds that a line of a log says that something took, to a tenth."""
    said = (re.match(rf"{event} after ([\d.]+) s", str(line["message"])) for line in lines)
    (found, *_) = filter(None, said)
    return float(found[1])


def waited(phases: Mapping[str, list[dict[str, float]]]) -> dict[str, float]:
    """Return the median of each wait, in milliseconds."""
    return {
        name: statistics.median([each[name] for each in rounds])
        for path, rounds in phases.items()
        for name in _WAITS[path]
    }


def markdown(result: dict[str, Any]) -> str:
    """Return a table for each path."""
    lines: list[str] = []
    for path, rounds in result["phases_ms"].items():
        table = Table("phase", "ms")
        for name in rounds[0]:
            said = spread([each[name] for each in rounds], 1)
            table.add(f"{name} (wait)" if name in _WAITS[path] else name, said)
        table.add("all", spread([sum(each.values()) for each in rounds], 0))
        lines += [f"From {path}, {result['rounds']} rounds:", "", *table.lines(), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
