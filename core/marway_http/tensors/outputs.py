"""From the answers to N rows to output tensors, or to the values that they stand for."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Any, Final

from marway.errors import ModelError, clip
from marway.records import Signature, TensorSpec
from marway.wire.envelope import Answer, mime_type
from marway.wire.headers import UNEXPLAINED
from marway_http.tensors.datatypes import BYTES, DATATYPES, Datatype, Value
from marway_http.tensors.rows import is_b64
from marway_http.tensors.tensor import Tensor, common_shape, leaves_of

__all__ = ["DEFAULT_OUTPUT", "outputs_of", "values_of"]

DEFAULT_OUTPUT: Final = "output"
"""The name of the one output of a version whose signature names none."""
_MESSAGE_MAX: Final = 1000


def values_of(answers: Sequence[Answer], *, model: str, version: str) -> list[Any]:
    """Return what the handler answered to each row: JSON values, and bytes for what is neither JSON nor text.

    Raises:
        ModelError: It refused a row, or failed on it, and the message names the row; or it predicted where it was to
            explain.
    """
    values = []
    for index, answer in enumerate(answers):
        value = _value(answer)
        if answer.kind == "error" or answer.status >= 400:
            status = answer.status if 400 <= answer.status <= 599 else 500
            where = f"row {index}: " if len(answers) > 1 else ""
            raise ModelError(f"{where}{_message(value)}", status=status, model=model, version=version)
        if UNEXPLAINED in answer.headers:
            raise ModelError(
                "the model has no explanations: its handler does not look at the request's header `explain`, and "
                "predicts whatever that says",
                status=501,
                model=model,
                version=version,
            )
        values.append(value)
    return values


def outputs_of(values: Sequence[Any], signature: Signature) -> list[Tensor]:
    """Return what the handler answered to N rows as tensors of N rows."""
    specs = signature.outputs
    names = {spec.name for spec in specs}
    if names and all(isinstance(value, dict) and value.keys() == names for value in values):
        return [_tensor(spec.name, [value[spec.name] for value in values], spec) for spec in specs]
    spec = specs[0] if len(specs) == 1 else None
    return [_tensor(spec.name if spec is not None else DEFAULT_OUTPUT, values, spec)]


def _tensor(name: str, values: Sequence[Any], spec: TensorSpec | None) -> Tensor:
    wanted = DATATYPES.get(spec.datatype) if spec is not None else None
    shape = common_shape(values)
    if shape is not None:
        flat = list(leaves_of(values, len(shape)))
        if wanted is not BYTES and (datatype := _numbers(flat, wanted)) is not None:
            return Tensor(name, datatype, shape, [datatype.converted(value) for value in flat])
        if wanted is BYTES and spec is not None and len(spec.shape) == len(shape):
            elements = [_element(value) for value in flat]
            if None not in elements:
                return Tensor(name, BYTES, shape, [value for value in elements if value is not None])
    return Tensor(name, BYTES, (len(values),), [_as_bytes(value) for value in values])


def _numbers(flat: Sequence[Any], wanted: Datatype | None) -> Datatype | None:
    """Return the datatype that holds all numbers: the wanted one, else the first by content; None if they are none."""
    kinds = set(map(type, flat))
    if not kinds <= {bool, int, float}:
        return None
    if wanted is not None and all(_holds(wanted, value) for value in flat):
        return wanted
    if not flat:
        return DATATYPES["FP32"]
    if bool in kinds:
        return DATATYPES["BOOL"] if kinds == {bool} else None
    # Never one that makes other numbers of them: 0.1 is none of FP32's, 16777217 neither.
    names = ("FP32", "FP64") if float in kinds else ("INT64", "UINT64")
    return next((DATATYPES[name] for name in names if _exact(DATATYPES[name], flat)), None)


def _holds(datatype: Datatype, value: Value) -> bool:
    """Return whether a number fits, also one that is not finite: that is the model's answer, whatever JSON can say."""
    if type(value) is float and not math.isfinite(value):
        return datatype.kind is float
    return datatype.accepts(value)


def _exact(datatype: Datatype, flat: Sequence[Any]) -> bool:
    """Return whether numbers of JSON are all the datatype's, to the last digit, or not finite."""
    if not all(_holds(datatype, value) for value in flat):
        return False
    there = datatype.unpack(datatype.pack(flat), count=len(flat), where="it")
    return all(value == back or value != value for value, back in zip(flat, there, strict=True))  # NaN


def _element(value: Any) -> bytes | None:
    """Return an element of BYTES: a text, bytes, or what `{"b64": "…"}` stands for, as rows have it; else None."""
    if is_b64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except ValueError:
            return None
    return _as_bytes(value) if isinstance(value, str | bytes) else None


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


def _value(answer: Answer) -> Any:
    kind = mime_type(answer.content_type).lower()
    if answer.kind == "json" or kind == "application/json":
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            pass  # it called text JSON
    if answer.kind in ("text", "json", "error") or kind.startswith("text/"):
        try:
            return answer.body.decode()
        except UnicodeDecodeError:
            pass
    return answer.body


def _message(value: Any) -> str:
    """Return what a handler said of a row that it refused, in its own words where it used the usual form."""
    if isinstance(value, dict) and isinstance(value.get("error"), str):
        value = value["error"]
    text = value if isinstance(value, str) else _as_bytes(value).decode(errors="replace")
    return clip(text, _MESSAGE_MAX) or "the model refused it"
