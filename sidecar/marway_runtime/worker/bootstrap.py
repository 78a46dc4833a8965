"""What every worker of ours does before TorchServe's worker script runs, forked or plain."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any, Final

from ts.model_loader import TsModelLoader

from marway.archives.handler_failure import first_cause, handler_failure
from marway_runtime.worker import log_records, service
from marway_runtime.worker.lifeline import die_first
from marway_runtime.worker.names import write_name
from marway_runtime.worker.requirements import check_requirements

__all__ = ["install", "script_path"]

logger = logging.getLogger(__name__)

_MANIFEST: Final = "MAR-INF/MANIFEST.json"


def install() -> None:
    """Put Marway's service and log in place, and have the worker note which model it is told to load."""
    die_first()
    log_records.install()
    service.install()
    original = TsModelLoader.load

    def load(self: Any, model_name: str, model_dir: str, handler: str, *args: Any, **kwargs: Any) -> Any:
        write_name(model_name)
        manifest = _manifest(Path(model_dir))
        model = manifest.get("model") or {}
        log_records.about(str(model.get("modelName") or model_name), str(model.get("modelVersion", "")))
        try:
            check_requirements(Path(model_dir), manifest)
            return original(self, model_name, model_dir, handler, *args, **kwargs)
        except (Exception, SystemExit) as exc:
            said = handler_failure(exc, model_dir, handler)
            cause = first_cause(exc)
            logger.error("The handler cannot be loaded.", exc_info=cause, extra={log_records.REASON: said})
            if isinstance(cause, SystemExit):
                # TorchServe's worker would end without a word: a handler that parses the command line does this.
                cause = RuntimeError(said)
            with contextlib.suppress(AttributeError):
                setattr(cause, log_records.LOGGED, True)
            raise cause from None

    TsModelLoader.load = load


def _manifest(model_dir: Path) -> dict[str, Any]:
    path = model_dir / _MANIFEST
    manifest: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    return manifest


def script_path() -> Path:
    """Return TorchServe's worker script, as TorchServe names it."""
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).resolve().with_name("model_service_worker.py")
