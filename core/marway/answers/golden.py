"""Golden examples: inputs that travel in an archive, and the answers that a version gave to them.

Inputs lie below `MAR-INF/examples/`, which TorchServe does not look at (`MARWAY-INF/examples/` in a bundle):
`index.json` lists them, and each has a file of its own with the bytes that a client would send. Answers are computed,
so they are no part of the archive's bytes: they are a `GoldenDocument`, stored in the registry as
`golden/<sha256 of its bytes>.json`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marway.errors import InvalidArchive, InvalidRecord, clip
from marway.records import ArchiveKind
from marway.stored import Frozen
from marway.wire.envelope import mime_type

__all__ = [
    "DEFAULT_TOLERANCE",
    "MAX_EXAMPLES",
    "MAX_EXAMPLES_BYTES",
    "MAX_GOLDEN_BYTES",
    "ExampleInput",
    "GoldenAnswer",
    "GoldenDocument",
    "GoldenExample",
    "Kind",
    "Tolerance",
    "decode_examples",
    "decode_golden",
    "encode_examples",
    "examples_in",
    "is_json",
    "mime_type",
]

_FOLDERS: Mapping[ArchiveKind, str] = {"mar": "MAR-INF/examples", "bundle": "MARWAY-INF/examples"}
"""Where an archive has its golden inputs."""
_INDEX = "index.json"
MAX_EXAMPLES = 1000
MAX_EXAMPLES_BYTES = 64 * 1024 * 1024
"""Most bytes of all golden inputs of an archive together: they are sent again with every load."""
MAX_GOLDEN_BYTES = 64 * 1024 * 1024

Kind = Literal["json", "text", "bytes", "tensor", "error"]
"""What a handler returned for a row; `error` for a row that it raised for."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_MAX_INDEX_BYTES = 1024 * 1024


class Tolerance(Frozen):
    """How far two numbers may lie apart: by ``absolute``, or by ``relative`` times the larger of them."""

    relative: Annotated[float, Field(ge=0, le=1)] = 1e-4
    absolute: Annotated[float, Field(ge=0)] = 1e-4


DEFAULT_TOLERANCE = Tolerance()


@dataclass(frozen=True, slots=True)
class ExampleInput:
    """One golden input as a client would send it, and the status that its answer must have: None is any below 400."""

    data: bytes
    content_type: str | None = None
    status: int | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class GoldenAnswer(Frozen):
    """What a version answered to one input.

    Attributes:
        status: The HTTP status that the handler set, 200 by default.
        kind: What ``value`` is: JSON, text, base64 of bytes, `{dtype, shape, values}` of a tensor, or a message.
        content_type: What the handler set, or None.
        value: The answer.
    """

    status: int = 200
    kind: Kind
    content_type: str | None = None
    value: Any = None

    @classmethod
    def of(cls, *, status: int, kind: Kind, body: bytes, content_type: str | None) -> GoldenAnswer:
        """Return the answer with the encoded ``body`` that `marway.wire.envelope.Answer` carries.

        Text and bytes that call themselves JSON, and are, count as JSON: their numbers are compared as numbers.
        A tensor's ``body`` is the JSON of its `{dtype, shape, values}`.
        """
        value: Any
        if kind in ("json", "tensor") or (kind != "error" and is_json(content_type)):
            try:
                value = json.loads(body)
            except (ValueError, RecursionError):
                pass
            else:
                return cls(status=status, kind="tensor" if kind == "tensor" else "json",
                           content_type=content_type, value=value)  # fmt: skip
        value = base64.b64encode(body).decode() if kind == "bytes" else body.decode(errors="replace")
        kind = "text" if kind in ("json", "tensor") else kind
        return cls(status=status, kind=kind, content_type=content_type, value=value)


class GoldenExample(Frozen):
    """An input, told by its digest, and its answer."""

    input_sha256: Sha256
    content_type: str | None = None
    answer: GoldenAnswer


class GoldenDocument(Frozen):
    """`golden/<digest>.json`: the answers of one archive to the inputs that it carries.

    The same archive with the same answers gives the same bytes: it holds no times and no machine.

    Attributes:
        archive_sha256: The archive.
        source: Who answered: the archive's handler in TorchServe's worker code, or a callable of the publisher; or
            nobody did, and the publisher gives the answers, as those of a bundle.
        tolerance: How far numbers may lie apart and still be the same answer.
        examples: In the order of the archive's index.
        batch: Whether batches were proved to answer as single calls do.
        batch_sizes: The sizes that were tried and answered so, in rows.
        batch_reason: Why not, where ``batch`` is false.
    """

    format: Literal[1] = 1
    archive_sha256: Sha256
    source: Literal["handler", "callable", "given"] = "handler"
    tolerance: Tolerance = DEFAULT_TOLERANCE
    examples: tuple[GoldenExample, ...] = ()
    batch: bool = False
    batch_sizes: tuple[int, ...] = ()
    batch_reason: str | None = None

    def encode(self) -> bytes:
        """Return the canonical bytes: ASCII JSON, keys sorted, one field a line."""
        return f"{json.dumps(self.model_dump(), indent=1, sort_keys=True)}\n".encode()

    @property
    def values_only(self) -> bool:
        """Whether it knows statuses and values only: kinds and content types are a server's matter."""
        return self.source != "handler"

    @property
    def sha256(self) -> str:
        """Digest of the canonical bytes, hex: its name in the registry."""
        return hashlib.sha256(self.encode()).hexdigest()


def decode_golden(data: bytes, *, source: str) -> GoldenDocument:
    """Return the golden document that ``data``, which came from ``source``, is.

    Raises:
        InvalidRecord: It is none; the message says what is wrong.
    """
    if len(data) > MAX_GOLDEN_BYTES:
        raise InvalidRecord(f"{source} has {len(data)} bytes: a golden document has at most {MAX_GOLDEN_BYTES}")
    try:
        return GoldenDocument.model_validate(json.loads(data))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidRecord(f"{source} is no golden document: {field}: {clip(first['msg'], 200)}") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidRecord(f"{source} is no golden document: {clip(str(exc), 200)}") from exc


def encode_examples(examples: Sequence[ExampleInput], kind: ArchiveKind = "mar") -> dict[str, bytes]:
    """Return the files that carry ``examples`` in an archive of a ``kind``, by name; the same give the same bytes.

    Raises:
        InvalidArchive: They are too many, or too large together.
    """
    if not examples:
        return {}
    _check_size(len(examples), sum(len(each.data) for each in examples))
    index: list[dict[str, object]] = []
    files: dict[str, bytes] = {}
    folder = _FOLDERS[kind]
    for number, each in enumerate(examples, 1):
        name = f"{number:04d}{_ENDINGS.get(mime_type(each.content_type), '.bin')}"
        entry: dict[str, object] = {"file": name, "content_type": each.content_type}
        if each.status is not None:
            entry["status"] = each.status
        index.append(entry)
        files[f"{folder}/{name}"] = each.data
    document = {"format": 1, "examples": index}
    return {f"{folder}/{_INDEX}": f"{json.dumps(document, indent=1, sort_keys=True)}\n".encode(), **files}


_ENDINGS = {"application/json": ".json", "text/plain": ".txt", "image/png": ".png", "image/jpeg": ".jpg"}


class _Listed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    file: Annotated[str, Field(pattern=r"^[0-9]{4}\.[a-z]{3,4}$")]
    content_type: Annotated[str, Field(max_length=256, pattern=r"^[\x20-\x7e]+$")] | None = None
    status: Annotated[int, Field(ge=200, le=599)] | None = None


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    format: Literal[1]
    examples: Annotated[list[_Listed], Field(max_length=MAX_EXAMPLES)]


def decode_examples(read: Callable[[str, int], bytes | None], kind: ArchiveKind = "mar") -> tuple[ExampleInput, ...]:
    """Return the golden inputs of an archive that may be anybody's; none when it has no index.

    Args:
        read: Gives the bytes of a file by its name, or None; it may refuse one of more than the bytes given.
        kind: What the archive is.

    Raises:
        InvalidArchive: The index is none, or names a file that is not there.
    """
    folder = _FOLDERS[kind]
    where = f"{folder}/{_INDEX}"
    raw = read(where, _MAX_INDEX_BYTES)
    if raw is None:
        return ()
    try:
        index = _Index.model_validate_json(raw)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidArchive(f"{where}: {clip(field, 80)}: {clip(first['msg'], 200)}") from exc
    found: list[ExampleInput] = []
    total = 0
    for listed in index.examples:
        data = read(f"{folder}/{listed.file}", MAX_EXAMPLES_BYTES)
        if data is None:
            raise InvalidArchive(f"{where} names {listed.file}, which is not in the archive")
        total += len(data)
        _check_size(len(index.examples), total)
        found.append(ExampleInput(data, listed.content_type, listed.status))
    return tuple(found)


def examples_in(archive: zipfile.ZipFile, kind: ArchiveKind = "mar") -> tuple[ExampleInput, ...]:
    """Return the golden inputs of an archive that is open, as `decode_examples`; only these are read.

    Raises:
        InvalidArchive: As `decode_examples`, or a file is larger than it may be.
    """

    def read(name: str, limit: int) -> bytes | None:
        try:
            info = archive.getinfo(name)
        except KeyError:
            return None
        if info.file_size > limit:
            raise InvalidArchive(f"{name} has {info.file_size} bytes, more than {limit}")
        return archive.read(info)

    return decode_examples(read, kind)


def is_json(content_type: str | None) -> bool:
    """Return whether ``content_type`` says JSON."""
    mime = mime_type(content_type).lower()
    return mime == "application/json" or mime.endswith("+json")


def _check_size(count: int, total: int) -> None:
    if count > MAX_EXAMPLES:
        raise InvalidArchive(f"{count} golden examples: an archive carries at most {MAX_EXAMPLES}")
    if total > MAX_EXAMPLES_BYTES:
        raise InvalidArchive(
            f"the golden examples have more than {MAX_EXAMPLES_BYTES} bytes together: they are sent with every load, "
            "give fewer or smaller ones"
        )
