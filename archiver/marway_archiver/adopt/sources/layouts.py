"""Directories that a platform makes up around a model's own files, so that Triton or MLServer loads them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from marway.errors import InvalidInput
from marway_archiver.adopt.sources.files import listed

__all__ = ["IMPLEMENTATIONS", "TRITON_FILES", "model_settings", "numbered", "of_path", "staged", "triton_config"]

IMPLEMENTATIONS: Final[Mapping[str, str]] = {
    "huggingface": "mlserver_huggingface.HuggingFaceRuntime",
    "lightgbm": "mlserver_lightgbm.LightGBMModel",
    "mlflow": "mlserver_mlflow.MLflowRuntime",
    "sklearn": "mlserver_sklearn.SKLearnModel",
    "xgboost": "mlserver_xgboost.XGBoostModel",
}
"""MLServer's runtime of each format, as KServe and ModelMesh choose it."""
TRITON_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "onnx": ("model.onnx", "onnxruntime"),
    "pytorch": ("model.pt", "pytorch"),
    "tensorflow": ("model.graphdef", "tensorflow"),
    "tensorrt": ("model.plan", "tensorrt"),
}
"""What Triton calls the file of each format, and its backend; as ModelMesh's adapter lays it out."""
_TYPES: Final = {"BYTES": "TYPE_STRING"}


def model_settings(name: str, implementation: str, path: Path) -> bytes:
    """Return the `model-settings.json` that MLServer needs for the files of ``path``, a directory or one file."""
    files = listed(path, lambda each: each.is_file()) if path.is_dir() else [path]
    uri = f"./{files[0].name}" if len(files) == 1 else "./"
    settings = {"name": name, "implementation": implementation, "parameters": {"uri": uri}}
    return f"{json.dumps(settings, indent=2)}\n".encode()


def triton_config(backend: str, schema: Mapping[str, Any] | None) -> bytes:
    """Return the `config.pbtxt` for a model of one file, with the tensors of a ModelMesh schema, if there is one.

    Raises:
        InvalidInput: The schema does not say name, datatype and shape of each tensor.
    """
    lines = [f'backend: "{backend}"']
    for side in ("inputs", "outputs"):
        tensors = (schema or {}).get(side, [])
        for each in tensors if isinstance(tensors, list) else ():
            if not isinstance(each, dict) or not all(key in each for key in ("name", "datatype", "shape")):
                raise InvalidInput(f"the schema's {side} must each say name, datatype and shape")
            kind = _TYPES.get(str(each["datatype"]), f"TYPE_{each['datatype']}")
            dims = ", ".join(str(int(dim)) for dim in each["shape"])
            name = json.dumps(str(each["name"]))
            lines.append(f"{side[:-1]} [{{ name: {name} data_type: {kind} dims: [ {dims} ] }}]")
    return ("\n".join(lines) + "\n").encode()


def numbered(directory: Path) -> list[Path]:
    """Return the directories right below whose names are version numbers, by number."""
    found = listed(directory, lambda each: each.is_dir() and each.name.isascii() and each.name.isdigit())
    return sorted((each for each in found if int(each.name) > 0), key=lambda each: int(each.name))


def of_path(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the directory of a bundle, and what stays away of it: all but the file that ``path`` may be."""
    if path.is_dir():
        return path, ()
    return path.parent, tuple(sorted(each.name for each in path.parent.iterdir() if each != path))


def staged(scratch: Path, name: str, files: Mapping[str, Path]) -> Path:
    """Return a new directory that holds files and directories under other names: linked where that can be, else copied.

    Raises:
        InvalidInput: It cannot be written.
    """
    target = scratch / "staged" / name
    try:
        for place, path in files.items():
            to = target / place
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, to, symlinks=True, copy_function=_linked)
            else:
                _linked(str(path), str(to))
    except OSError as exc:
        raise InvalidInput(f"{path} cannot be laid out in {target}: {(exc.strerror or str(exc)).lower()}") from exc
    return target


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target)
    return target
