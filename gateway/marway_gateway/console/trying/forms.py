"""What a try-it form offers: made of a version's signature and golden examples."""

from __future__ import annotations

import json
from math import prod
from typing import Any, Final, Literal

from marway.answers.golden import is_json, mime_type
from marway.records import TensorSpec, VersionRecord
from marway.stored import Frozen
from marway_gateway.admin.versions.views import ExamplesView, ExampleView

__all__ = ["FormExample", "TensorField", "TryForm", "form_of"]

Way = Literal["text", "json", "file", "tensors"]
"""How the input is given."""

_FILLED_MAX: Final = 1024
"""Most numbers that a field is filled with beforehand."""
_ZEROS: Final = {"BOOL": False, "BYTES": "text"}


class FormExample(Frozen):
    """A golden example to fill in: as text where it is one, else as a file that is fetched when it is chosen."""

    number: int
    way: Way
    content_type: str | None
    text: str | None
    size_bytes: int


class TensorField(Frozen):
    """A tensor of the signature, and what its field holds at first."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    filled: str


class TryForm(Frozen):
    """A form.

    Attributes:
        way: Which way is chosen at first.
        ways: Those that there are.
        content_type: Of a file, at first; None means that the file's own name says it.
        streams: Whether the version answers in pieces.
    """

    way: Way
    ways: tuple[Way, ...]
    content_type: str | None
    text: str
    json_text: str
    examples: tuple[FormExample, ...]
    tensors: tuple[TensorField, ...]
    streams: bool


def form_of(record: VersionRecord, examples: ExamplesView | None, *, streams: bool) -> TryForm:
    """Return the form of a version.

    Args:
        record: Has its signature.
        examples: Its golden examples; None where they cannot be read.
        streams: Whether it answers in pieces.
    """
    offered = tuple(_example(each) for each in (examples.examples if examples is not None else ()))
    tensors = tuple(_field(each) for each in record.signature.inputs)
    first = offered[0] if offered else None
    way: Way = first.way if first is not None else "tensors" if tensors else "text"

    def filled(wanted: Way, otherwise: str) -> str:
        return next((each.text for each in offered if each.way == wanted and each.text is not None), otherwise)

    return TryForm(
        way=way,
        ways=("text", "json", "file", *(("tensors",) if tensors else ())),
        content_type=first.content_type if first is not None and first.way == "file" else None,
        text=filled("text", ""),
        json_text=filled("json", "{}"),
        examples=offered,
        tensors=tensors,
        streams=streams,
    )


def _example(example: ExampleView) -> FormExample:
    given, text = example.content_type, example.text
    if text is not None and is_json(given):
        return _offered(example, "json", _indented(text))
    if text is not None and (given is None or mime_type(given).lower().startswith("text/")):
        return _offered(example, "text", text)
    return _offered(example, "file", None)


def _offered(example: ExampleView, way: Way, text: str | None) -> FormExample:
    return FormExample(
        number=example.number, way=way, content_type=example.content_type, text=text, size_bytes=example.size_bytes
    )


def _indented(text: str) -> str:
    """Return JSON as people read it; as it is where that would be too long, or is none."""
    try:
        wide = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
    return wide if wide.count("\n") <= 60 else text


def _field(spec: TensorSpec) -> TensorField:
    shape = tuple(1 if each < 0 else each for each in spec.shape)
    zero: Any = _ZEROS.get(spec.datatype, 0.0 if spec.datatype.startswith(("FP", "BF")) else 0)
    filled = json.dumps(_nested(shape, zero)) if prod(shape) <= _FILLED_MAX else "[]"
    return TensorField(name=spec.name, datatype=spec.datatype, shape=spec.shape, filled=filled)


def _nested(shape: tuple[int, ...], value: Any) -> Any:
    return value if not shape else [_nested(shape[1:], value) for _ in range(shape[0])]
