"""What a table's bundle holds: its rows as Arrow has them, sorted by key, and what its columns are.

`columns.json` is padded so that the rows begin at a multiple of 64 bytes: they are read in place, from the bundle, and
Arrow wants its columns aligned.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from marway.archives import zipformat
from marway.archives.entries import BUNDLE_MANIFEST_NAME
from marway.bundles.manifest import DEFAULT_ROOT, BundleManifest, encode_manifest
from marway.errors import InvalidArchive, clip
from marway.graphs.document import TABLE_BACKEND
from marway.records import Signature, TensorSpec
from marway.stored import Frozen

__all__ = [
    "COLUMNS_BYTES_MAX",
    "COLUMNS_FILE",
    "COLUMNS_MAX",
    "TABLE_FILE",
    "Column",
    "Columns",
    "encode_columns",
    "parse_columns",
]

TABLE_FILE: Final = "table.arrow"
"""The rows: an Arrow IPC file, not compressed, of one record batch."""
COLUMNS_FILE: Final = "columns.json"
"""What they are; its name is before the rows', so that its padding moves these."""
COLUMNS_MAX: Final = 1000
COLUMNS_BYTES_MAX: Final = 1024 * 1024
_ALIGNED: Final = 64
Datatype = Literal[
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64", "BYTES"
]


class Column(Frozen):
    """A column: its name, the datatype of its values by the Open Inference Protocol, and whether each is a list."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    datatype: Datatype
    is_list: bool = False


class Columns(Frozen):
    """What a table's columns are.

    Attributes:
        format: 1; a table of another is of a newer Marway.
        key: The column that rows are found by: INT64, or BYTES, which is text.
        rows: How many there are.
        columns: All but the key.
    """

    format: Literal[1] = 1
    key: Column
    rows: Annotated[int, Field(ge=1)]
    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=COLUMNS_MAX)]

    @property
    def signature(self) -> Signature:
        """What the table takes and gives."""
        shape = {False: (-1,), True: (-1, -1)}
        return Signature(
            inputs=(TensorSpec(name=self.key.name, datatype=self.key.datatype, shape=(-1,)),),
            outputs=tuple(
                TensorSpec(name=each.name, datatype=each.datatype, shape=shape[each.is_list]) for each in self.columns
            ),
        )


def encode_columns(columns: Columns, name: str, version: str, size: int) -> bytes:
    """Return the document, padded for the bundle of a version whose rows have so many bytes."""
    document = json.dumps(columns.model_dump(mode="json"), indent=1, sort_keys=True).encode()
    manifest = encode_manifest(BundleManifest.model_construct(name=name, version=version, backend=TABLE_BACKEND))
    before = (
        len(zipformat.local_header(BUNDLE_MANIFEST_NAME, len(manifest), 0))
        + len(manifest)
        + len(zipformat.local_header(f"{DEFAULT_ROOT}/{COLUMNS_FILE}", len(document), 0))
        + len(document)
        + len(b"\n")
        + len(zipformat.local_header(f"{DEFAULT_ROOT}/{TABLE_FILE}", size, 0))
    )
    return document + b" " * (-before % _ALIGNED) + b"\n"


def parse_columns(data: bytes) -> Columns:
    """Return what a table's columns are.

    Raises:
        InvalidArchive: It is no such document.
    """
    try:
        raw = json.loads(data)
        if isinstance(raw, dict) and isinstance(raw.get("format"), int) and raw["format"] > 1:
            raise InvalidArchive(f"{COLUMNS_FILE} is of format {raw['format']}: a newer Marway made it")
        return Columns.model_validate(raw)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidArchive(f"{COLUMNS_FILE}: {clip(field, 80)}: {clip(first['msg'], 200)}") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidArchive(f"{COLUMNS_FILE} is not JSON: {clip(str(exc), 200)}") from exc
