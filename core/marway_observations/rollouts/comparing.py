"""Base beside candidate, by what feedback says: the counts of one rule."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

import duckdb

from marway.serving import QualityRule
from marway_observations.json_paths import decoded, document, found_at, single_value
from marway_observations.quality.judging import count
from marway_observations.reading import Observed
from marway_observations.rollouts.results import PARTS, Comparison, StepCounts

__all__ = ["Division", "Sides", "compare"]

_SCALE_OF: Final = 50
"""Of so many errors of the base the typical one is taken."""
_SCALE: Final = 4.0
"""So many typical errors are a loss of 1: a loss of 0.02 is then 8 % of a typical error."""
_SIDE: Final = """CASE
    WHEN outcome <> 'ok' THEN NULL
    WHEN role = 'base' AND version = $base AND label = $label THEN 'base'
    WHEN role = 'candidate' AND version = $candidate AND label = $label THEN 'candidate'
    WHEN role = 'shadow' AND version = $candidate THEN 'shadow' END"""
_KNOWN: Final = "known"
_SURE: Final = 'v."at" >= d.sure_since AND (d.sure_until IS NULL OR v."at" < d.sure_until)'
_ANSWERS: Final = f"""
SELECT d.step, d.share, v.side, count(*) FROM valued v JOIN divisions d ON {_SURE}
WHERE v.side <> 'shadow' GROUP BY ALL"""
_DRAW: Final = "(hash(request_id) % 1000003) / 1000003"


class Sides(NamedTuple):
    """Who is compared: the versions of a label's rollout."""

    label: str
    base: str
    candidate: str


class Division(NamedTuple):
    """A time in which requests were divided alike.

    Attributes:
        step: The rollout's step.
        share: The part of requests that went to the candidate.
        since, until: From when to when; None means that it lasts.
        sure_since, sure_until: From when to when every gateway surely divided them so.
    """

    step: int
    share: float
    since: datetime
    until: datetime | None
    sure_since: datetime
    sure_until: datetime | None


def compare(
    observed: Observed, rule: QualityRule, sides: Sides, divisions: Sequence[Division], *, scale: float | None = None
) -> Comparison:
    """Return how the losses of base and candidate are spread, in each of some times.

    A copy that the candidate got has the request id of the caller's request; where an id came twice it is unclear whose
    copy it is, and neither counts. What is true of a request is true for both answers; whether an answer was `correct`,
    and its `score`, are said of the answer that the caller got, so those have no pairs.

    Args:
        observed: The model's observations since the rollout began.
        rule: What is compared, and where it is.
        sides: Which versions.
        divisions: The times.
        scale: How far from the truth a number's loss is 1, where that was decided.

    Raises:
        InvalidInput: It needs more memory than it may have.
        RegistryUnavailable: The store cannot be read.
    """
    return observed.read(partial(_compare, rule=rule, sides=sides, divisions=divisions, scale=scale))


def _compare(
    connection: duckdb.DuckDBPyConnection,
    *,
    rule: QualityRule,
    sides: Sides,
    divisions: Sequence[Division],
    scale: float | None,
) -> Comparison:
    count(connection)
    _answers(connection, rule, sides)
    _truths(connection, rule)
    if rule.kind == "regression" and scale is None:
        scale = _scale(connection)
    steps: dict[tuple[int, float], dict[str, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    answers: dict[tuple[int, float], dict[str, int]] = defaultdict(dict)
    if rule.kind != "regression" or scale is not None:
        _divisions(connection, divisions)
        loss = _loss(rule, scale)
        rows = connection.execute(_live(loss)).fetchall()
        if rule.kind in ("classification", "regression"):
            rows += connection.execute(_pairs(loss)).fetchall()
        for step, share, side, value, n in rows:
            steps[step, share][side][int(value)] += n
        for step, share, side, n in connection.execute(_ANSWERS).fetchall():
            answers[step, share][f"{side}_answers"] = n
    left_out = connection.execute(
        f"SELECT reason, count(*) FROM valued WHERE reason <> '{_KNOWN}' GROUP BY reason ORDER BY reason"
    ).fetchall()
    return Comparison(
        metric=rule.name,
        kind=rule.kind,
        scale=scale,
        steps=tuple(
            StepCounts(
                step=step,
                share=share,
                **{side: dict(sorted(counts.items())) for side, counts in found.items()},
                **answers[step, share],
            )
            for (step, share), found in sorted(steps.items())
        ),
        left_out=dict(left_out),
    )


def _answers(connection: duckdb.DuckDBPyConnection, rule: QualityRule, sides: Sides) -> None:
    """Make the table `answers`: the rollout's predictions, each with the value that is compared in place of its answer.

    Nothing filters before that value is found: see `marway_observations.quality.judging`.
    """
    needed = rule.kind in ("classification", "regression")
    output = f"CASE WHEN side IS NOT NULL THEN {decoded('output')} END" if needed else "NULL"
    predicted = f"({found_at(connection, rule.prediction, 'answer')})::VARCHAR" if needed else "NULL"
    connection.execute("SET disabled_optimizers = 'build_side_probe_side,projection_pullup'")
    try:
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE answers AS
            WITH sided AS (SELECT *, {_SIDE} AS side FROM observations),
            texts AS (SELECT prediction_id, request_id, "at", bodies, output_type, side, {output} AS output FROM sided),
            documents AS (
                SELECT prediction_id, request_id, "at", bodies, side, {document("output", "output_type")} AS answer
                FROM texts
            ),
            found AS (
                SELECT prediction_id, request_id, "at", bodies, side, {predicted} AS predicted FROM documents
            )
            SELECT * FROM found WHERE side IS NOT NULL""",
            sides._asdict(),
        )
    finally:
        connection.execute("RESET disabled_optimizers")


def _truths(connection: duckdb.DuckDBPyConnection, rule: QualityRule) -> None:
    """Make the table `valued`: each answer with `prediction`, `truth` and the `reason` why it counts or does not.

    What is known to be true of a request whose id came once is true for its copy.
    """
    if rule.kind in ("score", "correct"):
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE valued AS
            SELECT a.request_id, a."at", a.side, NULL AS prediction, c.{rule.kind} AS truth,
                CASE WHEN c.{rule.kind} IS NULL THEN 'nobody said yet how good they were' ELSE '{_KNOWN}' END AS reason
            FROM answers a LEFT JOIN counted c ON c.prediction_id = a.prediction_id WHERE a.side <> 'shadow'"""
        )
        return
    truth = found_at(connection, rule.truth, "given")
    prediction, actual = single_value("predicted"), single_value("actual")
    if rule.kind == "regression":
        prediction, actual = (f"TRY_CAST({each} AS DOUBLE)" for each in (prediction, actual))
        prediction, actual = (f"CASE WHEN isfinite({each}) THEN {each} END" for each in (prediction, actual))
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE valued AS
        WITH given AS (SELECT a.*, c.truth AS given FROM answers a LEFT JOIN counted c USING (prediction_id)),
        asked AS (
            SELECT request_id, any_value(given) FILTER (side = 'base') AS base_answer
            FROM given WHERE request_id IS NOT NULL
            GROUP BY request_id HAVING count(*) FILTER (side <> 'shadow') = 1
        ),
        known AS (
            SELECT g.* EXCLUDE (given, predicted), coalesce(g.given, asked.base_answer) AS given,
                g.predicted::JSON AS predicted
            FROM given g LEFT JOIN asked ON g.side = 'shadow' AND asked.request_id = g.request_id
        ),
        found AS (SELECT *, {truth} AS actual FROM known),
        values_ AS (
            SELECT request_id, "at", side, bodies, given, {prediction} AS prediction, {actual} AS truth FROM found
        )
        SELECT request_id, "at", side, prediction, truth, CASE
            WHEN bodies = 'off' THEN 'their answers are not kept: that needs observe=bodies'
            WHEN bodies <> 'kept' THEN 'their answers were not kept: ' || bodies
            WHEN given IS NULL THEN 'their truth has not come yet'
            WHEN prediction IS NULL THEN $prediction
            WHEN truth IS NULL THEN $truth
            ELSE '{_KNOWN}' END AS reason
        FROM values_""",
        {
            "prediction": f"{rule.prediction} finds no value in their answers",
            "truth": f"{rule.truth} finds no value in their truth",
        },
    )


def _scale(connection: duckdb.DuckDBPyConnection) -> float | None:
    """Return how far from the truth is a loss of 1, or None where too little is known yet."""
    ((many, typical, mean),) = connection.execute(
        f"""SELECT count(*), median(error), avg(error) FROM (
            SELECT abs(prediction - truth) AS error FROM valued WHERE side = 'base' AND reason = '{_KNOWN}'
            ORDER BY "at" LIMIT {_SCALE_OF * 4})"""
    ).fetchall()
    return None if many < _SCALE_OF or not mean else _SCALE * float(typical or mean)


def _loss(rule: QualityRule, scale: float | None) -> str:
    """Return SQL for the loss of a row of `valued`, from 0 to `PARTS`."""
    if rule.kind == "classification":
        return f"CASE WHEN prediction = truth THEN 0 ELSE {PARTS} END"
    if rule.kind == "correct":
        return f"CASE WHEN truth THEN 0 ELSE {PARTS} END"
    if rule.kind == "score":
        lacks = f"({rule.highest!r} - truth) / {rule.highest - rule.lowest!r}"
    else:
        lacks = f"abs(prediction - truth) / {scale!r}"
    return f"{PARTS} * greatest(0.0, least(1.0, {lacks}))"


def _divisions(connection: duckdb.DuckDBPyConnection, divisions: Sequence[Division]) -> None:
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE divisions (step INTEGER, share DOUBLE, since TIMESTAMPTZ, until TIMESTAMPTZ, "
        "sure_since TIMESTAMPTZ, sure_until TIMESTAMPTZ)"
    )
    if divisions:
        connection.executemany("INSERT INTO divisions VALUES (?, ?, ?, ?, ?, ?)", [list(each) for each in divisions])


def _live(loss: str) -> str:
    """Return SQL that counts the losses of answers that callers got, where both versions gave some."""
    return f"""
    SELECT d.step, d.share, v.side, floor({loss} + {_DRAW}), count(*)
    FROM valued v JOIN divisions d ON {_SURE}
    WHERE v.reason = '{_KNOWN}' AND v.side <> 'shadow' AND d.share > 0 AND d.share < 1
    GROUP BY ALL"""


def _pairs(loss: str) -> str:
    """Return SQL that counts the differences of what base and candidate made of one request."""
    return f"""
    WITH losses AS (SELECT request_id, "at", side, CASE WHEN reason = '{_KNOWN}' THEN {loss} END AS loss FROM valued),
    paired AS (
        SELECT request_id, min("at") AS "at", any_value(loss) FILTER (side = 'base') AS base,
            any_value(loss) FILTER (side = 'shadow') AS copied
        FROM losses WHERE request_id IS NOT NULL AND side <> 'candidate' GROUP BY request_id
        HAVING count(*) FILTER (side = 'base') = 1 AND count(*) FILTER (side = 'shadow') = 1
    )
    SELECT d.step, d.share, 'pairs', floor(copied - base + {_DRAW}), count(*)
    FROM paired b JOIN divisions d ON b."at" >= d.since AND (d.until IS NULL OR b."at" < d.until)
    WHERE b.base IS NOT NULL AND b.copied IS NOT NULL
    GROUP BY ALL"""
