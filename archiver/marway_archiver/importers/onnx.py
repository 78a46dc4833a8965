"""ONNX models: a `.onnx` file, with files of external data beside it."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path
from typing import Any, Final

from marway.errors import InvalidArchive, clip
from marway.records import Signature, TensorSpec
from marway_archiver.importers.imported import Imported, only_file, pinned

__all__ = ["import_onnx"]

_LOCATION: Final = re.compile(rb"\x0a\x08location\x12")
"""What stands before the name of a file with weights: an entry (StringStringEntryProto) of the key `location`."""
_TYPES: Final = {
    "bool": "BOOL", "float16": "FP16", "float": "FP32", "double": "FP64", "string": "BYTES",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def import_onnx(source: Path) -> Imported:
    """Read an ONNX model with onnxruntime, which serves it too.

    Raises:
        InvalidArchive: There is none, onnxruntime is not installed or cannot run it, or no row can be put into it.
    """
    model = only_file(source, (".onnx",), "ONNX model")
    runtime = pinned("onnxruntime", "an ONNX model")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is only looked at
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # its errors have no common kind but this
        raise InvalidArchive(f"{model} cannot be run by onnxruntime: {clip(' '.join(str(exc).split()), 300)}") from exc
    inputs, outputs = session.get_inputs(), session.get_outputs()
    for each in inputs:
        if not each.shape:
            raise InvalidArchive(f"{model}: the input {each.name} has no batch dimension: export the model with one")
        if isinstance(each.shape[0], int) and each.shape[0] != 1:
            raise InvalidArchive(
                f"{model}: the input {each.name} takes exactly {each.shape[0]} rows: export the model with a dynamic "
                "first dimension, such as torch.onnx.export(…, dynamic_axes={'" + each.name + "': {0: 'batch'}})"
            )
        if _datatype(each) is None:
            raise InvalidArchive(f"{model}: the input {each.name} is a {each.type}, which no request can carry")
    warnings = []
    if any(each.shape[0] == 1 for each in inputs):
        warnings.append("the model takes one row in a call (its first dimension is fixed to 1): rows run one by one")
    return Imported(
        handler="onnx_model",
        framework=("onnxruntime", runtime.partition("==")[2]),
        serialized_file=model,
        extra_files=_external(model),
        requirements=(runtime,),
        signature=Signature(inputs=_specs(inputs), outputs=_specs(outputs)),
        warnings=tuple(warnings),
    )


def _specs(values: Any) -> tuple[TensorSpec, ...]:
    found = [(each, _datatype(each)) for each in values]
    return tuple(
        TensorSpec(name=each.name, datatype=kind, shape=(-1, *map(_side, each.shape[1:])))
        for each, kind in found
        if kind is not None  # a sequence of mappings, as classifiers of scikit-learn are converted to, is no tensor
    )


def _datatype(value: Any) -> str | None:
    return _TYPES.get(value.type.removeprefix("tensor(").removesuffix(")"))


def _side(side: Any) -> int:
    return side if isinstance(side, int) and side >= 0 else -1


def _external(model: Path) -> tuple[Path, ...]:
    """Return the files beside a model that hold weights of it (ONNX's external data).

    Raises:
        InvalidArchive: One lies elsewhere, or is not there.
    """
    if not model.stat().st_size:
        return ()
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names = sorted({os.fsdecode(_text_at(content, at.end())) for at in _LOCATION.finditer(content)})
    for name in names:
        if Path(name).name != name:
            raise InvalidArchive(f"{model} has weights in {name}: save it with its external data in its own directory")
        if not (model.parent / name).is_file():
            raise InvalidArchive(f"{model} has weights in {name}, which is not beside it: copy it there")
    return tuple(model.parent / name for name in names)


def _text_at(content: mmap.mmap, at: int) -> bytes:
    """Return the text of a protobuf field whose length (a varint) begins at a place."""
    length = shift = 0
    while True:
        byte = content[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80 or shift > 28:
            return content[at : at + length]
