"""docs/observations.md tells of every column that is kept, with its type."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from marway_observations import schema

PAGE = Path(__file__).parents[2] / "docs/observations.md"
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| .+ \|$", re.MULTILINE)


def type_name(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return {"bool": "boolean"}.get(str(kind), str(kind).partition("[")[0])


@pytest.mark.parametrize(("table", "heading"), [("OBSERVATIONS", "`observations/"), ("FEEDBACK", "`feedback/")])
def test_columns(table: str, heading: str) -> None:
    """The tables of the page are the schemas, in their order."""
    text = PAGE.read_text()
    rows = text[text.index(f"\n{heading}") :]
    found = _ROW.findall(rows[: rows.index("\n\n", rows.index("| `"))])
    assert found == [(field.name, type_name(field.type)) for field in getattr(schema, table)]
