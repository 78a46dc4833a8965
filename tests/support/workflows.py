"""TorchServe's workflows for tests: a `.war` laid out as torch-workflow-archiver 0.2.15 does it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["war"]


def war(
    directory: Path,
    name: str,
    specification: Mapping[str, Any] | str,
    handler: str | None = None,
    *,
    files: Mapping[str, str] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Path:
    """Write a workflow archive and return its path.

    Args:
        directory: Where to.
        name: The workflow's.
        specification: Its models and its graph.
        handler: The source of its functions.
        files: Further files.
        manifest: The manifest's `workflow`, where it is to be another.
    """
    directory.mkdir(parents=True, exist_ok=True)
    said: dict[str, Any] = {"workflowName": name, "specFile": f"{name}.yaml"}
    if handler is not None:
        said["handler"] = f"{name}_handler.py"
    document = {"createdOn": "30/11/2026 23:03:32", "workflow": manifest or said, "archiverVersion": "0.2.15"}
    text = specification if isinstance(specification, str) else yaml.safe_dump(dict(specification), sort_keys=False)
    path = directory / f"{name}.war"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(f"{name}.yaml", text)
        for file, source in {**({} if handler is None else {f"{name}_handler.py": handler}), **(files or {})}.items():
            target.writestr(file, source)
        target.writestr("WAR-INF/MANIFEST.json", json.dumps(document, indent=2))
    return path
