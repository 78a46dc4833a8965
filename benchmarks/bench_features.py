"""What each feature of the gateway costs: its processor time with everything on, and with one thing switched off.

`make bench-features`, or `python benchmarks/bench_features.py --rounds 10 --seconds 2`. Gateways that differ in one
feature stand before the same pod and take turns; a cost is the median of differences within a round. One gateway more
has nothing switched off: what it seems to cost is the error of measurement.

What observations, or a label divided between two versions, cost is less than that error, and is measured in another
way: by one gateway that does it and does not, in turns of a quarter of a second (`gateway_slices.py`).
"""

import argparse
import contextlib
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pyarrow.parquet as pq
import wrk
from documents import Table, add_output, spread, write
from gateway_slices import DIVIDED, OFF, WARM_S
from gateway_without import ADDED, SEAMS
from servers import Connection, MarwayUp, cpu_seconds, free_ports, marway_up
from workloads import TINY, check

EVERYTHING, CONTROL = "everything on", "nothing (control)"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SLICED = {"observe=metadata": "metadata", "observe=bodies": "bodies", "a divided label": DIVIDED}
FEATURES = [*(each for each in SEAMS if each != "nothing"), *ADDED, *SLICED]
PATH = f"/predict/{TINY.name}"
GOAL = 0.10
GOALS = {"observe=metadata": 0.05, "observe=bodies": 0.12, "a divided label": 0.15}
"""Where it is another."""
_START_S = 60
_SETTLE_S = 12.0
"""How long after the load all observations are files, which cost too."""


@dataclass
class Gateway:
    """One gateway, what it lacks, and its processor time for a request in microseconds, a value a round."""

    without: str
    url: str
    process: psutil.Process
    log: Path
    micros: list[float] = field(default_factory=list)


@dataclass
class Sliced:
    """What keeping or dividing predictions costs, and all that a gateway does for one: in microseconds, by round."""

    cost: list[float]
    whole: list[float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of load a round and gateway (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=32, help="connections at once (default: %(default)s)")
    parser.add_argument("--features", help="with commas between them (default: all): " + ", ".join(FEATURES))
    add_output(parser)
    args = parser.parse_args()
    if not wrk.is_installed():
        sys.exit("wrk is missing: install it (Debian: apt-get install wrk)")
    token = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as name, contextlib.ExitStack() as stack:
        scratch = Path(name)
        tokens = scratch / "tokens"
        tokens.write_text(f"bench: {token}\n")
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = stack.enter_context(span_sink())
        up = stack.enter_context(marway_up(scratch / "home"))
        TINY.publish(up.ready["registry"], up.ready["admin"])
        features = args.features.split(",") if args.features else FEATURES
        without = [each for each in features if each not in SLICED]
        kinds = {EVERYTHING: "nothing", CONTROL: "nothing", **{each: each for each in without}}
        gateways = [
            stack.enter_context(gateway(label, kind, up, scratch / f"gateway-{number}", tokens))
            for number, (label, kind) in enumerate(kinds.items())
        ]
        request = TINY.request()
        sent = {"Authorization": f"Bearer {token}", "traceparent": TRACEPARENT}
        request = wrk.Request(request.body, request.content_type, sent)
        generator = wrk.Generator(scratch / "wrk", request, expected(up))
        measure(gateways, generator, args.rounds, args.seconds, args.clients)
        for each in gateways:
            verify(each, request)
        observed = {}
        for name in features:
            if name in SLICED:
                directory = scratch / f"sliced-{SLICED[name]}"
                with gateway(name, SLICED[name], up, directory, tokens, report=directory / "report") as each:
                    generator.check(each.url + PATH, clients=args.clients, seconds=1)
                    generator.load(
                        each.url + PATH, clients=args.clients, seconds=int(WARM_S) + args.rounds * args.seconds
                    )
                    time.sleep(_SETTLE_S)
                observed[name] = asdict(costs_of_slices(directory, args.rounds))
    result = {
        "observed": observed,
        "rounds": args.rounds,
        "clients": args.clients,
        "micros": {each.without: each.micros for each in gateways},
    }
    print(markdown(result))
    write(args, "features", result)
    return 0


@contextlib.contextmanager
def span_sink() -> Iterator[str]:
    """Take spans, and do nothing with them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_request(self, code: object = None, size: object = None) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def gateway(
    label: str, kind: str, up: MarwayUp, directory: Path, tokens: Path, *, report: Path | None = None
) -> Iterator[Gateway]:
    """Run a gateway that lacks one feature, before the pods of a running system; with a report, one of slices."""
    directory.mkdir()
    port, admin, grpc = free_ports(3)
    pods = ",".join(f"{pod['name']}={pod['url']}" for pod in up.ready["pods"])
    script = "gateway_without.py" if report is None else "gateway_slices.py"
    command = [sys.executable, str(Path(__file__).with_name(script)), kind, *([] if report is None else [str(report)])]
    command += ["--registry", up.ready["registry"], "--pods", pods, "--port", str(port)]
    command += ["--admin-port", str(admin), "--grpc-port", str(grpc)]
    environment = {**os.environ, "MARWAY_GATEWAY_PREDICT_TOKENS_FILE": str(tokens), "MARWAY_GATEWAY_LAME_DUCK_S": "0"}
    environment["MARWAY_GATEWAY_DUTIES"] = "false"
    environment["MARWAY_GATEWAY_OBSERVATIONS"] = (directory / "observations").as_uri()
    log, url = directory / "log", f"http://127.0.0.1:{port}"
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + _START_S
            while not ready(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"no gateway without {label}: {log.read_text()[-2000:]}")
                time.sleep(0.1)  # it says so in its log, in no other way
            yield Gateway(label, url, psutil.Process(process.pid), log)
        finally:
            process.terminate()
            process.wait(30)


def ready(url: str) -> bool:
    with contextlib.suppress(OSError, AssertionError), Connection(url) as connection:
        connection.ask("GET", "/readyz")
        return True
    return False


def expected(up: MarwayUp) -> bytes:
    """Return the right answer, as the pod gives it; and have the model loaded."""
    request = TINY.request()
    with Connection(up.ready["pods"][0]["url"]) as pod:
        body = pod.ask("POST", f"{PATH}/1.0", request.body, request.content_type)
    check(TINY, body)
    return body


def measure(gateways: list[Gateway], generator: wrk.Generator, rounds: int, seconds: int, clients: int) -> None:
    for each in gateways:
        generator.check(each.url + PATH, clients=clients, seconds=1)
    order = random.Random(7)
    for _ in range(rounds):
        for each in order.sample(gateways, len(gateways)):
            before = cpu_seconds([each.process])
            load = generator.load(each.url + PATH, clients=clients, seconds=seconds)
            each.micros.append((cpu_seconds([each.process]) - before) / load.requests * 1e6)


def costs_of_slices(directory: Path, rounds: int) -> Sliced:
    """Read a report and what was kept; raise unless the gateway did what it should."""
    report = json.loads((directory / "report").read_text())
    others = report["log_s"] / report["predictions"] * 1e6
    slices, what = report["slices"], next(mode for mode, _, _ in report["slices"] if mode != OFF)
    if what == DIVIDED:
        if report["divided"] < report["observed"]:
            raise AssertionError(f"of {report['observed']} predictions, {report['divided']} were divided")
        return costs_of_turns(slices, rounds, files_us=0.0, others_us=others)
    files = [pq.read_table(path, columns=["bodies"]) for path in directory.rglob("*.parquet")]
    bodies = Counter(each for table in files for each in table.column("bodies").to_pylist())
    most = max(bodies, key=bodies.__getitem__, default=None)
    if bodies.total() < report["observed"] or most != {"metadata": "off", "bodies": "kept"}[what]:
        raise AssertionError(
            f"of {report['observed']} predictions, {dict(bodies)} were kept, by why bodies are missing"
        )
    return costs_of_turns(slices, rounds, files_us=report["threads_s"] / report["observed"] * 1e6, others_us=others)


def costs_of_turns(slices: list[tuple[str, float, int]], rounds: int, *, files_us: float, others_us: float) -> Sliced:
    """Return the costs of slices, with what files and the log take in other threads, for a prediction."""
    what = next(mode for mode, _, _ in slices if mode != OFF)
    result = Sliced([], [])
    for start in range(rounds):
        part = slices[start * len(slices) // rounds : (start + 1) * len(slices) // rounds]
        spent = {
            wanted: sum(s for mode, s, _ in part if mode == wanted)
            / sum(n for mode, _, n in part if mode == wanted)
            * 1e6
            for wanted in (OFF, what)
        }
        result.cost.append(spent[what] - spent[OFF] + files_us)
        result.whole.append(spent[what] + files_us + others_us)
    return result


def verify(each: Gateway, request: wrk.Request) -> None:
    """Raise unless the gateway really lacks what it should, and has everything else.

    That a trace context is passed on is not to be seen from outside; tests of the gateway show it.
    """
    connection = HTTPConnection(urlsplit(each.url).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        connection.request("POST", PATH, request.body, {"content-type": request.content_type})
        anonymous = connection.getresponse()
        anonymous.read()
        connection.request("POST", PATH, request.body, {**request.headers, "content-type": request.content_type})
        answer = connection.getresponse()
        answer.read()
    found = {
        "request ids": answer.headers.get("x-request-id") != "off",
        "metrics": "marway_gateway_request_duration_seconds_count{" in metrics,
        "access log": '"surface": "native"' in each.log.read_text() or '"surface":"native"' in each.log.read_text(),
        "auth": anonymous.status == 401,
    }
    for feature, there in found.items():
        if there != (feature != each.without):
            raise AssertionError(f"the gateway without {each.without}: {feature} is {'on' if there else 'off'}")


def costs(result: dict[str, Any]) -> dict[str, list[float]]:
    """Return what each feature costs in microseconds a request, round by round."""
    micros: dict[str, list[float]] = result["micros"]
    return {
        name: [(on - off) * (-1 if name in ADDED else 1) for on, off in zip(micros[EVERYTHING], values, strict=True)]
        for name, values in micros.items()
        if name != EVERYTHING
    }


def verdict(name: str, share: float) -> str:
    goal = GOALS.get(name, GOAL)
    return f"≤ {goal:.0%}: {'met' if share <= goal else '**missed**'}"


def markdown(result: dict[str, Any]) -> str:
    """Return the table of costs."""
    whole = statistics.median(result["micros"][EVERYTHING])
    said = f"{whole:.0f} µs of the gateway's processor time a request"
    lines = [f"Everything on: {said} ({result['clients']} clients, {result['rounds']} rounds).", ""]
    table = Table("feature", "µs a request", "share of the gateway", "goal")
    for name, values in costs(result).items():
        share = statistics.median(values) / whole
        goal = "" if name in (CONTROL, *ADDED) else verdict(name, share)
        table.add(name, spread(values, 1), f"{share:.1%}", goal)
    for name, observed in result.get("observed", {}).items():
        share = statistics.median(observed["cost"]) / statistics.median(observed["whole"])
        table.add(name, spread(observed["cost"], 1), f"{share:.1%}", verdict(name, share))
    return "\n".join([*lines, *table.lines(), ""])


if __name__ == "__main__":
    sys.exit(main())
