"""Marway's own runtime, with each of its engines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from marway.wire.runtime import read_runtime_info
from marway_archiver import publish
from support.kinds.kind import TAKES_S, Kind
from support.servers import Server

__all__ = ["NativeKind", "TorchServeKind"]

_HANDLER = """\
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep({takes_s})
    return ["{version} " + row.get("data", row.get("body")) for row in data]
"""


class Runtime(Server):
    """`marway runtime`."""

    def __init__(self, directory: Path, engine: str) -> None:
        super().__init__(directory)
        self._engine = engine
        self.repository = directory / "store"
        self.repository.mkdir(exist_ok=True)
        self.runtime_dir = directory / "run"
        self.runtime_dir.mkdir(exist_ok=True)
        self._before = ""

    def command(self) -> list[str]:
        left = read_runtime_info(self.runtime_dir)  # by one that was killed
        self._before = left.boot_id if left is not None else ""
        command = [sys.executable, "-m", "marway", "runtime", "--engine", self._engine, "--home", str(self.directory)]
        return [*command, "--runtime-dir", str(self.runtime_dir), "--model-store", str(self.repository)]

    def serves(self) -> bool:
        info = read_runtime_info(self.runtime_dir)
        return info is not None and info.boot_id != self._before


class NativeKind(Kind):
    """Of the engine `native`."""

    name = backend = "native"

    def server(self, directory: Path) -> Server:
        return Runtime(directory, self.backend)

    def publish(self, registry: str, scratch: Path, model: str, version: str) -> None:
        handler = scratch / "its_handler.py"
        handler.write_text(_HANDLER.replace("{version}", version).replace("{takes_s}", str(TAKES_S)))
        publish(model_name=model, version=version, handler=str(handler), registry=registry)

    def settings(self, server: Server) -> Mapping[str, object]:
        assert isinstance(server, Runtime)
        return {"runtime_dir": server.runtime_dir, "archive_store": server.repository}


class TorchServeKind(NativeKind):
    """Of the engine `torchserve`."""

    name = backend = "torchserve"
