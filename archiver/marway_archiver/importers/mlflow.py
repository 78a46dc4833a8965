"""MLflow models: a directory with an `MLmodel` file, with the flavor `python_function`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

from marway.errors import InvalidArchive, clip
from marway.records import Signature, TensorSpec
from marway_archiver.importers.imported import REQUIREMENTS, Imported, file_below

__all__ = ["import_mlflow"]

_FLAVOR: Final = "python_function"
_COLUMNS: Final = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64", "string": "BYTES",
    "binary": "BYTES", "datetime": "BYTES",
}  # fmt: skip
_TENSORS: Final = {
    "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64", "str": "BYTES", "object": "BYTES",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def import_mlflow(source: Path) -> Imported:
    """Read an MLflow directory's `MLmodel`; nothing of the model is loaded.

    Raises:
        InvalidArchive: It is none, its model cannot be called by Python, or its requirements are not there.
    """
    try:
        document = yaml.safe_load(file_below(source, "MLmodel", "an MLflow model"))
        flavors = dict(document["flavors"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as exc:
        raise InvalidArchive(f"{source / 'MLmodel'} is not what MLflow writes: {clip(str(exc), 200)}") from exc
    flavor = flavors.get(_FLAVOR)
    if not isinstance(flavor, dict):
        raise InvalidArchive(
            f"{source} has no flavor {_FLAVOR}, by which Python calls a model: it has {', '.join(flavors) or 'none'}"
        )
    requirements = source / REQUIREMENTS
    if not requirements.is_file():
        raise InvalidArchive(f"{source} has no {REQUIREMENTS}, which MLflow writes: say in it what the model needs")
    framework = next((name for name in flavors if name != _FLAVOR), "mlflow")
    of_framework = flavors.get(framework)
    version = of_framework.get(f"{framework}_version") if isinstance(of_framework, dict) else None
    warnings = [
        f"an MLflow model runs what its files say when it is loaded (pickles, {flavor.get('loader_module', 'code')}): "
        "it must come from people you trust"
    ]
    signature = document.get("signature")
    if signature is None:
        warnings.append("the model has no signature: a row is taken for a list of numbers")
    return Imported(
        handler="mlflow_model",
        framework=(framework, None if version is None else str(version)),
        extra_files=(source,),
        requirements_file=requirements,
        signature=_signature(signature or {}, source),
        warnings=tuple(warnings),
    )


def _signature(signature: dict[str, Any], source: Path) -> Signature:
    try:
        return Signature(
            inputs=_specs(signature.get("inputs"), "input"), outputs=_specs(signature.get("outputs"), "output")
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as exc:
        raise InvalidArchive(f"{source / 'MLmodel'}: its signature is not what MLflow writes: {exc}") from exc


def _specs(text: str | None, unnamed: str) -> tuple[TensorSpec, ...]:
    """Return the columns or tensors of a schema in MLflow's JSON; those that no tensor can be are left out."""
    found = []
    for place, each in enumerate(json.loads(text) if text else ()):
        name = str(each.get("name") or (unnamed if place == 0 else f"{unnamed}-{place}"))
        if each.get("type") == "tensor":
            spec = each["tensor-spec"]
            datatype, shape = _TENSORS.get(str(spec["dtype"])), tuple(int(side) for side in spec["shape"])
        else:
            datatype, shape = _COLUMNS.get(str(each.get("type"))), (-1,)
        if datatype is not None:
            found.append(TensorSpec(name=name, datatype=datatype, shape=shape))
    return tuple(found)
