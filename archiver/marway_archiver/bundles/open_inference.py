"""Directories of models as Triton and MLServer lay them out, and what their configurations say of the model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from marway.archives.entries import Entry, read_all, shown
from marway.errors import InvalidArchive, clip
from marway.records import Signature, TensorSpec
from marway_archiver.bundles.layout import Layout, folders
from marway_archiver.bundles.text_format import Message, parse_text_format

__all__ = ["CONFIG", "SETTINGS", "check_open_inference"]

CONFIG: Final = "config.pbtxt"
"""Triton's configuration of a model."""
SETTINGS: Final = "model-settings.json"
"""MLServer's."""
_MAX_BYTES: Final = 1024 * 1024
_VERSION: Final = re.compile(r"[1-9][0-9]*")
_FRAMEWORKS: Final = {
    "onnxruntime": "onnx", "openvino": "openvino", "pytorch": "pytorch", "tensorflow": "tensorflow",
    "tensorrt": "tensorrt",
}  # fmt: skip
_TRUE: Final = ("true", "True", "t", "1")
_MLSERVER_FRAMEWORKS: Final = {"mlserver_alibi_explain": "alibi", "mlserver_sklearn": "scikit-learn"}


def check_open_inference(files: Mapping[str, Entry]) -> Layout:
    """Check the directory of one model of Triton, OpenVINO Model Server or MLServer.

    Raises:
        InvalidArchive: It is none, or its configuration cannot be read.
    """
    versions = [each for each in folders(files) if _VERSION.fullmatch(each)]
    if SETTINGS in files:
        return _mlserver(files)
    if CONFIG in files:
        found = _triton(files[CONFIG])
        if not versions:
            raise InvalidArchive(
                f"it has {CONFIG} and no version directory: Triton wants the model's files in one whose name is a "
                "number, such as 1 (an ensemble wants it empty)"
            )
        return found
    if versions:
        return Layout()
    inside = [each for each in folders(files) if {f"{each}/{CONFIG}", f"{each}/{SETTINGS}"} & files.keys()]
    hint = f"; it holds the model directory {shown(inside[0])}: give that one" if inside else ""
    raise InvalidArchive(
        f"it is no model directory of an open-inference server: Triton wants {CONFIG} and version directories such as "
        f"1, OpenVINO Model Server these alone, MLServer a {SETTINGS}{hint}"
    )


def _triton(config: Entry) -> Layout:
    raw = read_all(config, _MAX_BYTES)
    try:
        message = parse_text_format(raw.decode(), config.origin)
    except UnicodeDecodeError as exc:
        raise InvalidArchive(f"{config.origin} is not UTF-8") from exc
    batched = _number(message, "max_batch_size") > 0
    policies = [each for each in message.get("model_transaction_policy", ()) if isinstance(each, Mapping)]
    server = _first(message, "backend") or _first(message, "platform").partition("_")[0]
    warnings: tuple[str, ...] = ()
    if "ensemble_scheduling" in message:
        warnings = (
            f"{config.origin}: an ensemble's steps are models by the names that Triton has for them, and it has each "
            "version of Marway's under a name of its own: steps have to be models that it has from elsewhere",
        )
    return Layout(
        signature=Signature(
            inputs=_triton_tensors(message, "input", batched=batched),
            outputs=_triton_tensors(message, "output", batched=batched),
        ),
        framework=_FRAMEWORKS.get(server),
        rows_max=max(1, _number(message, "max_batch_size")),
        streaming=any(_first(each, "decoupled") in _TRUE for each in policies),
        warnings=warnings,
    )


def _triton_tensors(message: Message, field: str, *, batched: bool) -> tuple[TensorSpec, ...]:
    found: list[TensorSpec] = []
    for each in message.get(field, ()):
        if not isinstance(each, Mapping):
            continue
        datatype = _first(each, "data_type").removeprefix("TYPE_")
        dims = [_as_number(dim) for dim in each.get("dims", ())]
        found.append(
            TensorSpec(
                name=clip(_first(each, "name"), 200),
                datatype="BYTES" if datatype == "STRING" else clip(datatype, 20),
                shape=(*((-1,) if batched else ()), *dims),
            )
        )
    return tuple(found)


def _first(message: Message, field: str) -> str:
    """Return a field's one text, or an empty one."""
    values: Sequence[Any] = message.get(field, ())
    return values[0] if values and isinstance(values[0], str) else ""


def _number(message: Message, field: str) -> int:
    return _as_number(_first(message, field) or "0")


def _as_number(value: object) -> int:
    try:
        return int(value) if isinstance(value, str) else -1
    except ValueError:
        return -1


def _mlserver(files: Mapping[str, Entry]) -> Layout:
    entry = files[SETTINGS]
    try:
        settings = json.loads(read_all(entry, _MAX_BYTES))
    except (ValueError, RecursionError) as exc:
        raise InvalidArchive(f"{entry.origin} is not JSON: {clip(str(exc), 120)}") from exc
    implementation = settings.get("implementation") if isinstance(settings, dict) else None
    if not isinstance(implementation, str) or "." not in implementation:
        raise InvalidArchive(
            f"{entry.origin} names no implementation: MLServer loads a model by its runtime's class, such as "
            '"implementation": "mlserver_sklearn.SKLearnModel"'
        )
    parameters = settings.get("parameters")
    module = implementation.partition(".")[0]
    warnings = list(_uri(entry, files, parameters.get("uri") if isinstance(parameters, dict) else None))
    if not module.startswith("mlserver") and f"{module}.py" not in files and module not in folders(files):
        what = f"{entry.origin}: {shown(implementation)} is not in the bundle"
        warnings.append(f"{what}: the server must have it installed")
    framework = _MLSERVER_FRAMEWORKS.get(module, module.removeprefix("mlserver_") if "mlserver_" in module else None)
    return Layout(
        signature=Signature(
            inputs=_mlserver_tensors(settings.get("inputs")), outputs=_mlserver_tensors(settings.get("outputs"))
        ),
        framework=framework,
        warnings=tuple(warnings),
    )


def _uri(entry: Entry, files: Mapping[str, Entry], uri: object) -> list[str]:
    """Return what may surprise of where the model is to be read from."""
    if not isinstance(uri, str):
        return []
    if "://" in uri or uri.startswith("/"):
        return [f"{entry.origin}: the model is read from {shown(uri)}, which is not in the bundle"]
    name = uri.removeprefix("./").rstrip("/")
    if name not in ("", ".") and name not in files and not any(each.startswith(f"{name}/") for each in files):
        raise InvalidArchive(f"{entry.origin} reads the model from {shown(uri)}, which is not in the directory")
    return []


def _mlserver_tensors(listed: object) -> tuple[TensorSpec, ...]:
    found: list[TensorSpec] = []
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and isinstance(each.get("name"), str) and isinstance(each.get("datatype"), str):
            shape = each.get("shape")
            dims = shape if isinstance(shape, list) and all(type(dim) is int for dim in shape) else ()
            name, datatype = clip(each["name"], 200), clip(each["datatype"], 20)
            found.append(TensorSpec(name=name, datatype=datatype, shape=tuple(dims)))
    return tuple(found)
