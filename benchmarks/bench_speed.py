"""Marway in front of TorchServe against TorchServe alone: requests a second, times, and processor time of each part.

`make bench-speed`, or `python benchmarks/bench_speed.py --rounds 5 --seconds 3`. The load comes from wrk, in a process
of its own; targets take turns in an order that changes with each round, and ratios are made within a round. Every
target has one worker; Marway has everything on: ids, metrics, access log, trace context.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from servers import Connection, below, cpu_seconds, marway_runtime, marway_up, register, stock_torchserve

HERE = Path(__file__).parent
BODY = b"0123456789abcdefghij"
RESULTS = HERE / "results" / "latest.md"
WRK = """
wrk.method = "POST"
wrk.body = "{body}"
wrk.headers["Content-Type"] = "text/plain"
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('RESULT {{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"failed":%d}}\\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass
class Target:
    """One way to the model.

    Attributes:
        url: Where it is asked.
        parts: Its processes, by what they are.
        rates, p50, p99, cpu: What was measured, by number of clients, a value a round: requests/s, milliseconds, and
            by part CPU-seconds for 1000 requests.
    """

    name: str
    url: str
    parts: Callable[[], dict[str, list[psutil.Process]]]
    rates: dict[int, list[float]] = field(default_factory=dict)
    p50: dict[int, list[float]] = field(default_factory=dict)
    p99: dict[int, list[float]] = field(default_factory=dict)
    cpu: dict[int, dict[str, list[float]]] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of load a round and target (default: %(default)s)")
    parser.add_argument("--clients", default="1,8,32,64", help="connections at once (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(HERE.parent)} as well")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: install it (Debian: apt-get install wrk)")
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as scratch, contextlib.ExitStack() as stack:
        targets = started(Path(scratch), stack)
        script = Path(scratch) / "post.lua"
        script.write_text(WRK.format(body=BODY.decode()))
        clients = [int(count) for count in args.clients.split(",")]
        measure(targets, script, args.rounds, args.seconds, clients)
    text = report(targets, args.rounds, args.seconds, clients)
    print(text)
    if args.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)
    return 0


def started(scratch: Path, stack: contextlib.ExitStack) -> list[Target]:
    """Start everything, and return the targets; each answers as the others do."""
    from marway_archiver import publish

    home = scratch / "home"
    up = stack.enter_context(marway_up(home))
    publish(
        model_name="tiny",
        version="1.0",
        handler=str(HERE / "models" / "tiny.py"),
        registry=up.ready["registry"],
        record={"serving": {"max_workers": 1}},
        examples=["abc", "defgh", "ijk"],
        label="PROD",
    )
    gateway = f"{up.ready['gateway']}/predict/tiny"
    expected = answer(gateway)
    (archive,) = (home / "store").glob("*.mar")

    inference, management, store, pid = stack.enter_context(stock_torchserve(scratch / "stock"))
    register(management, store, archive, "tiny")
    tuned = stack.enter_context(marway_runtime(scratch / "tuned"))
    addresses = tuned["addresses"]
    for name, batch, delay in (("b1", 1, 0), ("b8", 8, 1)):
        register(
            addresses["management"],
            Path(tuned["model_store"]),
            archive,
            name,
            batch_size=batch,
            max_batch_delay=delay,
        )

    def parts_of(root: int) -> Callable[[], dict[str, list[psutil.Process]]]:
        return lambda: {"TorchServe and worker": below(root)}

    def parts_of_marway() -> dict[str, list[psutil.Process]]:
        found: dict[str, list[psutil.Process]] = {"gateway": [], "sidecar": [], "JVM": [], "worker": []}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if not any(str(home) in word for word in words):
                    continue
                kind = next((kind for kind in ("gateway", "sidecar") if kind in words), None)
                if kind is None:
                    kind = "JVM" if "org.pytorch.serve.ModelServer" in words else "worker"
                found[kind].append(process)
        return found

    tuned_root = psutil.Process(tuned["pid"]).ppid()
    targets = [
        Target("stock TorchServe", f"{inference}/predictions/tiny", parts_of(pid)),
        Target("tuned, batch 1", f"{addresses['inference']}/predictions/b1", parts_of(tuned_root)),
        Target("tuned, batch 8 / 1 ms", f"{addresses['inference']}/predictions/b8", parts_of(tuned_root)),
        Target("Marway", gateway, parts_of_marway),
    ]
    for target in targets:
        if answer(target.url) != expected:
            raise AssertionError(f"{target.name} answers {answer(target.url)!r}, Marway {expected!r}")
    return targets


def answer(url: str) -> bytes:
    """Return the answer to the one body that is sent."""
    parts = urlsplit(url)
    with Connection(url) as connection:
        return connection.ask("POST", parts.path, BODY)


def measure(targets: list[Target], script: Path, rounds: int, seconds: int, clients: list[int]) -> None:
    order = random.Random(7)
    for target in targets:
        load(target, script, 8, 1)  # warms up
    for _ in range(rounds):
        for count in clients:
            for target in order.sample(targets, len(targets)):
                parts = target.parts()
                before = {name: cpu_seconds(processes) for name, processes in parts.items()}
                rate, p50, p99, requests = load(target, script, count, seconds)
                target.rates.setdefault(count, []).append(rate)
                target.p50.setdefault(count, []).append(p50)
                target.p99.setdefault(count, []).append(p99)
                costs = target.cpu.setdefault(count, {})
                for name, processes in parts.items():
                    costs.setdefault(name, []).append((cpu_seconds(processes) - before[name]) / requests * 1000)


def load(target: Target, script: Path, clients: int, seconds: int) -> tuple[float, float, float, int]:
    """Load one target, every answer of which must be good; return requests/s, p50 and p99 in ms, and requests."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), target.url]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (line,) = (line for line in out.splitlines() if line.startswith("RESULT "))
    said = json.loads(line.removeprefix("RESULT "))
    if said["failed"] or not said["requests"]:
        raise AssertionError(f"{target.name}: {out}")
    return said["requests"] / said["seconds"], said["p50"], said["p99"], said["requests"]


def report(targets: list[Target], rounds: int, seconds: int, clients: list[int]) -> str:
    """Return what was measured, as Markdown."""
    (marway,) = (target for target in targets if target.name == "Marway")
    others = [target for target in targets if target is not marway]
    lines = [
        "# Speed",
        "",
        f"`python benchmarks/bench_speed.py --rounds {rounds} --seconds {seconds}`: Linear(16, 4), {len(BODY)} bytes",
        f"of text, one worker each. {os.cpu_count()} processors ({platform.machine()}) with wrk on them, Python",
        f"{platform.python_version()}, TorchServe {version('torchserve')}, torch {version('torch')}. Medians over",
        "rounds; ratios are medians of ratios within a round, with the least and the greatest.",
        "",
        "| clients | target | requests/s | p50 ms | p99 ms | CPU-s per 1000 | Marway / target |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in clients:
        for target in targets:
            costs = ", ".join(f"{name} {statistics.median(values):.3f}" for name, values in target.cpu[count].items())
            ratio = ""
            if target is not marway:
                found = ratios(marway, target, count)
                ratio = f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"
            rate, p50, p99 = (statistics.median(each[count]) for each in (target.rates, target.p50, target.p99))
            lines.append(f"| {count} | {target.name} | {rate:.0f} | {p50:.2f} | {p99:.1f} | {costs} | {ratio} |")
    lines += ["", "```", *chart(targets, clients), "```", ""]
    for count in clients:
        said = ", ".join(f"{each.name} {statistics.median(ratios(marway, each, count)):.2f}x" for each in others)
        lines.append(f"Marway at {count} clients: {said}")
    return "\n".join(lines) + "\n"


def ratios(one: Target, other: Target, clients: int) -> list[float]:
    """Return how many times the requests/s of ``other`` one target makes, round by round."""
    return [ours / theirs for ours, theirs in zip(one.rates[clients], other.rates[clients], strict=True)]


def chart(targets: list[Target], clients: Iterable[int]) -> list[str]:
    """Return bars of requests a second."""
    lines = []
    for count in clients:
        rates = {target.name: statistics.median(target.rates[count]) for target in targets}
        most = max(rates.values())
        lines.append(f"{count} clients, requests/s")
        lines += [
            f"  {name:22s} {'█' * max(1, round(rate / most * 40)):40s} {rate:7.0f}" for name, rate in rates.items()
        ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
