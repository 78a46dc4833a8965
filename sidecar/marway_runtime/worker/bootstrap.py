"""What every worker of ours does before TorchServe's worker script runs, forked or plain."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from ts.model_loader import TsModelLoader

from marway.archives.handler_failure import first_cause, handler_failure
from marway_runtime.process_tree import die_first
from marway_runtime.worker import log_records, service
from marway_runtime.worker.names import write_name

__all__ = ["RequirementsNotMet", "check_requirements", "install", "script_path"]

logger = logging.getLogger(__name__)

_MANIFEST: Final = "MAR-INF/MANIFEST.json"
_OPTION = re.compile(r"\s(--?[A-Za-z])")
_HOW = (
    "have TorchServe install them (MARWAY_RUNTIME_INSTALL_REQUIREMENTS=true), put them into the pod's image, or pack "
    "the archive without --requirements-file"
)


def install() -> None:
    """Put Marway's service and log in place, and have the worker note which model it is told to load."""
    die_first()
    log_records.install()
    service.install()
    original = TsModelLoader.load

    def load(self: Any, model_name: str, model_dir: str, handler: str, *args: Any, **kwargs: Any) -> Any:
        write_name(model_name)
        described = Path(model_dir) / _MANIFEST
        manifest = json.loads(described.read_bytes()) if described.is_file() else {}
        model = manifest.get("model") or {}
        log_records.about(str(model.get("modelName") or model_name), str(model.get("modelVersion", "")))
        try:
            check_requirements(Path(model_dir), manifest)
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

    TorchServe installs them or passes over the file, as it is set, and loads the model either way. Lines that name no
    package (options, URLs without a name, paths) cannot be checked, and are named in the log. ``model_dir``, where the
    archive is unpacked, is on this process's path.

    Raises:
        RequirementsNotMet: With each that is missing.
    """
    name = (manifest.get("model") or {}).get("requirementsFile")
    if not name:
        return
    missing = []
    for line in _lines((model_dir / name).read_text(encoding="utf-8", errors="replace")):
        text = _OPTION.split(line, maxsplit=1)[0].strip()  # behind a requirement: --hash and others
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            logger.warning("%s: %r names no package, and is not checked", name, line)
            continue
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{requirement} (not installed)")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            missing.append(f"{requirement} ({found} is installed)")
    if missing:
        raise RequirementsNotMet(f"{name} is not met here: {', '.join(missing)}: {_HOW}")


def _lines(text: str) -> Iterator[str]:
    """Yield the file's lines as pip joins them, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        stripped = re.sub(r"(^|\s)#.*", "", line).strip()
        if stripped:
            yield stripped
