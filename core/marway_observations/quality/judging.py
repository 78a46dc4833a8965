"""Prediction beside truth: the table from which every figure of a rule is computed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import duckdb

from marway.serving import QualityRule
from marway_observations.joining import COUNTED
from marway_observations.json_paths import decoded, document, found_at, single_value
from marway_observations.reading.observed import literal
from marway_observations.schema import CALLERS

__all__ = ["KNOWN", "MISSING", "REASONS", "count", "judge"]

KNOWN: Final = "known"
MISSING: Final = "missing"
REASONS: Final = "SELECT version, label, reason, sum(n)::BIGINT FROM judged WHERE reason IS NOT NULL GROUP BY ALL"
"""How many predictions of each version and label count, or why they do not."""

_COUNTS: Final = f"""(
    outcome = 'ok' AND {CALLERS} AND list_contains($versions, version) AND "at" >= $since AND "at" < $until
)"""
_LARGEST: Final = 1e75  # the squares of its squares, and sums of them, are numbers still


class _Compared(NamedTuple):
    """SQL of what a rule compares.

    Attributes:
        column: Which column of feedback must not be null.
        prediction: JSON that is found in the document `answer`.
        truth: JSON that is found in what feedback has (`given`).
        predicted: The value that `predicted` is.
        actual: The value that `actual` is.
        refused: Further conditions under which nothing can be compared, and why, in order.
        classes: Whether there are so few values that equal rows are counted rather than kept.
    """

    column: str
    prediction: str
    truth: str
    predicted: str
    actual: str
    refused: tuple[tuple[str, str], ...]
    classes: bool


def count(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table `counted`: what feedback says of each prediction, which all rules go by."""
    # What is asked several times is read once: there may be thousands of files. Predictions are only looked through for
    # their requests and groups where feedback names any.
    connection.execute("CREATE OR REPLACE TEMP TABLE kept_feedback AS SELECT * EXCLUDE (source, client) FROM feedback")
    named = connection.execute("SELECT count(request_id) + count(group_id) > 0 FROM kept_feedback").fetchall()[0][0]
    predictions = "" if named else ", observations AS (SELECT * FROM observations LIMIT 0)"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE counted AS WITH feedback AS (SELECT * FROM kept_feedback){predictions} {COUNTED}"
    )
    connection.execute("DROP TABLE kept_feedback")


def judge(
    connection: duckdb.DuckDBPyConnection, rule: QualityRule, versions: Sequence[str], since: datetime, until: datetime
) -> None:
    """Make the table `judged` from `counted`: `version`, `label`, `reason` (known, missing, or why nothing can be
    compared), `prediction`, `truth`, and how many predictions are like this, `n`.
    """
    compared = _compared(connection, rule)
    output = f"CASE WHEN {_COUNTS} THEN {decoded('output')} END" if compared.column == "truth" else "NULL"
    refused = " ".join(f"WHEN {condition} THEN {literal(why)}" for condition, why in compared.refused)
    counted, grouped = ("count(*)", "GROUP BY ALL") if compared.classes else ("1", "")
    # Bodies go from the file into the expression that finds a value in them, and no further: DuckDB gathers up to 2048
    # rows behind a filter or a join, which may be gigabytes. So neither is before it, and what does not count gets no
    # reason; and what is counted is the side of the join that is held in memory.
    connection.execute("SET disabled_optimizers = 'build_side_probe_side,projection_pullup'")
    try:
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE judged AS
            WITH texts AS (
                SELECT prediction_id, version, label, bodies, output_type, {_COUNTS} AS counts,
                    {output} AS output
                FROM observations
            ),
            documents AS (SELECT *, {document("output", "output_type")} AS answer FROM texts),
            answers AS (
                SELECT prediction_id, version, label, bodies, counts, ({compared.prediction})::VARCHAR AS predicted
                FROM documents
            ),
            answered AS (
                SELECT a.*, {compared.column} AS given
                FROM answers a LEFT JOIN counted c ON c.prediction_id = a.prediction_id
            ),
            found AS (SELECT * REPLACE (predicted::JSON AS predicted), {compared.truth} AS actual FROM answered),
            valued AS (
                SELECT version, label, bodies, counts, given, {compared.predicted} AS prediction,
                    {compared.actual} AS truth
                FROM found
            )
            SELECT version, label, prediction, truth, {counted} AS n,
                CASE WHEN NOT counts THEN NULL WHEN given IS NULL THEN '{MISSING}' {refused} ELSE '{KNOWN}' END
                AS reason
            FROM valued {grouped}""",
            {"versions": list(versions), "since": since, "until": until},
        )
    finally:
        connection.execute("RESET disabled_optimizers")


def _compared(connection: duckdb.DuckDBPyConnection, rule: QualityRule) -> _Compared:
    if rule.kind == "score":
        return _Compared(
            "score", "NULL", "given", "NULL", _number("actual"), (("truth IS NULL", "it is no number"),), False
        )
    if rule.kind == "correct":
        return _Compared("correct", "NULL", "given", "NULL", "actual", (), True)
    prediction = found_at(connection, rule.prediction, "answer")
    truth = found_at(connection, rule.truth, "given")
    text, actual = single_value("predicted"), single_value("actual")
    refused = [("bodies <> 'kept'", "its answer was not kept")]
    if rule.kind == "regression":
        refused += _refused(rule, "number", "number")
        if rule.name == "mape":
            refused.append((f"abs(truth) < {1 / _LARGEST}", "the truth is 0, of which nothing is a part"))
        return _Compared("truth", prediction, truth, _number(text), _number(actual), tuple(refused), False)
    if rule.name == "auc":
        refused += _refused(rule, "number", "value")
        positive = "IN ('true', '1')" if rule.positive is None else f"= {literal(rule.positive)}"
        return _Compared("truth", prediction, truth, _number(text), f"({actual}) {positive}", tuple(refused), True)
    refused += _refused(rule, "value", "value")
    return _Compared("truth", prediction, truth, text, actual, tuple(refused), True)


def _refused(rule: QualityRule, predicted: str, true: str) -> list[tuple[str, str]]:
    return [
        ("prediction IS NULL", f"{rule.prediction} finds no {predicted} in its answer"),
        ("truth IS NULL", f"{rule.truth} finds no {true} in its truth"),
    ]


def _number(text: str) -> str:
    number = f"TRY_CAST({text} AS DOUBLE)"
    return f"CASE WHEN abs({number}) < {_LARGEST} THEN {number} END"
