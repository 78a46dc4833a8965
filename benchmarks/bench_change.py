"""What a change did to speed: this checkout against another one, which has an environment of its own (`make setup`).

Both run `marway up` with the tiny model; wrk asks them in turns, over each surface, at each number of connections. A
row says what became of requests/s, of times and of processor time: medians over rounds.

`python benchmarks/bench_change.py --before ../before --rounds 5 --seconds 3`.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import wrk
from documents import add_output, write
from servers import MarwayUp, by_kind, cpu_seconds, marway_up, of_home
from workloads import TINY

TEXT = TINY.request().body.decode()
_TENSOR = {"name": "data", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
SURFACES = {
    "native": ("/predict/tiny", "text/plain", TEXT),
    "torchserve": ("/predictions/tiny", "text/plain", TEXT),
    "v1": ("/v1/models/tiny:predict", "application/json", json.dumps({"instances": [TEXT]})),
    "v2": ("/v2/models/tiny/infer", "application/json", json.dumps({"inputs": [_TENSOR]})),
}
GRPC = "v2 gRPC"


class Row(NamedTuple):
    """One round's: requests/s, milliseconds, and processor time in microseconds a request."""

    rate: float
    p50: float
    p99: float
    gateway: float
    sidecar: float
    all: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="the other checkout; without one, this one against itself")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of load a round and target (default: %(default)s)")
    parser.add_argument("--clients", default="1,8,32,64", help="connections at once (default: %(default)s)")
    parser.add_argument("--surfaces", default=",".join((*SURFACES, GRPC)), help="(default: %(default)s)")
    parser.add_argument("--engine", default="torchserve", help="of both pods (default: %(default)s)")
    parser.add_argument("--grpc-load", nargs=3, help=argparse.SUPPRESS)
    add_output(parser)
    args = parser.parse_args()
    if args.grpc_load:
        address, clients, seconds = args.grpc_load
        print(json.dumps(asyncio.run(_ask_grpc(address, int(clients), float(seconds)))))
        return 0
    engine = ("--engine", args.engine)
    python = args.before.absolute() / ".venv/bin/python" if args.before else Path(sys.executable)
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as name, contextlib.ExitStack() as stack:
        scratch = Path(name)
        sides = {
            "before": stack.enter_context(marway_up(scratch / "before", *engine, python=str(python))),
            "after": stack.enter_context(marway_up(scratch / "after", *engine)),
        }
        for up in sides.values():
            TINY.publish(up.ready["registry"], up.ready["admin"])
        clients = [int(each) for each in args.clients.split(",")]
        result = {}
        for surface in args.surfaces.split(","):
            for count in clients:
                rows = measure(sides, surface, count, args.rounds, args.seconds, scratch)
                result[f"{surface}, {count}"] = rows
                print(line(surface, count, rows), flush=True)
    write(args, "change", result)
    return 0


def measure(
    sides: dict[str, MarwayUp], surface: str, clients: int, rounds: int, seconds: int, scratch: Path
) -> dict[str, list[Row]]:
    loads = {
        name: _load_of(up, surface, clients, scratch / f"{name}-{surface}-{clients}") for name, up in sides.items()
    }
    for load in loads.values():
        load(1)
    rows: dict[str, list[Row]] = {name: [] for name in sides}
    order = random.Random(7)
    for _ in range(rounds):
        for name in order.sample(list(sides), len(sides)):
            kinds = by_kind(of_home(sides[name].home))
            before = {kind: cpu_seconds(processes) for kind, processes in kinds.items()}
            rate, p50, p99, requests = loads[name](seconds)
            micros = {kind: (cpu_seconds(kinds[kind]) - before[kind]) / requests * 1e6 for kind in kinds}
            rows[name].append(Row(rate, p50, p99, micros["gateway"], micros["sidecar"], sum(micros.values())))
    return rows


def line(surface: str, clients: int, rows: dict[str, list[Row]]) -> str:
    def ratio(field: str) -> float:
        pairs = zip(rows["after"], rows["before"], strict=True)
        return statistics.median(getattr(after, field) / max(getattr(before, field), 1e-9) for after, before in pairs)

    def middle(side: str, field: str) -> float:
        return statistics.median(getattr(row, field) for row in rows[side])

    processor = "  ".join(
        f"{field} {middle('before', field):.0f} → {middle('after', field):.0f} µs"
        for field in ("gateway", "sidecar", "all")
    )
    return (
        f"{surface:10s} {clients:3d} clients: {ratio('rate'):.2f}x requests/s ({middle('after', 'rate'):.0f}), "
        f"p50 {ratio('p50'):.2f}x, p99 {ratio('p99'):.2f}x; processor time a request: {processor}"
    )


def _load_of(up: MarwayUp, surface: str, clients: int, scratch: Path):  # type: ignore[no-untyped-def]
    if surface == GRPC:
        command = [sys.executable, __file__, "--grpc-load", up.ready["grpc"], str(clients)]

        def load_grpc(seconds: int) -> tuple[float, float, float, float]:
            out = subprocess.run([*command, str(seconds)], check=True, capture_output=True, text=True).stdout
            rate, p50, p99, requests = json.loads(out)
            return rate, p50, p99, requests

        return load_grpc
    path, content_type, body = SURFACES[surface]
    generator = wrk.Generator(scratch, wrk.Request(body.encode(), content_type), b"")

    def load(seconds: int) -> tuple[float, float, float, float]:
        found = generator.load(up.ready["gateway"] + path, clients=clients, seconds=seconds)
        return found.rate, found.p50, found.p99, found.requests

    return load


async def _ask_grpc(address: str, clients: int, seconds: float) -> tuple[float, float, float, int]:
    import grpc

    from marway_http.proto import open_inference_pb2 as pb
    from marway_http.proto.open_inference_pb2_grpc import GRPCInferenceServiceStub

    tensor = pb.ModelInferRequest.InferInputTensor(name="data", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(TEXT.encode())
    request = pb.ModelInferRequest(model_name="tiny", inputs=[tensor])
    times: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        await infer(request, timeout=60)
        end = time.perf_counter() + seconds

        async def ask() -> None:
            while (began := time.perf_counter()) < end:
                await infer(request, timeout=60)
                times.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(clients)))
        took = time.perf_counter() - began
    times.sort()
    return len(times) / took, times[len(times) // 2] * 1e3, times[int(len(times) * 0.99)] * 1e3, len(times)


if __name__ == "__main__":
    sys.exit(main())
