"""What every worker of ours does before TorchServe's worker script runs, forked or plain."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ts.model_loader import TsModelLoader

from marway.archives.handler_failure import first_cause, handler_failure
from marway.environments.requirements import parse_requirements
from marway_runtime.process_tree import die_first
from marway_runtime.worker import log_records, service
from marway_runtime.worker.names import write_name
from marway_runtime.worker.overlay import OVERLAYS_ENV, read_manifest

__all__ = ["RequirementsNotMet", "check_requirements", "install", "script_path"]

logger = logging.getLogger(__name__)

_HOW: Final = "publish it without --no-lock, and the pod has an environment for it, or put them into the pod's image"


def install(manifest: Mapping[str, Any] | None = None) -> None:
    """Put Marway's service and log in place, and have the worker note which model it is told to load.

    Args:
        manifest: What the archive's manifest says, where it was read already.
    """
    os.environ.pop(OVERLAYS_ENV, None)
    die_first()
    log_records.install()
    service.install()
    original = TsModelLoader.load

    def load(self: Any, model_name: str, model_dir: str, handler: str, *args: Any, **kwargs: Any) -> Any:
        write_name(model_name)
        described = manifest if manifest is not None else read_manifest(model_dir)
        model = described.get("model") or {}
        log_records.about(str(model.get("modelName") or model_name), str(model.get("modelVersion", "")))
        try:
            check_requirements(Path(model_dir), described)
            return original(self, model_name, model_dir, handler, *args, **kwargs)
        except (Exception, SystemExit) as exc:
            reason = handler_failure(exc, model_dir, handler)
            cause = first_cause(exc)
            logger.error("The handler cannot be loaded.", exc_info=cause, extra={log_records.REASON: reason})
            if isinstance(cause, SystemExit):
                # TorchServe's worker would end without a word: a handler that parses the command line does this.
                cause = RuntimeError(reason)
            with contextlib.suppress(AttributeError):
                setattr(cause, log_records.LOGGED, True)
            raise cause from None

    TsModelLoader.load = load


def script_path() -> Path:
    """Return TorchServe's worker script, as TorchServe names it."""
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).resolve().with_name("model_service_worker.py")


class RequirementsNotMet(RuntimeError):
    """A model's own requirements are not installed."""


def check_requirements(model_dir: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a model whose requirements are neither installed in this Python nor in its own directory.

    TorchServe passes over the file and loads the model either way. Lines that name no
    package (options, URLs without a name, paths) cannot be checked, and are named in the log. ``model_dir``, where the
    archive is unpacked, is on this process's path.

    Raises:
        RequirementsNotMet: With each that is missing.
    """
    name = (manifest.get("model") or {}).get("requirementsFile")
    if not name:
        return
    missing = []
    found = parse_requirements((model_dir / name).read_text(encoding="utf-8", errors="replace"))
    for line in found.others:
        logger.warning("%s: %r names no package, and is not checked", name, line)
    for requirement in found.here():
        try:
            there = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{requirement} (not installed)")
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            missing.append(f"{requirement} ({there} is installed)")
    if missing:
        raise RequirementsNotMet(f"{name} is not met here: {', '.join(missing)}: {_HOW}")
