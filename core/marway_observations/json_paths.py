"""JMESPath in SQL: the usual expressions become DuckDB's JSON paths, all others run in Python, some rows at a time.

Python evaluates about 100,000 answers a second, DuckDB some millions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import duckdb
import jmespath
from jmespath.exceptions import JMESPathError

__all__ = ["as_path", "decoded", "document", "found_at", "single_value"]

_PLAIN_KEY: Final = re.compile(r"[\w .:/@-]+")
_FALSE: Final = """('null', 'false', '""', '[]', '{}')"""


def document(text: str, content_type: str) -> str:
    """Return SQL for the text of the JSON document in a body: JSON as it is, other text as a string, else null.

    Args:
        text: SQL of the body as text, from `decoded`.
        content_type: SQL of its media type.
    """
    return (
        f"CASE WHEN json_valid({text}) THEN {text} WHEN {content_type} ILIKE 'text/%' THEN to_json({text})::VARCHAR END"
    )


def decoded(body: str) -> str:
    """Return SQL for a body (a BLOB) as text; null where it is none."""
    return f"try(decode({body}))"


def found_at(connection: duckdb.DuckDBPyConnection, expression: str, source: str) -> str:
    """Return SQL for what a JMESPath finds, as JSON; null, of SQL or of JSON, where it finds nothing.

    Args:
        connection: Where the SQL will run; it is given a function where only Python can evaluate the expression.
        expression: JMESPath, which `marway.serving` has checked.
        source: SQL of the text of a JSON document.
    """
    made = as_path(expression, source)
    if made is not None:
        return made
    name = f"jmespath_{hashlib.sha256(expression.encode()).hexdigest()[:16]}"
    if not connection.execute("SELECT 1 FROM duckdb_functions() WHERE function_name = ?", [name]).fetchall():
        connection.create_function(name, _evaluator(expression), ["VARCHAR"], "VARCHAR")
    return f"{name}({source})::JSON"


def as_path(expression: str, source: str) -> str | None:
    """Return SQL that finds what a JMESPath of names, places and `||` finds; None where it has anything else."""
    return _sql(jmespath.compile(expression).parsed, source)


def single_value(found: str) -> str:
    """Return SQL for JSON as the text of one value; null where it is null, an object or a list.

    Whole numbers are written alike whether or not they have a point: 1 and 1.0 are one class.
    """
    number = f"TRY_CAST({found}::VARCHAR AS DOUBLE)"
    return f"""CASE json_type({found})
        WHEN 'NULL' THEN NULL WHEN 'OBJECT' THEN NULL WHEN 'ARRAY' THEN NULL
        WHEN 'DOUBLE' THEN CASE WHEN {number} = trunc({number}) AND abs({number}) < 1e15
            THEN {number}::BIGINT::VARCHAR ELSE {number}::VARCHAR END
        ELSE {found} ->> '$' END"""


def _sql(node: Mapping[str, Any], source: str) -> str | None:
    if node["type"] == "or_expression":
        left, right = (_sql(child, source) for child in node["children"])
        if left is None or right is None:
            return None
        return f"CASE WHEN {left} IS NULL OR ({left})::VARCHAR IN {_FALSE} THEN {right} ELSE {left} END"
    path = _path(node)
    if path is None:
        return None
    return f"json_extract({source}, '${path}')" if path else f"{source}::JSON"


def _path(node: Mapping[str, Any]) -> str | None:
    kind = node["type"]
    if kind in ("current", "identity"):
        return ""
    if kind == "field":
        return f'."{node["value"]}"' if _PLAIN_KEY.fullmatch(node["value"]) else None
    if kind == "index":
        place = node["value"]
        return f"[{place}]" if place >= 0 else f"[#{place}]"
    if kind in ("subexpression", "index_expression"):
        parts = [_path(child) for child in node["children"]]
        return None if None in parts else "".join(part for part in parts if part)
    return None


def _evaluator(expression: str) -> Callable[[str], str]:
    search = jmespath.compile(expression).search

    def evaluate(text: str) -> str:
        try:
            return json.dumps(search(json.loads(text)))
        except (ValueError, JMESPathError, RecursionError):
            return "null"  # of a value that a function does not take, such as max(@) of a word

    return evaluate
