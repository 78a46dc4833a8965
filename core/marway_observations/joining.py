"""Which feedback counts for which prediction: the one definition, as SQL for DuckDB.

The queries read two views, `observations` and `feedback`, with the columns of `marway_observations.schema`; what they
hold is the reader's choice (`marway_observations.reading`). A piece of feedback applies to

- the prediction that its `prediction_id` names;
- every prediction of its `request_id` between `since` and `until`; without, whenever it was, up to an hour after the
  feedback came: what is said now is about what was, but clocks of two gateways may differ;
- every prediction of its `group_id` between `since` and `until`; without, the day before `until` until the feedback's
  own `at`.

Both ends belong to the window. A prediction's moment is the `at` of its observation. One piece of feedback may say
several things (`truth`, `correct`, `score`); for each of them alone the newest counts, by `at`, whichever way it named
the prediction. Of two that are equally old the one with the greater `feedback_id` counts, so that the outcome does not
hang on the order in which they came, or in which files are read. Copies of one piece, such as a killed merge may leave,
count as one.
"""

from __future__ import annotations

from typing import Final

__all__ = ["APPLIED", "COUNTED", "JOINED", "UNMATCHED"]

_NAMED_BY_REQUEST: Final = """
    f.request_id = o.request_id
    AND (f.since IS NULL OR o."at" >= f.since)
    AND o."at" <= coalesce(f.until, f.received_at + INTERVAL 1 HOUR)
"""
# `at` is a word of SQL to DuckDB 2, so it stands in quotes
_NAMED_BY_GROUP: Final = """
    f.group_id = o.group_id
    AND o."at" >= coalesce(f.since, coalesce(f.until, f."at") - INTERVAL 1 DAY)
    AND o."at" <= coalesce(f.until, f."at")
"""

APPLIED: Final = f"""
SELECT f.prediction_id, f.* EXCLUDE (prediction_id) FROM feedback f WHERE f.prediction_id IS NOT NULL
UNION ALL
SELECT o.prediction_id, f.* EXCLUDE (prediction_id) FROM observations o JOIN feedback f ON {_NAMED_BY_REQUEST}
UNION ALL
SELECT o.prediction_id, f.* EXCLUDE (prediction_id) FROM observations o JOIN feedback f ON {_NAMED_BY_GROUP}
"""
"""Each piece of feedback with each prediction that it applies to, whether or not that was kept. Copies are left in."""


def _newest(kind: str) -> str:
    newest = 'ROW(applied."at", applied.feedback_id)'
    given = f"FILTER (applied.{kind} IS NOT NULL)"
    return f"""
    arg_max(applied.{kind}, {newest}) {given} AS {kind},
    max(applied."at") {given} AS {kind}_at"""


COUNTED: Final = f"""
SELECT applied.prediction_id, {_newest("truth")}, {_newest("correct")}, {_newest("score")}
FROM ({APPLIED}) applied GROUP BY applied.prediction_id
"""
"""What counts for each prediction: `prediction_id`, and `truth`, `correct` and `score`, each with its moment
(`truth_at`, `correct_at`, `score_at`); null where nobody said it."""

JOINED: Final = f"""
SELECT o.*, c.truth, c.truth_at, c.correct, c.correct_at, c.score, c.score_at
FROM observations o LEFT JOIN ({COUNTED}) c ON c.prediction_id = o.prediction_id
"""
"""Every observation with all its columns, and what counts for it."""

UNMATCHED: Final = f"""
SELECT count(DISTINCT f.feedback_id)
FROM feedback f
WHERE NOT EXISTS (SELECT 1 FROM observations o WHERE o.prediction_id = f.prediction_id)
  AND NOT EXISTS (SELECT 1 FROM observations o WHERE {_NAMED_BY_REQUEST})
  AND NOT EXISTS (SELECT 1 FROM observations o WHERE {_NAMED_BY_GROUP})
"""
"""How many pieces of feedback apply to no prediction that `observations` has: it was not kept, or there never was one.

Feedback does not say which model it is about, so the view must have the predictions of all models, or those of the
others count as not kept.
"""
