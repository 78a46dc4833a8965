"""Seldon's MLServer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.servers.environments import environment
from support.servers.process import Server

__all__ = ["MLServer", "running_mlserver"]


class MLServer(Server):
    """Its model repository is `directory/models`; what lies there when it starts is loaded."""

    health = "/v2/health/ready"

    def __init__(self, directory: Path, settings: dict[str, object]) -> None:
        super().__init__(directory)
        self._bin = environment("mlserver")
        http, grpc, metrics, _ = self.ports
        self.grpc = f"127.0.0.1:{grpc}"
        self.metrics = f"http://127.0.0.1:{metrics}/metrics"
        self.repository = directory / "models"
        self.repository.mkdir(exist_ok=True)
        ports = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
        known = {**ports, "model_repository_root": str(self.repository), **settings}
        (directory / "settings.json").write_text(json.dumps(known))

    def command(self) -> list[str]:
        return [str(self._bin / "mlserver"), "start", str(self.directory)]


@contextmanager
def running_mlserver(directory: Path, *, parallel_workers: int = 0, **settings: object) -> Iterator[MLServer]:
    """Run it for the length of a block; `directory/models` is its repository.

    Args:
        directory: An own one, below a temporary directory.
        parallel_workers: Processes for models; 0 serves them in the server's own, which is up sooner.
        settings: More of its `settings.json`.
    """
    with MLServer(directory, {"parallel_workers": parallel_workers, **settings}) as server:
        yield server
