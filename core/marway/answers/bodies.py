"""What is in a body: the rows of a request or an answer, whatever protocol it travelled by."""

from __future__ import annotations

import email
import email.policy
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from marway.features.pictures import is_picture
from marway.features.walking import number_or_text
from marway.wire.envelope import FORMS, mime_type

__all__ = ["document_rows", "parts_of"]

_FIELDS_MAX: Final = 1000
_UNNAMED: Final = ("body", "data")
"""Names of a form's one field under which TorchServe's clients send a whole body."""


def parts_of(body: bytes, content_type: str | None) -> list[Any] | None:
    """Return the rows that a body holds, each a JSON value, a text or a picture's bytes; None where it cannot be read.

    Requests and answers of the v1 and v2 protocols are taken apart: `instances` and `predictions` into theirs, tensors
    into one object a row, with a field for each tensor.
    """
    kind = mime_type(content_type).lower()
    try:
        if kind == "application/json" or kind.endswith("+json"):
            return document_rows(json.loads(body))
        if kind == "application/x-protobuf":
            return None  # a message that the gateway could not make plain
        if is_picture(body):
            return [body]
        if kind in FORMS:
            fields = _form(body, content_type or "")
            return [fields] if fields is not None else [body.decode()]
        return [body.decode()]
    except (ValueError, RecursionError):
        return None


def document_rows(document: Any) -> list[Any]:
    """Return the rows that a JSON document holds: itself, where it is no request or answer of v1 or v2."""
    if not isinstance(document, dict):
        return [document]
    for name in ("instances", "predictions"):
        rows = document.get(name)
        if isinstance(rows, list) and rows:
            return rows
    for name in ("inputs", "outputs"):
        tensors = document.get(name)
        if isinstance(tensors, list) and tensors and all(_is_tensor(each) for each in tensors):
            return _rows_of_tensors(tensors)
    return [document]


def _is_tensor(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("shape"), list)
        and all(isinstance(each, int) and each >= 0 for each in value["shape"])
        and isinstance(value.get("data"), list)
    )


def _rows_of_tensors(tensors: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return an object a row where all tensors have as many rows, else one for all."""
    flat = {each["name"]: _flat(each["data"]) for each in tensors}
    shapes = {each["name"]: tuple(each["shape"]) for each in tensors}
    counts = {shape[0] if shape else 0 for shape in shapes.values()}
    whole = all(len(flat[name]) == math.prod(shape) for name, shape in shapes.items())
    if len(counts) != 1 or not whole or not (count := counts.pop()):
        return [flat]
    rows: list[Any] = []
    for row in range(count):
        fields = {}
        for name, values in flat.items():
            width = len(values) // count
            part = values[row * width : (row + 1) * width]
            fields[name] = part[0] if width == 1 else part
        rows.append(fields)
    return rows


def _flat(values: list[Any]) -> list[Any]:
    while values and all(isinstance(each, list) for each in values):
        values = [inner for each in values for inner in each]
    return values


def _form(body: bytes, content_type: str) -> Any:
    """Return a form's fields, or its one unnamed field; None for text that a client called a form."""
    if mime_type(content_type).lower() == "multipart/form-data":
        head = b"content-type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n"
        message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
        if not message.is_multipart():
            raise ValueError("no multipart body")
        fields: dict[str, Any] = {}
        for part in message.iter_parts():
            data = part.get_payload(decode=True)
            assert isinstance(data, bytes)
            fields[str(part.get_param("name", "data", "content-disposition"))] = _value(data, part.get_content_type())
    else:
        text = body.decode()
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_FIELDS_MAX) if "=" in text else []
        if not pairs or "\n" in text or any(" " in name for name, _ in pairs):
            return None
        fields = {name: number_or_text(value) for name, value in pairs}
    return next(iter(fields.values())) if len(fields) == 1 and next(iter(fields)) in _UNNAMED else fields


def _value(data: bytes, content_type: str) -> Any:
    if is_picture(data):
        return data
    text = data.decode()
    return json.loads(text) if content_type == "application/json" else number_or_text(text)
