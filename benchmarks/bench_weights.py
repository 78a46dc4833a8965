"""A further worker of a large model, forked from the weights that are there, against one that loads them itself.

One runtime with the engine `native` serves the same archive twice: with golden answers, so that its workers share their
weights, and without. In turns each gets a second worker, is left without workers, and gets one again: the first of them
is parked meanwhile. Times are those of the sidecar's side of the runtime's socket, from the wish for a worker until it
is connected and, for the come-back, until it has answered. Memory is what `GET /workers` says of the second worker once
it has answered.

`make bench-weights`, or `python benchmarks/bench_weights.py --mib 500 --rounds 10`.
"""

import argparse
import asyncio
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from documents import Table, add_output, spread, write
from servers import marway_runtime

from marway.deadline import Deadline
from marway.settings import load_settings
from marway.wire.envelope import Part, Row
from marway_sidecar.backends.base import ModelServer, ServedModel
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.settings import SidecarSettings

HANDLER = """
import os
import torch


class Sums:
    def initialize(self, context):
        path = os.path.join(context.system_properties["model_dir"], "weights.pt")
        self.weights = torch.load(path, weights_only=True)

    def handle(self, data, context):
        with torch.inference_mode():
            total = sum(float((layer @ torch.ones(layer.shape[1]))[0]) for layer in self.weights.values())
        return [f"{total:.0f}" for _ in data]
"""
LAYERS = 25
SHARED, ALONE = "weights once", "each worker by itself"
_START_S = 120


@dataclass
class Side:
    """One way of starting workers, and what was measured of it: milliseconds and MiB."""

    model: ServedModel
    second: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    private: list[float] = field(default_factory=list)
    copied: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=500, help="size of the weights (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as name, running(Path(name)) as server_of:
        path = pack(Path(name) / "store", args.mib)
        sides = asyncio.run(measure(server_of, path, args.rounds))
    lines = report(sides, args.mib, args.rounds)
    print("\n".join(lines))
    write(args, "weights", {"mib": args.mib, "sides": {label: figures(side) for label, side in sides.items()}})
    return 0


def pack(store: Path, mib: int) -> Path:
    """Write an archive whose weights have so many MiB, in layers."""
    columns = 1024
    layer = torch.ones(mib * 2**20 // 4 // LAYERS // columns, columns)
    weights = io.BytesIO()
    torch.save({f"layer{number}": layer + number for number in range(LAYERS)}, weights)
    path = store / "sums.mar"
    manifest = '{"model": {"modelName": "sums", "modelVersion": "1.0", "handler": "handler.py"}}'
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("MAR-INF/MANIFEST.json", manifest)
        opened.writestr("handler.py", HANDLER)
        opened.writestr("weights.pt", weights.getvalue())
    return path


@contextlib.contextmanager
def running(home: Path) -> Iterator[SidecarSettings]:
    """Run a runtime, and yield the settings of a sidecar beside it."""
    with marway_runtime(home, MARWAY_RUNTIME_ENGINE="native"):
        yield load_settings(SidecarSettings, backend="native", runtime_dir=home / "run", archive_store=home / "store")


async def measure(settings: SidecarSettings, path: Path, rounds: int) -> dict[str, Side]:
    """Have both versions served, and measure them in turns; the first round warms both up."""
    server = open_backend(settings).connect()
    assert server is not None
    sides = {
        label: Side(ServedModel(f"mv_{golden}", "sums", "1.0", path, 1, 120.0, 60.0, max_workers=4, golden=golden))
        for label, golden in ((SHARED, True), (ALONE, False))
    }
    for side in sides.values():
        await server.load(side.model)
    for turn in range(rounds + 1):
        for label in list(sides) if turn % 2 else reversed(sides):
            await one_round(server, sides[label])
            if turn == 0:
                sides[label] = Side(sides[label].model)
    for side in sides.values():
        await server.unload(side.model)
    await server.aclose()
    return sides


async def one_round(server: ModelServer, side: Side) -> None:
    """From one worker to two, to none, and to one again."""
    model = side.model
    await ask(server, model)
    before = {worker.pid for worker in (await server.status()).workers}
    began = time.perf_counter()
    found = await server.scale(model, 2)
    side.second.append((time.perf_counter() - began) * 1000)
    assert found.ready_workers == 2, found
    await asyncio.gather(*(ask(server, model) for _ in range(4)))
    (second,) = [each for each in (await server.status()).workers if each.pid not in before]
    side.private.append(second.private_bytes / 2**20)
    side.copied.append(second.copied_bytes / 2**20)
    await server.scale(model, 0)
    began = time.perf_counter()
    await server.scale(model, 1)
    side.back.append((time.perf_counter() - began) * 1000)
    await ask(server, model)
    side.answered.append((time.perf_counter() - began) * 1000)


async def ask(server: ModelServer, model: ServedModel) -> None:
    (answer,) = await server.predict(model, [Row("r", [Part("data", b"x")])], Deadline.after(60))
    assert answer.status == 200, answer


def report(sides: dict[str, Side], mib: int, rounds: int) -> list[str]:
    lines = [f"weights of {mib} MiB, {rounds} interleaved rounds: median (smallest to largest)", ""]
    table = Table("", SHARED, ALONE)
    rows = (
        ("second worker ready, ms", "second", 0),
        ("from none to one worker, ms", "back", 0),
        ("... and its first answer, ms", "answered", 0),
        ("private memory of the second worker, MiB", "private", 1),
        ("of it copies of what it shared, MiB", "copied", 1),
    )
    for title, name, digits in rows:
        table.add(title, *(spread(getattr(side, name), digits) for side in sides.values()))
    lines += table.lines()
    lines.append(f"machine: {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    ratios = [alone / shared for alone, shared in zip(sides[ALONE].second, sides[SHARED].second, strict=True)]
    lines.append(f"a second worker is ready {statistics.median(ratios):.0f} times sooner")
    return lines


def figures(side: Side) -> dict[str, list[float]]:
    return {name: getattr(side, name) for name in ("second", "back", "answered", "private", "copied")}


if __name__ == "__main__":
    sys.exit(main())
