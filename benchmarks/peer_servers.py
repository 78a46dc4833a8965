"""The other Python model servers, and how each serves the tiny model in its own natural protocol."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers import free_ports
from workloads import TINY

PEERS = Path(__file__).parent / "peers"
ROWS = 32
TEXT = TINY.request().body.decode()


@dataclass(frozen=True)
class Peer:
    """One way to serve the model.

    Attributes:
        package: Its requirements file, and the name of its environment.
        command: Its command, given its environment's `bin`, a free port and a scratch directory.
        path, body: What is asked.
        answer: Returns the four numbers of an answer.
        environment: Variables for it.
    """

    package: str
    command: Callable[[Path, int, Path], list[str]]
    path: str
    body: Any
    answer: Callable[[Any], list[float]]
    environment: dict[str, str] = field(default_factory=dict)


def _mlserver(rows: int) -> Callable[[Path, int, Path], list[str]]:
    def command(bin_: Path, port: int, scratch: Path) -> list[str]:
        grpc, metrics = free_ports(2)
        settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics}
        # Without a process of its own the model answers sooner.
        (scratch / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0}))
        batches = {"max_batch_size": rows, "max_batch_time": 0.001} if rows > 1 else {}
        model = {"name": "tiny", "implementation": "mlserver_model.Served", **batches}
        (scratch / "model-settings.json").write_text(json.dumps(model))
        return [str(bin_ / "mlserver"), "start", str(scratch)]

    return command


def _bentoml(bin_: Path, port: int, _: Path) -> list[str]:
    serve = [str(bin_ / "bentoml"), "serve", "bentoml_service:Served", "--working-dir", str(PEERS)]
    return [*serve, "--host", "127.0.0.1", "--port", str(port)]


def _litserve(*rows: str) -> Callable[[Path, int, Path], list[str]]:
    return lambda bin_, port, _: [str(bin_ / "python"), str(PEERS / "litserve_server.py"), str(port), *rows]


_V2 = {"id": "1", "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}]}
PEERS_BY_NAME = {
    "KServe SDK": Peer(
        "kserve",
        lambda bin_, port, _: [str(bin_ / "python"), str(PEERS / "kserve_server.py"), str(port)],
        "/v1/models/tiny:predict",
        {"instances": [TEXT]},
        lambda said: said["predictions"][0],
    ),
    "MLServer": Peer("mlserver", _mlserver(1), "/v2/models/tiny/infer", _V2, lambda said: said["outputs"][0]["data"]),
    "MLServer, batches": Peer(
        "mlserver", _mlserver(ROWS), "/v2/models/tiny/infer", _V2, lambda said: said["outputs"][0]["data"]
    ),
    "LitServe": Peer("litserve", _litserve(), "/predict", {"input": TEXT}, lambda said: said["output"]),
    "LitServe, batches": Peer(
        "litserve", _litserve(str(ROWS)), "/predict", {"input": TEXT}, lambda said: said["output"]
    ),
    "BentoML": Peer("bentoml", _bentoml, "/predict", {"text": TEXT}, lambda said: said),
    "BentoML, batches": Peer(
        "bentoml", _bentoml, "/predict", {"text": [TEXT]}, lambda said: said[0], {"TINY_ROWS": str(ROWS)}
    ),
}
