"""What each feature of the gateway costs: its processor time with everything on, and with one thing switched off.

`make bench-features`, or `python benchmarks/bench_features.py --rounds 10 --seconds 2`. Gateways that differ in one
feature stand before the same pod and take turns; a cost is the median of differences within a round. One gateway more
has nothing switched off: what it seems to cost is the error of measurement.
"""

import argparse
import contextlib
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pyarrow.parquet as pq
import wrk
from documents import Table, add_output, spread, write
from gateway_without import ADDED, SEAMS
from servers import Connection, MarwayUp, cpu_seconds, free_ports, marway_up
from workloads import TINY, check

EVERYTHING, CONTROL = "everything on", "nothing (control)"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FEATURES = [each for each in (*SEAMS, *ADDED) if each != "nothing"]
PATH = f"/predict/{TINY.name}"
GOAL = 0.10
METADATA, BODIES = "observe=metadata", "observe=bodies"
GOALS = {METADATA: 0.05, BODIES: 0.12}
"""Where it is another."""
_START_S = 60
_FLUSH_S = 2.0
_SETTLE_S = 3.5
"""How long after its load a gateway has made files of all observations, which costs too. Meanwhile others are asked;
what a gateway takes without any request is left out. By default observations become files a fifth as often."""
_IDLE_S = 5.0


@dataclass
class Gateway:
    """One gateway, what it lacks, and its processor time for a request in microseconds, a value a round."""

    without: str
    url: str
    process: psutil.Process
    log: Path
    observations: Path
    micros: list[float] = field(default_factory=list)


@dataclass
class Asked:
    """What a gateway was asked in one round: its processor time before, how many requests, and when they had ended."""

    gateway: Gateway
    before_s: float
    requests: float
    ended: float

    def settle(self, idle: float) -> None:
        """Add up what they cost; ``idle`` is the part of a processor that a gateway takes without any."""
        spent = cpu_seconds([self.gateway.process]) - self.before_s - idle * (time.monotonic() - self.ended)
        self.gateway.micros.append(spent / self.requests * 1e6)


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
        up = stack.enter_context(marway_up(scratch / "home"))
        TINY.publish(up.ready["registry"], up.ready["admin"])
        features = args.features.split(",") if args.features else FEATURES
        kinds = {EVERYTHING: "nothing", CONTROL: "nothing", **{each: each for each in features}}
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
    result = {
        "rounds": args.rounds,
        "clients": args.clients,
        "micros": {each.without: each.micros for each in gateways},
    }
    print(markdown(result))
    write(args, "features", result)
    return 0


@contextlib.contextmanager
def gateway(label: str, kind: str, up: MarwayUp, directory: Path, tokens: Path) -> Iterator[Gateway]:
    """Run a gateway that lacks one feature, before the pods of a running system."""
    directory.mkdir()
    port, admin, grpc = free_ports(3)
    pods = ",".join(f"{pod['name']}={pod['url']}" for pod in up.ready["pods"])
    command = [sys.executable, str(Path(__file__).with_name("gateway_without.py")), kind]
    command += ["--registry", up.ready["registry"], "--pods", pods, "--port", str(port)]
    command += ["--admin-port", str(admin), "--grpc-port", str(grpc)]
    environment = {**os.environ, "MARWAY_GATEWAY_PREDICT_TOKENS_FILE": str(tokens), "MARWAY_GATEWAY_LAME_DUCK_S": "0"}
    environment |= {"MARWAY_GATEWAY_DUTIES": "false", "MARWAY_GATEWAY_OBSERVATIONS_FLUSH_S": str(_FLUSH_S)}
    observations = directory / "observations"
    environment["MARWAY_GATEWAY_OBSERVATIONS"] = observations.as_uri()
    log, url = directory / "log", f"http://127.0.0.1:{port}"
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + _START_S
            while not ready(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"no gateway without {label}: {log.read_text()[-2000:]}")
                time.sleep(0.1)  # it says so in its log, in no other way
            yield Gateway(label, url, psutil.Process(process.pid), log, observations)
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
    time.sleep(_SETTLE_S)
    idle = idle_part(gateways)
    order = random.Random(7)
    for _ in range(rounds):
        settling: list[Asked] = []
        for each in order.sample(gateways, len(gateways)):
            before = cpu_seconds([each.process])
            load = generator.load(each.url + PATH, clients=clients, seconds=seconds)
            settling.append(Asked(each, before, load.requests, time.monotonic()))
            while time.monotonic() - settling[0].ended >= _SETTLE_S:
                settling.pop(0).settle(idle)
                if not settling:
                    break
        for asked in settling:
            time.sleep(max(0.0, asked.ended + _SETTLE_S - time.monotonic()))
            asked.settle(idle)


def idle_part(gateways: list[Gateway]) -> float:
    before = [cpu_seconds([each.process]) for each in gateways]
    time.sleep(_IDLE_S)
    spent = [cpu_seconds([each.process]) - was for each, was in zip(gateways, before, strict=True)]
    return statistics.median(spent) / _IDLE_S


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
        METADATA: "x-prediction-id" in answer.headers
        and "marway_gateway_observations_written_total 0.0" not in metrics,
    }
    for feature, there in found.items():
        if there != (feature != each.without):
            raise AssertionError(f"the gateway without {each.without}: {feature} is {'on' if there else 'off'}")
    if "marway_gateway_observations_dropped_total{" in metrics:
        raise AssertionError(f"the gateway without {each.without} gave up observations, so that they cost less")
    files = [pq.read_table(path, columns=["bodies"]) for path in each.observations.rglob("*.parquet")]
    found_bodies = {bodies for table in files for bodies in table.column("bodies").to_pylist()}
    wanted = {BODIES: {"kept"}, METADATA: set()}.get(each.without, {"off"})
    if found_bodies - {"failed"} != wanted:  # wrk leaves with requests under way
        raise AssertionError(f"the gateway of {each.without} kept observations with bodies {found_bodies}")


def costs(result: dict[str, Any]) -> dict[str, list[float]]:
    """Return what each feature costs in microseconds a request, round by round.

    That of kept bodies is what it costs to observe at all and to keep them.
    """
    micros: dict[str, list[float]] = result["micros"]
    pairs = {name: (micros[EVERYTHING], values) for name, values in micros.items() if name != EVERYTHING}
    if BODIES in pairs:
        pairs[BODIES] = (micros[BODIES], micros.get(METADATA, micros[EVERYTHING]))
    return {name: [on - off for on, off in zip(*pair, strict=True)] for name, pair in pairs.items()}


def markdown(result: dict[str, Any]) -> str:
    """Return the table of costs."""
    whole = statistics.median(result["micros"][EVERYTHING])
    said = f"{whole:.0f} µs of the gateway's processor time a request"
    lines = [f"Everything on: {said} ({result['clients']} clients, {result['rounds']} rounds).", ""]
    table = Table("feature", "µs a request", "share of the gateway", "goal")
    for name, values in costs(result).items():
        share = statistics.median(values) / whole
        goal = GOALS.get(name, GOAL)
        verdict = "" if name == CONTROL else f"≤ {goal:.0%} {'met' if share <= goal else '**missed**'}"
        table.add(name, spread(values, 1), f"{share:.1%}", verdict)
    return "\n".join([*lines, *table.lines(), ""])


if __name__ == "__main__":
    sys.exit(main())
