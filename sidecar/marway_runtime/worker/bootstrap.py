"""What every worker of ours does before TorchServe's worker script runs, forked or plain."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ts.model_loader import TsModelLoader

from marway_runtime.worker import service
from marway_runtime.worker.names import write_name

__all__ = ["install", "script_path"]


def install() -> None:
    """Put Marway's service in place, and have the worker note which model it is told to load."""
    service.install()
    original = TsModelLoader.load

    def load(self: Any, model_name: str, *args: Any, **kwargs: Any) -> Any:
        write_name(model_name)
        return original(self, model_name, *args, **kwargs)

    TsModelLoader.load = load


def script_path() -> Path:
    """Return TorchServe's worker script, as TorchServe names it."""
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).resolve().with_name("model_service_worker.py")
