"""Real servers of the Open Inference Protocol: Triton and MLServer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from support.old_servers.models import (
    MLSERVER_MODEL,
    MLSERVER_SETTINGS,
    TEXTS,
    TRITON_CONFIG,
    TRITON_MODEL,
    UPPER_CONFIG,
    UPPER_MODEL,
)
from support.old_servers.server import OldServer, write_requests
from support.servers import running_mlserver, running_triton

__all__ = ["old_mlserver", "old_triton"]


@contextmanager
def old_triton(home: Path) -> Iterator[OldServer]:
    """Run a Triton that serves its repository as most do, and beside it the one that Marway's pod is to have."""
    (home / "triton").mkdir(parents=True)
    repository = home / "triton" / "models"
    for name, config, model in (("doubler", TRITON_CONFIG, TRITON_MODEL), ("upper", UPPER_CONFIG, UPPER_MODEL)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
        (repository / name / "1" / "model.py").write_text(model)
    with ExitStack() as stack:
        old = stack.enter_context(running_triton(home / "triton", control="none"))
        new = stack.enter_context(running_triton(home / "pod"))
        lines = [
            _v2("doubler", {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.5, at, -at, 1.25]})
            for at in range(4)
        ]
        lines += [_v2("upper", {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}) for text in TEXTS]
        lines.append(_v2("doubler", {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}))
        lines.append({"path": "/v2/models/upper/versions/1/infer", "body": lines[-2]["body"]})
        environment = {
            "MARWAY_SIDECAR_OPEN_INFERENCE_URL": new.url,
            "MARWAY_SIDECAR_OPEN_INFERENCE_GRPC": new.grpc,
            "MARWAY_SIDECAR_OPEN_INFERENCE_REPOSITORY": str(new.repository),
        }
        requests = write_requests(home / "requests.jsonl", lines)
        yield OldServer(repository, old.url, requests, environment=environment)


@contextmanager
def old_mlserver(home: Path) -> Iterator[OldServer]:
    """Run an MLServer, and beside it the one that Marway's pod is to have."""
    model = home / "mlserver" / "models" / "iris"
    model.mkdir(parents=True)
    (model / "model-settings.json").write_text(json.dumps(MLSERVER_SETTINGS))
    (model / "iris.py").write_text(MLSERVER_MODEL)
    with ExitStack() as stack:
        old = stack.enter_context(running_mlserver(home / "mlserver"))
        new = stack.enter_context(running_mlserver(home / "pod", load_models_at_startup=False))
        petals = ([1.4, 0.2], [4.7, 1.4], [6.0, 2.5], [4.9, 1.5])
        lines = [_v2("iris", {"name": "petal", "shape": [1, 2], "datatype": "FP64", "data": petal}) for petal in petals]
        both = [*petals[0], *petals[2]]
        lines.append(_v2("iris", {"name": "petal", "shape": [2, 2], "datatype": "FP64", "data": both}))
        environment = {
            "MARWAY_SIDECAR_OPEN_INFERENCE_URL": new.url,
            "MARWAY_SIDECAR_OPEN_INFERENCE_GRPC": new.grpc,
            "MARWAY_SIDECAR_OPEN_INFERENCE_REPOSITORY": str(new.repository),
        }
        requests = write_requests(home / "requests.jsonl", lines)
        yield OldServer(home / "mlserver", old.url, requests, environment=environment)


def _v2(model: str, tensor: Mapping[str, Any]) -> dict[str, Any]:
    return {"path": f"/v2/models/{model}/infer", "body": {"inputs": [tensor]}}
