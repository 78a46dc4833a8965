"""Prediction beside truth: the table from which every figure of a rule is computed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import duckdb

from marway.serving import QualityRule
from marway_observations.joining import JOINED
from marway_observations.json_paths import document, found_at, single_value

__all__ = ["KNOWN", "MISSING", "REASONS", "judge"]

KNOWN: Final = "known"
MISSING: Final = "missing"
REASONS: Final = "SELECT version, label, reason, sum(n)::BIGINT FROM judged GROUP BY ALL"
"""How many predictions of each version and label count, or why they do not."""

_LARGEST: Final = 1e150  # its square is a number still


class _Compared(NamedTuple):
    """SQL of what a rule compares.

    Attributes:
        said: What feedback must say.
        prediction: The predicted value.
        truth: The true value.
        refused: Further conditions under which nothing can be compared, and why, in order.
        classes: Whether there are so few values that equal rows are counted rather than kept.
    """

    said: str
    prediction: str
    truth: str
    refused: tuple[tuple[str, str], ...]
    classes: bool


def judge(
    connection: duckdb.DuckDBPyConnection, rule: QualityRule, versions: Sequence[str], since: datetime, until: datetime
) -> None:
    """Make the table `judged`: `version`, `label`, `reason` (known, missing, or why nothing can be compared),
    `prediction`, `truth`, and how many predictions are like this, `n`.
    """
    compared = _compared(connection, rule)
    refused = " ".join(f"WHEN {condition} THEN {_literal(why)}" for condition, why in compared.refused)
    counted, grouped = ("count(*)", "GROUP BY ALL") if compared.classes else ("1", "")
    # A body is not looked at where no truth is known: reading JSON is most of the work.
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE judged AS
        SELECT version, label, prediction, actual AS truth, {counted} AS n,
            CASE WHEN said IS NULL THEN '{MISSING}' {refused} ELSE '{KNOWN}' END AS reason
        FROM (
            SELECT version, label, bodies, {compared.said} AS said, {compared.truth} AS actual,
                CASE WHEN {compared.said} IS NOT NULL THEN {compared.prediction} END AS prediction
            FROM ({JOINED})
            WHERE outcome = 'ok' AND role <> 'shadow' AND version IN (SELECT unnest($versions))
                AND "at" >= $since AND "at" < $until
        ) {grouped}""",
        {"versions": list(versions), "since": since, "until": until},
    )


def _compared(connection: duckdb.DuckDBPyConnection, rule: QualityRule) -> _Compared:
    if rule.kind == "score":
        return _Compared("score", "NULL", _number("score"), (("actual IS NULL", "the score is no number"),), False)
    if rule.kind == "correct":
        return _Compared("correct", "NULL", "correct", (), True)
    found = found_at(connection, rule.prediction, document("output", "output_type"))
    true = found_at(connection, rule.truth, "truth::JSON")
    prediction, truth = single_value(found), single_value(true)
    refused = [("bodies <> 'kept'", "its answer was not kept")]
    if rule.kind == "regression":
        refused += _refused(rule, "number")
        if rule.name == "mape":
            refused.append(("actual = 0", "the truth is 0, of which nothing is a part"))
        return _Compared("truth", _number(prediction), _number(truth), tuple(refused), False)
    if rule.name == "auc":
        refused += _refused(rule, "number")[:1] + _refused(rule, "value")[1:]
        positive = "IN ('true', '1')" if rule.positive is None else f"= {_literal(rule.positive)}"
        return _Compared("truth", _number(prediction), f"({truth}) {positive}", tuple(refused), True)
    return _Compared("truth", prediction, truth, (*refused, *_refused(rule, "value")), True)


def _refused(rule: QualityRule, wanted: str) -> list[tuple[str, str]]:
    return [
        ("prediction IS NULL", f"{rule.prediction} finds no {wanted} in its answer"),
        ("actual IS NULL", f"{rule.truth} finds no {wanted} in its truth"),
    ]


def _number(text: str) -> str:
    number = f"TRY_CAST({text} AS DOUBLE)"
    return f"CASE WHEN abs({number}) < {_LARGEST} THEN {number} END"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
