"""Marway before a real Triton against asking that Triton directly, and who should make batches.

One Triton with models in Python. The same model is asked under its own name directly, and through gateway and sidecar,
over REST (wrk) and over gRPC, by 1 and by 32 clients; rounds are interleaved and ratios made within a round. Then the
same requests of one row each to a model that gains by batches: without batches, with Triton's dynamic batching, with
the pod's stacking of what waits, and with both; beside them, rows that come stacked from their callers, 8 in a request.

    python benchmarks/bench_open_inference.py --rounds 5 --seconds 3
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import open_inference_tables
import report
from documents import add_output, write
from servers import MarwayUp, marway_up
from wrk import Generator, Load, Request

from marway_archiver import publish_bundle
from marway_http.proto import open_inference_pb2 as pb
from support.servers import Server, running_triton
from support.triton_models import MODELS, write_model

RESULTS = Path(__file__).parent / "results"
CLIENTS = (1, 32)
_BATCHED = """
    def initialize(self, args):
        random = np.random.default_rng(7)
        self.weights = random.standard_normal((3, 256, 256), np.float32) / 16

    def execute(self, requests):
        x = np.concatenate([tensor(request, "x") for request in requests])
        for weights in self.weights:
            x = np.tanh(x @ weights)
        rows = np.split(x, np.cumsum([len(tensor(request, "x")) for request in requests])[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("x", each)]) for each in rows]
"""
_SIDES = 'max_batch_size: 32\ninput [ { name: "x" data_type: TYPE_FP32 dims: [ 256 ] } ]\n' + (
    'output [ { name: "x" data_type: TYPE_FP32 dims: [ 256 ] } ]\n'
)
SERVED = {
    "same-fp32": MODELS["same-fp32"],
    "same-uint8": MODELS["same-uint8"],
    "single": (_SIDES, _BATCHED),
    "dynamic": (_SIDES + "dynamic_batching { }\n", _BATCHED),
}


@dataclass(frozen=True)
class Asked:
    """One request: its model, and its tensor."""

    model: str
    datatype: str
    values: np.ndarray

    def rest(self) -> tuple[bytes, int]:
        """Return its REST form, binary both ways, and the length of its JSON."""
        data = self.values.tobytes()
        described = {"name": "x", "datatype": self.datatype, "shape": list(self.values.shape)}
        document = {
            "inputs": [{**described, "parameters": {"binary_data_size": len(data)}}],
            "parameters": {"binary_data_output": True},
        }
        text = json.dumps(document).encode()
        return text + data, len(text)

    def message(self) -> bytes:
        """Return its gRPC form."""
        made = pb.ModelInferRequest(model_name=self.model, raw_input_contents=[self.values.tobytes()])
        made.inputs.add(name="x", datatype=self.datatype, shape=self.values.shape)
        return made.SerializeToString()


SMALL = Asked("same-fp32", "FP32", np.ones((1, 4), np.float32))
PICTURE = Asked("same-uint8", "UINT8", np.ones((1, 150_528), np.uint8))


def row(model: str, rows: int = 1) -> Asked:
    return Asked(model, "FP32", np.ones((rows, 256), np.float32))


@dataclass
class Bench:
    """What loads the two targets."""

    scratch: Path
    triton: Server
    up: MarwayUp

    def load(self, asked: Asked, over: str, target: str, clients: int, seconds: int) -> Load:
        """Load one target with one request."""
        directory = self.scratch / f"{asked.model}-{len(asked.values)}"
        if over == "gRPC":
            directory.mkdir(exist_ok=True)
            (directory / "message").write_bytes(asked.message())
            address = self.triton.grpc if target == "Triton" else self.up.ready["grpc"]
            command = [sys.executable, str(Path(__file__).with_name("grpc_load.py")), address]
            command += [str(directory / "message"), str(clients), str(seconds)]
            said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            return Load(said["rate"], said["p50"], said["p99"], 0)
        body, length = asked.rest()
        request = Request(body, "application/octet-stream", {"Inference-Header-Content-Length": str(length)})
        base = self.triton.url if target == "Triton" else self.up.ready["gateway"]
        generator = Generator(directory, request, b"")
        return generator.load(f"{base}/v2/models/{asked.model}/infer", clients=clients, seconds=seconds)


Key = TypeVar("Key")


def rounds(count: int, targets: dict[Key, Callable[[], Load]]) -> dict[Key, list[Load]]:
    """Load targets in turn, each round in the other direction."""
    found: dict[Key, list[Load]] = {name: [] for name in targets}
    for number in range(count):
        for name in list(targets)[:: 1 if number % 2 else -1]:
            found[name].append(targets[name]())
    return found


def figures(loads: list[Load]) -> dict[str, list[float]]:
    return {"rate": [each.rate for each in loads], "p50": [each.p50 for each in loads]}


def overhead(bench: Bench, count: int, seconds: int) -> Iterator[dict[str, Any]]:
    """Yield what asking through Marway costs, by request, way and number of clients."""
    for name, asked in (("4 × FP32", SMALL), ("150,528 × UINT8", PICTURE)):
        for over in ("REST", "gRPC"):
            for clients in CLIENTS:
                targets = {
                    target: partial(bench.load, asked, over, target, clients, seconds)
                    for target in ("Triton", "Marway")
                }
                found = rounds(count, targets)
                sides = {target: figures(loads) for target, loads in found.items()}
                yield {"request": name, "over": over, "clients": clients, **sides}


def batching(bench: Bench, count: int, seconds: int) -> Iterator[dict[str, Any]]:
    """Yield how many rows come by, by who makes batches of them."""
    # Directly as which model, through Marway as which, with how many clients, of how many rows each.
    kinds = {
        "a request a row, no batches": ("single", "single-each", 32, 1),
        "a request a row, Triton's dynamic batching": ("dynamic", "dynamic-each", 32, 1),
        "a request a row, stacked by the pod": (None, "single", 32, 1),
        "a request a row, stacked by the pod, and Triton's dynamic batching": (None, "dynamic", 32, 1),
        "8 rows in a request of 4 clients": ("single", "single-each", 4, 8),
    }
    targets: dict[tuple[str, str], Callable[[], Load]] = {}
    for kind, (directly, through, clients, rows) in kinds.items():
        for target, model in (("Triton", directly), ("Marway", through)):
            if model is not None:
                asked = row(model, rows)
                targets[kind, target] = partial(bench.load, asked, "gRPC", target, clients, seconds)
    found = rounds(count, targets)
    for kind, (_, _, _, rows) in kinds.items():
        sides = {
            target: {"rows": [each.rate * rows for each in loads]}
            for (which, target), loads in found.items()
            if which == kind
        }
        yield {"how": kind, **sides}


@contextmanager
def opened() -> Iterator[Bench]:
    """Start Triton and Marway before it, with all models in both."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        for name, (config, methods) in SERVED.items():
            write_model(directory / "triton" / "models", name, config, methods)
        with running_triton(directory / "triton", arguments=[f"--load-model={name}" for name in SERVED]) as triton:
            named = {"URL": triton.url, "GRPC": triton.grpc, "REPOSITORY": str(triton.repository)}
            environment = {f"MARWAY_SIDECAR_OPEN_INFERENCE_{name}": value for name, value in named.items()}
            with marway_up(directory / "home", "--engine", "open-inference", **environment) as up:
                for name in (*SERVED, "single-each", "dynamic-each"):
                    each = {"serving": {"max_batch_rows": 1}} if name.endswith("-each") else None
                    publish_bundle(
                        model_name=name,
                        version="1.0",
                        backend="open-inference",
                        directory=triton.repository / name.removesuffix("-each"),
                        record=each,
                        registry=up.ready["registry"],
                        label="PROD",
                        force=True,
                    )
                bench = Bench(directory, triton, up)
                models = ("single", "dynamic", "single-each", "dynamic-each")
                for asked in (SMALL, PICTURE, *map(row, models)):  # load it, and warm up
                    bench.load(asked, "gRPC", "Marway", 1, 1)
                yield bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/open_inference.md as well")
    add_output(parser)
    args = parser.parse_args()
    with opened() as bench:
        result = {part.__name__: list(part(bench, args.rounds, args.seconds)) for part in (overhead, batching)}
    print(open_inference_tables.markdown(result))
    if args.write:
        args.json = RESULTS / "data" / "open_inference.json"
    write(args, "open_inference", result)
    if args.write:
        report.write(RESULTS)


if __name__ == "__main__":
    main()
