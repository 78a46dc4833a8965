"""A cold start, forked against TorchServe's own way: register, first worker, first answer, with the archive on disk.

Two runtimes run side by side and take turns; they differ in one thing. The plain one starts each worker as TorchServe
alone does: a Python of its own that runs TorchServe's own worker script, with nothing of Marway in it.

`make bench-cold`, or `python benchmarks/bench_cold.py --rounds 20`.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from documents import add_output, spread, write

HANDLER = """
import torch


class Sum:
    def initialize(self, context):
        self.model = torch.nn.Linear(16, 4)

    def handle(self, data, context):
        with torch.inference_mode():
            return [self.model(torch.ones(1, 16)).shape[1] for _ in data]
"""
START_TIMEOUT_S = 120
FORKED, PLAIN = "forked", "TorchServe's own way"


@dataclass
class Side:
    """One TorchServe and what was measured on it: seconds and bytes."""

    inference: str
    management: str
    started: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    private: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--load", action="store_true", help="keep every core busy meanwhile")
    add_output(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        archive = pack(directory)
        sides = {}
        for label in (FORKED, PLAIN):
            sides[label] = stack.enter_context(running(directory / label.split()[0], archive.parent, label))
        if args.load:
            for _ in range(os.cpu_count() or 1):
                stack.enter_context(busy())
        for turn in range(args.rounds + 1):
            # The sides take turns in going first; the first round warms both up.
            order = list(sides) if turn % 2 else list(reversed(sides))
            for label in order:
                measure(sides[label], archive.name, f"{turn}", keep=turn > 0)
    printed = report(sides, args.rounds)
    print(printed)
    write(args, "workers", {"printed": printed})
    return 0


def pack(directory: Path) -> Path:
    handler = directory / "sum_handler.py"
    handler.write_text(HANDLER)
    store = directory / "store"
    store.mkdir()
    command = [sys.executable, "-m", "marway", "pack", "--model-name", "sum", "--version", "1.0"]
    command += ["--handler", str(handler), "--export-path", str(store)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return store / "sum.mar"


@contextlib.contextmanager
def running(home: Path, store: Path, label: str) -> Iterator[Side]:
    """Start a runtime; for TorchServe's own way, put the plain Python where it looks for its workers' executable."""
    run = home / "run"
    command = [sys.executable, "-m", "marway", "runtime", "--home", str(home), "--runtime-dir", str(run)]
    command += ["--model-store", str(store)]
    environment = {**os.environ, "MARWAY_RUNTIME_FORK_WORKERS": str(label == FORKED).lower()}
    home.mkdir()
    log = home / "runtime.log"
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as runtime:
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not (run / "runtime.json").exists():
                if runtime.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the runtime did not come up: {log.read_text()}")
                time.sleep(0.05)  # the file appears when it answers; nothing tells
            if label == PLAIN:
                launcher = run / "worker-python"
                launcher.write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
            addresses = json.loads((run / "runtime.json").read_text())["addresses"]
            yield Side(addresses["inference"], addresses["management"])
        finally:
            runtime.terminate()
            runtime.wait(40)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burning:
        try:
            yield
        finally:
            burning.kill()


def measure(side: Side, archive: str, name: str, *, keep: bool) -> None:
    """Register a model under a new name, ask it once, look at its worker, and unregister it."""
    model = f"sum-{name}"
    query = {"url": archive, "model_name": model, "initial_workers": 1, "synchronous": "true"}
    began = time.perf_counter()
    call(f"{side.management}/models?{urllib.parse.urlencode(query)}", "POST")
    started = time.perf_counter() - began
    answer = call(f"{side.inference}/predictions/{model}", "POST", b"x")
    answered = time.perf_counter() - began
    if json.loads(answer) != 4:
        raise AssertionError(f"not the answer: {answer!r}")
    worker = json.loads(call(f"{side.management}/models/{model}"))[0]["workers"][0]["pid"]
    private = sum(private_bytes(process) for process in [psutil.Process(worker), *shims(worker)])
    call(f"{side.management}/models/{model}", "DELETE")
    psutil.wait_procs([psutil.Process(worker)] if psutil.pid_exists(worker) else [], timeout=30)
    if keep:
        side.started.append(started)
        side.answered.append(answered)
        side.private.append(private)


def shims(worker: int) -> list[psutil.Process]:
    """Return the processes that stand for this worker to TorchServe: one when it is forked, else none."""
    return [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-2:] == ["--worker", str(worker)]]


def private_bytes(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


def call(url: str, method: str = "GET", body: bytes | None = None) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, body, method=method), timeout=120) as answer:
        return bytes(answer.read())


def report(sides: dict[str, Side], rounds: int) -> str:
    lines = [f"archive on disk, {rounds} interleaved rounds: median (smallest to largest)"]
    for label, side in sides.items():
        lines += [
            f"  {label}",
            f"    register + first worker  {spread(side.started, 3)} s",
            f"    ... + first answer       {spread(side.answered, 3)} s",
            f"    private memory           {spread([size / 2**20 for size in side.private], 1)} MiB a worker",
        ]
    forked, plain = sides[FORKED], sides[PLAIN]
    lines.append(f"cold start: {ratio(plain.answered, forked.answered):.1f} times faster")
    lines.append(f"memory:     {ratio(plain.private, forked.private):.1f} times smaller, shim included")
    return "\n".join(lines)


def ratio(plain: list[float], forked: list[float]) -> float:
    return statistics.median(plain) / statistics.median(forked)


if __name__ == "__main__":
    sys.exit(main())
