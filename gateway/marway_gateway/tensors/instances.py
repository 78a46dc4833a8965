"""Predict requests and answers of the v1 protocol: TensorFlow Serving's REST API, as KServe speaks it too.

`{"instances": [...]}` is a list of rows; `{"inputs": ...}` the same in columns. An instance goes to the handler as if
it alone were the body of a request: a string as text, `{"b64": "…"}` as the bytes, anything else as JSON. An object of
the version's named inputs, or one that has bytes among its members, goes as named parts.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from marway.errors import InvalidRequest, clip
from marway.records import Signature, VersionRecord
from marway.wire.envelope import KEY, RAW_BODY, Row
from marway_gateway.tensors.documents import json_object
from marway_gateway.tensors.rows import JSON, OCTETS, TEXT, check_row_count, row_of_parts

__all__ = ["DEFAULT_SIGNATURE", "Instances", "parse_instances", "render_predictions"]

DEFAULT_SIGNATURE: Final = "serving_default"
"""The one signature that a version has, by the name that TensorFlow gives a model's usual one."""
_B64: Final = "b64"


@dataclass(frozen=True, slots=True)
class Instances:
    """One request: its rows, and whether they came, and so go back, in columns."""

    rows: Sequence[Row]
    columnar: bool


def parse_instances(body: bytes, signature: Signature) -> Instances:
    """Return the rows that a body holds.

    Args:
        body: All of it.
        signature: What the version takes.

    Raises:
        InvalidRequest: It is no predict request.
    """
    document = json_object(body, nonfinite=True)
    name = document.get("signature_name", "")
    if name not in ("", DEFAULT_SIGNATURE):
        raise InvalidRequest(
            f"there is no signature {clip(repr(name), 60)}: a model has the one that is meant without a name"
        )
    if ("instances" in document) == ("inputs" in document):
        raise InvalidRequest(
            'the request has no rows: give {"instances": [...]}, or "inputs" for columns, and not both'
        )
    columnar = "inputs" in document
    instances = _from_columns(document["inputs"]) if columnar else document["instances"]
    if not isinstance(instances, list):
        raise InvalidRequest(f"{'inputs' if columnar else 'instances'} is no list")
    check_row_count(len(instances))
    names = {spec.name for spec in signature.inputs}
    return Instances([_row(instance, index, names) for index, instance in enumerate(instances)], columnar)


def render_predictions(values: Sequence[Any], request: Instances, record: VersionRecord) -> bytes:
    """Return the answer to a request.

    Args:
        values: What the handler answered to each row.
        request: The request.
        record: The version that answered.
    """
    told = [{_B64: base64.b64encode(value).decode()} if isinstance(value, bytes) else value for value in values]
    document: dict[str, Any] = {"predictions": told}
    if request.columnar:
        names = [spec.name for spec in record.signature.outputs]
        if names and all(isinstance(value, dict) and value.keys() == set(names) for value in told):
            columns = {name: [value[name] for value in told] for name in names}
            document = {"outputs": columns if len(names) > 1 else columns[names[0]]}
        else:
            document = {"outputs": told}
    # With `NaN` and `Infinity`, as TensorFlow Serving's REST API has it ("JSON conformance" in its document).
    return json.dumps(document).encode()


def _from_columns(columns: Any) -> Any:
    """Return the rows that columns by name hold; a list is the one column of a single input."""
    if not isinstance(columns, dict):
        return columns
    lengths = {len(column) if isinstance(column, list) else None for column in columns.values()}
    if len(lengths) != 1 or None in lengths:
        raise InvalidRequest("inputs must hold a list for each input, all of one length: the number of rows")
    (count,) = lengths
    assert count is not None
    return [{name: column[index] for name, column in columns.items()} for index in range(count)]


def _row(instance: Any, index: int, names: set[str]) -> Row:
    if isinstance(instance, dict) and not _is_b64(instance):
        if KEY in instance:
            raise InvalidRequest(f"the input name {KEY!r} is kept for Marway: choose another")
        named = bool(names) and instance.keys() == names
        if named and len(names) == 1:
            (instance,) = instance.values()
        elif named or any(_is_b64(value) for value in instance.values()):
            return row_of_parts({name: _part(value, index) for name, value in instance.items()}, named=True)
    return row_of_parts({RAW_BODY: _part(instance, index)})


def _part(value: Any, index: int) -> tuple[bytes, str]:
    if isinstance(value, list) and len(value) == 1 and _is_b64(value[0]):
        (value,) = value
    if _is_b64(value):
        try:
            return base64.b64decode(value[_B64], validate=True), OCTETS
        except (binascii.Error, ValueError):
            raise InvalidRequest(f"instance {index} has a b64 value that is no base64") from None
    if isinstance(value, str):
        try:
            return value.encode(), TEXT
        except UnicodeEncodeError:  # JSON can spell half a surrogate pair
            raise InvalidRequest(f"instance {index} is no Unicode text") from None
    return json.dumps(value, separators=(",", ":")).encode(), JSON


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {_B64} and isinstance(value[_B64], str)
