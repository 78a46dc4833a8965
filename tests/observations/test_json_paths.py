"""JMESPath in SQL finds what jmespath finds."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marway_observations.json_paths import as_path, decoded, document, found_at, single_value

KEYS = ["a", "b", "c d", "e.f"]
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "a", "null"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
STEPS = st.lists(st.sampled_from(['"a"', '"b"', '"c d"', '"e.f"', "[0]", "[1]", "[-1]"]), min_size=1, max_size=3)


def joined(steps: list[str]) -> str:
    return "".join(step if step[0] == "[" or not place else f".{step}" for place, step in enumerate(steps))


def found(connection: duckdb.DuckDBPyConnection, expression: str, value: Any) -> Any:
    sql = found_at(connection, expression, "$document")
    (text,) = connection.execute(f"SELECT ({sql})::VARCHAR", {"document": json.dumps(value)}).fetchone() or (None,)
    return None if text is None else json.loads(text)


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


@given(document=DOCUMENTS, steps=STEPS, other=STEPS)
@settings(max_examples=150, deadline=None)
def test_paths(connection: duckdb.DuckDBPyConnection, document: Any, steps: list[str], other: list[str]) -> None:
    """Names, places from both ends and `||`, in any document."""
    for expression in (joined(steps), f"{joined(steps)} || {joined(other)}"):
        assert as_path(expression, "x") is not None
        assert found(connection, expression, document) == jmespath.search(expression, document), expression


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("max_by(@, &p).label", [{"label": "a", "p": 0.1}, {"label": "b", "p": 0.9}]),
        ("scores[?p > `0.5`] | [0].label", {"scores": [{"label": "a", "p": 0.1}, {"label": "b", "p": 0.9}]}),
        ("length(@)", [1, 2]),
        ("length(@)", 3),  # refuses a number
        ('"q\\"t"', {'q"t': 1}),
        ("@", {"a": 1}),
    ],
)
def test_all_else_runs_in_python(connection: duckdb.DuckDBPyConnection, expression: str, value: Any) -> None:
    """Filters, functions and pipes give what jmespath gives; where it refuses a value, nothing is found."""
    try:
        wanted = jmespath.search(expression, value)
    except jmespath.exceptions.JMESPathError:
        wanted = None
    assert found(connection, expression, value) == wanted
    assert found(connection, expression, value) == wanted


@pytest.mark.parametrize(
    ("body", "content_type", "wanted"),
    [
        (b'"a"', "application/json", "a"),
        (b"1.0", None, "1"),
        (b"1.5", "text/plain; charset=utf-8", "1.5"),
        (b"1e300", "application/json", "1e+300"),
        (b"true", "application/json", "true"),
        (b"positive", "text/plain", "positive"),
        (b"positive", "application/octet-stream", None),
        (b"\xff\xfe", "text/plain", None),
        (b"null", "application/json", None),
        (b"[1]", "application/json", None),
        (b"{}", "application/json", None),
        (b"NaN", "application/json", "nan"),
        (None, None, None),
    ],
)
def test_single_values(
    connection: duckdb.DuckDBPyConnection, body: bytes | None, content_type: str | None, wanted: str | None
) -> None:
    """A body is a value when it is one number, word or truth value, whatever the way it is written."""
    sql = single_value(f"({document(decoded('$body::BLOB'), '$type::VARCHAR')})::JSON")
    assert connection.execute(f"SELECT {sql}", {"body": body, "type": content_type}).fetchall() == [(wanted,)]
