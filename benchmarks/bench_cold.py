"""A cold start against TorchServe's own way: register, first worker, first answer, with the archive on disk.

Two runtimes with TorchServe run side by side and take turns; they differ in one thing. The plain one starts each worker
as TorchServe alone does: a Python of its own that runs TorchServe's own worker script, with nothing of Marway in it.
Beside them a pod with the engine `native` is asked over its sidecar for a version that is not loaded.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from documents import add_output, spread, write
from servers import marway_up, of_home

from marway_archiver import publish

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
FORKED, PLAIN, NATIVE = "forked", "TorchServe's own way", "native, over its sidecar"
_WORKER = "marway-worker"


@dataclass
class Side:
    """One server and what was measured on it: seconds and bytes.

    Attributes:
        ask: Asks it for a version that is not loaded, given a name for it; returns seconds to the first worker, seconds
            to the first answer, and bytes that the worker has for itself. Nothing of it stays loaded.
    """

    ask: Callable[[str], tuple[float, float, int]]
    started: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    private: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--load", action="store_true", help="keep every core busy meanwhile")
    add_output(parser)
    args = parser.parse_args()
    sides = cold(args.rounds, load=args.load)
    printed = report(sides, args.rounds)
    print(printed)
    write(args, "workers", {"printed": printed})
    return 0


def cold(rounds: int, *, load: bool = False) -> dict[str, Side]:
    """Start all sides, measure as many rounds, and return them; with every core kept busy if ``load`` says so."""
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        archive = pack(directory)
        sides = {}
        for label in (FORKED, PLAIN):
            sides[label] = stack.enter_context(running(directory / label.split()[0], archive, label))
        sides[NATIVE] = stack.enter_context(native(directory / "native", directory / "sum_handler.py"))
        if load:
            for _ in range(os.cpu_count() or 1):
                stack.enter_context(busy())
        for turn in range(rounds + 1):
            # The sides take turns in going first; the first round warms all up.
            order = list(sides) if turn % 2 else list(reversed(sides))
            for label in order:
                started, answered, private = sides[label].ask(f"{turn}")
                if turn:
                    sides[label].started.append(started)
                    sides[label].answered.append(answered)
                    sides[label].private.append(private)
    return sides


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
def running(home: Path, archive: Path, label: str) -> Iterator[Side]:
    """Start a runtime; for TorchServe's own way, put the plain Python where it looks for its workers' executable."""
    run = home / "run"
    command = [sys.executable, "-m", "marway", "runtime", "--home", str(home), "--runtime-dir", str(run)]
    command += ["--model-store", str(archive.parent)]
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
            yield Side(partial(torchserve, addresses["inference"], addresses["management"], archive.name))
        finally:
            runtime.terminate()
            runtime.wait(40)


@contextlib.contextmanager
def native(home: Path, handler: Path) -> Iterator[Side]:
    """Start a pod with the engine `native` that has the archive on its disk."""
    with marway_up(home, "--engine", "native") as up:
        publish(
            model_name="sum",
            version="1.0",
            handler=str(handler),
            registry=up.ready["registry"],
            label="PROD",
            gateway=up.ready["admin"],
        )
        yield Side(partial(over_sidecar, home, up.ready["pods"][0]["url"]))


@contextlib.contextmanager
def busy() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burning:
        try:
            yield
        finally:
            burning.kill()


def torchserve(inference: str, management: str, archive: str, name: str) -> tuple[float, float, int]:
    """Register a model under a new name, ask it once, look at its worker, and unregister it."""
    model = f"sum-{name}"
    query = {"url": archive, "model_name": model, "initial_workers": 1, "synchronous": "true"}
    began = time.perf_counter()
    call(f"{management}/models?{urllib.parse.urlencode(query)}", "POST")
    started = time.perf_counter() - began
    answer = call(f"{inference}/predictions/{model}", "POST", b"x")
    answered = time.perf_counter() - began
    right(answer)
    worker = json.loads(call(f"{management}/models/{model}"))[0]["workers"][0]["pid"]
    private = sum(private_bytes(process) for process in [psutil.Process(worker), *shims(worker)])
    call(f"{management}/models/{model}", "DELETE")
    psutil.wait_procs([psutil.Process(worker)] if psutil.pid_exists(worker) else [], timeout=30)
    return started, answered, private


def over_sidecar(home: Path, pod: str, _: str) -> tuple[float, float, int]:
    """Unload the model if it is loaded, and ask for it; loaded as for any caller, golden answers and all."""
    call(f"{pod}/models/sum/1.0/unload", "POST")
    began = time.perf_counter()
    answer = call(f"{pod}/predict/sum/1.0", "POST", b"x")
    answered = time.perf_counter() - began
    right(answer)
    started = json.loads(call(f"{pod}/models/sum/1.0"))["load_duration_s"]
    return started, answered, sum(private_bytes(each) for each in of_home(home) if each.name() == _WORKER)


def right(answer: bytes) -> None:
    if json.loads(answer) != 4:
        raise AssertionError(f"not the answer: {answer!r}")


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
    plain = sides[PLAIN]
    for label in (FORKED, NATIVE):
        faster, smaller = (ratio(getattr(plain, each), getattr(sides[label], each)) for each in ("answered", "private"))
        lines.append(
            f"{label}: first answer {faster:.1f} times sooner, memory {smaller:.1f} times smaller, shim included"
        )
    return "\n".join(lines)


def ratio(plain: list[float], forked: list[float]) -> float:
    return statistics.median(plain) / statistics.median(forked)


if __name__ == "__main__":
    sys.exit(main())
