"""Whether what an archive's requirements file asks for is installed where its worker runs."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

__all__ = ["RequirementsNotMet", "check_requirements"]

logger = logging.getLogger(__name__)

_OPTION = re.compile(r"\s(--?[A-Za-z])")
_HOW = (
    "have TorchServe install them (MARWAY_RUNTIME_INSTALL_REQUIREMENTS=true), put them into the pod's image, or pack "
    "the archive without --requirements-file"
)


class RequirementsNotMet(RuntimeError):
    """A model's own requirements are not installed."""


def check_requirements(model_dir: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a model whose requirements are neither installed in this Python nor in its own directory.

    TorchServe installs them or passes over the file, as it is set, and loads the model either way. Lines that name no
    package (options, URLs without a name, paths) cannot be checked, and are named in the log.

    Args:
        model_dir: Where the archive is unpacked; it is on this process's path.
        manifest: The archive's manifest.

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
