"""What every worker of ours does before TorchServe's worker script runs, forked or plain."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, Final

from ts.model_loader import TsModelLoader

from marway_runtime.worker import service
from marway_runtime.worker.lifeline import die_first
from marway_runtime.worker.names import write_name
from marway_runtime.worker.requirements import check_requirements

__all__ = ["install", "script_path"]

_MANIFEST: Final = "MAR-INF/MANIFEST.json"


def install() -> None:
    """Put Marway's service in place, and have the worker note which model it is told to load."""
    die_first()
    service.install()
    original = TsModelLoader.load

    def load(self: Any, model_name: str, model_dir: str, *args: Any, **kwargs: Any) -> Any:
        write_name(model_name)
        manifest = Path(model_dir) / _MANIFEST
        if manifest.is_file():
            check_requirements(Path(model_dir), json.loads(manifest.read_bytes()))
        try:
            return original(self, model_name, model_dir, *args, **kwargs)
        except SystemExit as exc:
            # TorchServe's worker would end without a word: a handler that parses the command line does this.
            how = f"with status {exc.code}" if isinstance(exc.code, int) else f"saying: {exc.code}"
            raise RuntimeError(f"the handler ended its process while it was loaded, {how}") from exc

    TsModelLoader.load = load


def script_path() -> Path:
    """Return TorchServe's worker script, as TorchServe names it."""
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).resolve().with_name("model_service_worker.py")
