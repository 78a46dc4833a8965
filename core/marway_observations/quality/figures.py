"""The figures of a rule, for each version and each of its labels, from the table `judged`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import duckdb

from marway.serving import QualityRule
from marway_observations.quality.intervals import (
    Interval,
    area,
    f1,
    mean,
    mean_of_parts,
    part,
    r_squared,
    root,
)

__all__ = ["Group", "figures"]

Group = tuple[str, str | None]
"""A version and a label that led there; None stands for all labels, and for none."""

CLASSES_MAX: Final = 20_000
"""Classes of one version over which precision, recall and F1 are taken: they are a table in memory."""

_GROUPED: Final = "GROUPING SETS ((version), (version, label))"
_FROM: Final = "FROM judged WHERE reason = 'known'"

_MEANS: Final = {
    "mean": "truth",
    "mae": "abs(prediction - truth)",
    "rmse": "(prediction - truth) ** 2",
    "mape": "abs((prediction - truth) / truth)",
}


def figures(connection: duckdb.DuckDBPyConnection, rule: QualityRule) -> dict[Group, Interval]:
    """Return the figure of each version, and of each version and label, that has one."""
    if rule.name in _MEANS:
        return _means(connection, rule.name)
    if rule.name == "accuracy":
        hit = "truth" if rule.kind == "correct" else "prediction = truth"
        return _parts(connection, f"sum(n) FILTER ({hit})", "sum(n)")
    if rule.name == "r2":
        return _r2(connection)
    if rule.name == "auc":
        return _auc(connection)
    if rule.positive is not None:
        return _one_class(connection, rule.name, rule.positive)
    return _all_classes(connection, rule.name)


def _rows(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, object] | None = None
) -> Iterator[tuple[Group, tuple[Any, ...]]]:
    """Yield groups and their columns, of queries whose first columns are version, label and `GROUPING(label)`.

    Predictions that named their version have no label: they count for the version alone.
    """
    for version, label, everything, *columns in connection.execute(sql, parameters).fetchall():
        if everything or label is not None:
            yield (version, None if everything else label), tuple(columns)


def _parts(
    connection: duckdb.DuckDBPyConnection, hits: str, of: str, parameters: dict[str, object] | None = None
) -> dict[Group, Interval]:
    sql = f"SELECT version, label, GROUPING(label), {hits}, {of} {_FROM} GROUP BY {_GROUPED}"
    return {group: part(hit or 0, count or 0) for group, (hit, count) in _rows(connection, sql, parameters)}


def _means(connection: duckdb.DuckDBPyConnection, name: str) -> dict[Group, Interval]:
    value = _MEANS[name]
    sql = (
        f"SELECT version, label, GROUPING(label), count(*), avg({value}), stddev_samp({value}) "
        f"{_FROM} GROUP BY {_GROUPED}"
    )
    found = {group: mean(*columns) for group, columns in _rows(connection, sql)}
    return {group: root(each) for group, each in found.items()} if name == "rmse" else found


def _r2(connection: duckdb.DuckDBPyConnection) -> dict[Group, Interval]:
    sql = f"""
    WITH groups AS (
        SELECT version, label, GROUPING(label) AS everything, avg(truth) AS middle, var_pop(truth) AS spread,
            avg((prediction - truth) ** 2) AS error
        {_FROM} GROUP BY {_GROUPED}
    )
    SELECT g.version, g.label, g.everything, count(*), any_value(g.error), any_value(g.spread),
        stddev_samp((g.error * (j.truth - g.middle) ** 2 / g.spread - (j.prediction - j.truth) ** 2) / g.spread)
    FROM (SELECT * {_FROM}) j JOIN groups g ON g.version = j.version AND (g.everything = 1 OR g.label = j.label)
    WHERE g.spread > 0 GROUP BY g.version, g.label, g.everything
    """
    return {group: r_squared(*columns) for group, columns in _rows(connection, sql)}


def _auc(connection: duckdb.DuckDBPyConnection) -> dict[Group, Interval]:
    sql = f"""
    WITH scores AS (
        SELECT version, label, GROUPING(label) AS everything, prediction,
            coalesce(sum(n) FILTER (truth), 0)::DOUBLE AS p, coalesce(sum(n) FILTER (NOT truth), 0)::DOUBLE AS n
        {_FROM} GROUP BY GROUPING SETS ((version, prediction), (version, label, prediction))
    ), placed AS (
        SELECT *, sum(n) OVER up - n / 2 AS below, sum(p) OVER down - p / 2 AS above
        FROM scores
        WINDOW up AS (PARTITION BY version, label, everything ORDER BY prediction),
            down AS (PARTITION BY version, label, everything ORDER BY prediction DESC)
    )
    SELECT version, label, everything, sum(p), sum(n), sum(p * below), sum(p * below ** 2), sum(n * above),
        sum(n * above ** 2)
    FROM placed GROUP BY version, label, everything
    """
    return {group: area(*columns) for group, columns in _rows(connection, sql)}


def _one_class(connection: duckdb.DuckDBPyConnection, name: str, positive: str) -> dict[Group, Interval]:
    hits = "sum(n) FILTER (prediction = $positive AND truth = $positive)"
    parameters: dict[str, object] = {"positive": positive}
    if name == "precision":
        return _parts(connection, hits, "sum(n) FILTER (prediction = $positive)", parameters)
    if name == "recall":
        return _parts(connection, hits, "sum(n) FILTER (truth = $positive)", parameters)
    sql = f"""
    SELECT version, label, GROUPING(label), {hits}, sum(n) FILTER (prediction = $positive AND truth <> $positive),
        sum(n) FILTER (prediction <> $positive AND truth = $positive)
    {_FROM} GROUP BY {_GROUPED}
    """
    return {group: f1(*(each or 0 for each in columns)) for group, columns in _rows(connection, sql, parameters)}


def _all_classes(connection: duckdb.DuckDBPyConnection, name: str) -> dict[Group, Interval]:
    """Return the mean over all classes that were true or predicted; where a class has no figure it counts as 0."""
    sql = f"""
    WITH cells AS (
        SELECT version, label, GROUPING(label) AS everything, prediction, truth, sum(n) AS n
        {_FROM} GROUP BY GROUPING SETS ((version, prediction, truth), (version, label, prediction, truth))
    ), sides AS (
        SELECT version, label, everything, truth AS class, CASE WHEN prediction = truth THEN n ELSE 0 END AS hits,
            0 AS predicted, n AS actual FROM cells
        UNION ALL
        SELECT version, label, everything, prediction, 0, n, 0 FROM cells
    ), classes AS (
        SELECT version, label, everything, class, sum(hits) AS hits, sum(predicted) AS predicted, sum(actual) AS actual
        FROM sides GROUP BY version, label, everything, class
    )
    SELECT version, label, everything, hits::DOUBLE, predicted::DOUBLE, actual::DOUBLE FROM classes
    QUALIFY count(*) OVER (PARTITION BY version, label, everything) <= {CLASSES_MAX}
    """
    classes: dict[Group, list[Interval]] = defaultdict(list)
    for group, (hits, predicted, actual) in _rows(connection, sql):
        if name == "f1":
            classes[group].append(f1(hits, predicted - hits, actual - hits))
        else:
            classes[group].append(part(hits, predicted if name == "precision" else actual))
    return {group: mean_of_parts(each, shared=name == "f1") for group, each in classes.items()}
