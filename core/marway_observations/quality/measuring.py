"""Quality of a model's versions by their rules: what feedback says of what was answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

import duckdb

from marway.serving import QualityRule, period
from marway_observations.evaluate.results import Quality
from marway_observations.quality.figures import Group, figures
from marway_observations.quality.intervals import Interval
from marway_observations.quality.judging import KNOWN, MISSING, REASONS, count, judge
from marway_observations.reading import Observed

__all__ = ["measure"]


def measure(
    observed: Observed, model: str, rules: Mapping[str, Sequence[QualityRule]], *, now: datetime
) -> list[Quality]:
    """Return each rule's figure for each version that answered: of all its predictions, and of those of each label.

    Failed predictions have no answer and do not count, nor do shadow copies, whose answers nobody got.

    Args:
        observed: The model's observations since the longest window began.
        model: Its name.
        rules: The rules of each version that is asked about.
        now: When the windows end.

    Raises:
        InvalidInput: It needs more memory than it may have.
        RegistryUnavailable: The store cannot be read.
    """
    versions: dict[QualityRule, list[str]] = defaultdict(list)
    for version, own in rules.items():
        for rule in own:
            versions[rule].append(version)
    found = observed.read(partial(_measure, model=model, versions=versions, now=now))
    return sorted(found, key=lambda each: (each.version, each.label or "", each.metric))


def _measure(
    connection: duckdb.DuckDBPyConnection, *, model: str, versions: Mapping[QualityRule, list[str]], now: datetime
) -> list[Quality]:
    found = []
    compared = None
    count(connection)
    for rule in sorted(versions, key=_comparison):
        since = now - period(rule.window)
        if compared != (compared := (_comparison(rule), versions[rule])):
            judge(connection, rule, versions[rule], since, now)
        counts: dict[Group, Counter[str]] = defaultdict(Counter)
        for version, label, reason, n in connection.execute(REASONS).fetchall():
            counts[version, None][reason] += n
            if label is not None:
                counts[version, label][reason] += n
        values = figures(connection, rule)
        for (version, label), reasons in counts.items():
            value, lower, upper = values.get((version, label), Interval(None))
            found.append(
                Quality(
                    model=model,
                    version=version,
                    label=label,
                    metric=rule.name,
                    window=rule.window,
                    known=reasons.pop(KNOWN, 0),
                    missing=reasons.pop(MISSING, 0),
                    unusable=dict(sorted(reasons.items())),
                    value=value,
                    lower=lower,
                    upper=upper,
                    minimum=rule.minimum,
                    maximum=rule.maximum,
                    min_count=rule.min_count,
                )
            )
    return found


def _comparison(rule: QualityRule) -> tuple[str, ...]:
    """Return what the table of a rule depends on: rules that only differ in their figure share one."""
    special = rule.name if rule.name in ("auc", "mape") else ""
    positive = rule.positive or "" if special == "auc" else ""
    return rule.kind, special, positive, rule.prediction, rule.truth, rule.window
