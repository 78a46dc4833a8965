"""The envelope: one TorchServe call that carries rows as a REST front end would have given them, and their answers.

TorchServe's gRPC `Predictions` knows neither content types, headers nor a status for a row. The sidecar therefore sends
one input under the reserved key `KEY`, and the worker bootstrap answers with one value of the same form. Over REST the
envelope is the body, of content type `ROWS_CONTENT_TYPE`.

Layout, both ways: magic `MWE1`, the length of a JSON header (4 bytes, big endian), the header, then the bytes of all
values, one after another, whose sizes the header gives. Standard library only: workers of TorchServe run this too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

from marway.wire.measurements import Measurement, measurements_of

__all__ = [
    "FORMS",
    "HEADER_BYTES_MAX",
    "KEY",
    "PARTS_MAX",
    "RAW_BODY",
    "ROWS_CONTENT_TYPE",
    "ROWS_MAX",
    "VERSION",
    "Answer",
    "Bytes",
    "Part",
    "Row",
    "answer_pieces",
    "answer_size",
    "decode_answers",
    "decode_rows",
    "encode_answers",
    "encode_rows",
    "mime_type",
    "read_rows",
    "row_pieces",
]

KEY: Final = "marway.envelope.v1"
"""The input name under which an envelope travels; refused when a caller uses it."""
VERSION: Final = 1
RAW_BODY: Final = "data"
"""The name of the part that is a raw body."""
FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
"""Content types of bodies that are fields by name."""
ROWS_CONTENT_TYPE: Final = "application/vnd.marway.rows"
"""Content type of an envelope as the body of a predict request to a sidecar, and of the answers to its rows."""
ROWS_MAX: Final = 1024
"""Most rows in one such request. One call of a model server takes fewer: `ServingSettings.max_batch_rows`."""
PARTS_MAX: Final = 8192
"""Most parts of all these rows together: reading the envelope's header costs by their number."""
HEADER_BYTES_MAX: Final = 2 * 1024 * 1024
"""Most bytes of the header of such a request: it is read in one go."""

Bytes = bytes | bytearray
"""A value; in a worker it is a `bytearray`, as TorchServe gives handlers."""

_MAGIC: Final = b"MWE1"
_LENGTH: Final = struct.Struct("!I")
_FIXED_BYTES: Final = len(_MAGIC) + _LENGTH.size
_to_json: Final = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` makes an encoder for each call


@dataclass(frozen=True, slots=True)
class Part:
    """One named value of a row: a raw body under `data`, or one field of a form."""

    name: str
    value: Bytes
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One request.

    Attributes:
        request_id: What the handler sees as the request's id.
        parts: Its values.
        headers: Request headers that the handler may ask for, names in lower case.
        stream: Whether its answer comes in pieces (`StreamPredictions`); such a row travels alone.
    """

    request_id: str
    parts: Sequence[Part]
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False

    @property
    def explains(self) -> bool:
        """Whether it asks the handler to explain its prediction; such a row travels alone."""
        return self.headers.get("explain") == "True"

    @property
    def is_raw(self) -> bool:
        """Whether it is a raw body, which TorchServe's REST calls `body` and its gRPC `data`, and no form."""
        if len(self.parts) != 1 or self.parts[0].name != RAW_BODY:
            return False
        declared = mime_type(self.headers.get("content-type"))
        return declared not in FORMS or mime_type(self.parts[0].content_type) == declared


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one row.

    Attributes:
        status: The HTTP status that the handler set, 200 by default; for a failed row what stands for its failure.
        body: The answer, encoded as TorchServe encodes it; for a failed row the message, as UTF-8.
        kind: What the handler returned ("json", "text", "bytes", "tensor"), or "error" for a failed row.
        content_type: What the handler set, or None.
        headers: Response headers that the handler set.
        measured: What the handler measured since the worker's last call that said so.
    """

    status: int
    body: bytes
    kind: str
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    measured: Sequence[Measurement] = ()


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Return ``rows`` as one envelope."""
    return b"".join(row_pieces(rows))


def row_pieces(rows: Sequence[Row]) -> list[Bytes]:
    """Return ``rows`` as the pieces of one envelope, the values among them: whoever joins them copies each once."""
    header = []
    values: list[Bytes] = []
    for row in rows:
        parts = [(part.name, part.content_type, len(part.value)) for part in row.parts]
        values += [part.value for part in row.parts]
        fields: dict[str, Any] = {"id": row.request_id, "headers": dict(row.headers), "parts": parts}
        if row.stream:
            fields["stream"] = True
        header.append(fields)
    return [*_head(header), *values]


def decode_rows(data: bytes) -> list[Row]:
    """Return the rows of an envelope.

    Raises:
        ValueError: ``data`` is no envelope of this version, or its header has more than `HEADER_BYTES_MAX`.
    """
    length = _header_length(data[:_FIXED_BYTES])
    if length > HEADER_BYTES_MAX:
        raise ValueError(f"the envelope's header has {length} bytes; {HEADER_BYTES_MAX} are taken")
    return read_rows(BytesIO(data).read, len(data))


def read_rows(read: Callable[[int], Bytes], size: int) -> list[Row]:
    """Return the rows of an envelope that is read as it comes, each value by one read.

    Args:
        read: Returns the next bytes, as many as it is asked for.
        size: Of the envelope, in bytes; all of them are read.

    Raises:
        ValueError: It is no envelope of this version; some of it was not read.
    """
    length = _header_length(read(min(_FIXED_BYTES, size)))
    if _FIXED_BYTES + length > size:
        raise ValueError("the envelope ends within its header")
    header = _header(read(length))
    described = [(fields, _parts(fields.get("parts"))) for fields in map(_fields, header)]
    _check_end(size, _FIXED_BYTES + length + sum(part[2] for _, parts in described for part in parts))
    rows = []
    for fields, parts in described:
        request_id, stream = fields.get("id"), fields.get("stream", False)
        if not isinstance(request_id, str) or not isinstance(stream, bool):
            raise ValueError("a row's id is no text, or its stream no truth value")
        headers = _texts(fields.get("headers"))
        values = [Part(name, read(size), content_type) for name, content_type, size in parts]
        rows.append(Row(request_id, values, headers, stream=stream))
    return rows


def encode_answers(answers: Sequence[Answer]) -> bytes:
    """Return ``answers``, in the order of their rows, as one envelope."""
    return b"".join(answer_pieces(answers))


def answer_pieces(answers: Sequence[Answer]) -> list[Bytes]:
    """Return ``answers`` as the pieces of one envelope, the bodies among them as they lie."""
    return [*_head([_described(answer) for answer in answers]), *(answer.body for answer in answers)]


def answer_size(answer: Answer) -> int:
    """Return how many bytes the envelope of this one answer has."""
    return sum(map(len, answer_pieces([answer])))


def decode_answers(data: bytes) -> list[Answer]:
    """Return the answers of an envelope.

    Raises:
        ValueError: ``data`` is no envelope of this version.
    """
    offset = _FIXED_BYTES + _header_length(data[:_FIXED_BYTES])
    answers = []
    for row in _header(data[_FIXED_BYTES:offset]):
        get = _fields(row).get
        status, kind, content_type = get("status"), get("kind"), get("content_type")
        typed = content_type is None or isinstance(content_type, str)  # `str | None` takes thrice as long
        if not (isinstance(status, int) and isinstance(kind, str) and typed):
            raise ValueError("an answer's status is no number, or its kind or content type no text")
        end = offset + _size(get("size"))
        measured = measurements_of(row["measured"]) if "measured" in row else ()
        answers.append(Answer(status, data[offset:end], kind, content_type, _texts(get("headers")), measured))
        offset = end
    _check_end(len(data), offset)
    return answers


def mime_type(content_type: str | None) -> str:
    """Return the content type without its parameters, as TorchServe's front end passes it on; "" for none."""
    return (content_type or "").partition(";")[0].strip()


def _described(answer: Answer) -> dict[str, Any]:
    described = {
        "status": answer.status,
        "kind": answer.kind,
        "content_type": answer.content_type,
        "headers": dict(answer.headers),
        "size": len(answer.body),
    }
    if answer.measured:
        described["measured"] = [each.fields() for each in answer.measured]
    return described


def _head(header: list[dict[str, Any]]) -> tuple[bytes, bytes, bytes]:
    text = _to_json(header).encode()
    return _MAGIC, _LENGTH.pack(len(text)), text


def _header_length(head: Bytes) -> int:
    if len(head) != _FIXED_BYTES or not head.startswith(_MAGIC):
        raise ValueError("not an envelope of version 1")
    return int(_LENGTH.unpack_from(head, len(_MAGIC))[0])


def _header(text: Bytes) -> list[Any]:
    try:
        header = json.loads(text)
    except RecursionError:
        raise ValueError("the envelope's header is nested too deeply") from None
    if not isinstance(header, list):
        raise ValueError("the envelope's header is no list")
    return header


def _fields(row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError("the envelope's header holds something else than objects")
    return row


def _parts(parts: object) -> list[tuple[str, str | None, int]]:
    if not isinstance(parts, list):
        raise ValueError("a row has no list of parts")
    for part in parts:
        if not isinstance(part, list) or len(part) != 3:
            raise ValueError("a part is not name, content type and size")
        name, content_type, size = part
        if not isinstance(name, str) or not isinstance(content_type, str | None):
            raise ValueError("a part's name or content type is no text")
        _size(size)
    return parts


def _size(value: object) -> int:
    # A negative size would make two values share bytes; True is a number to Python.
    if type(value) is not int or value < 0:
        raise ValueError("a size is no number of bytes")
    return value


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or (value and not all(isinstance(each, str) for each in value.values())):
        raise ValueError("headers are not texts by name")
    return value


def _check_end(size: int, end: int) -> None:
    if end != size:
        raise ValueError(f"the envelope has {size} bytes, its header speaks of {end}")
