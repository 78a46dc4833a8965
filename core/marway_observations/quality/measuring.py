"""Quality of a model's versions by their rules: what feedback says of what was answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal

import duckdb

from marway.serving import QualityRule, period
from marway_observations.quality.figures import Group, figures
from marway_observations.quality.intervals import Interval
from marway_observations.quality.judging import KNOWN, MISSING, REASONS, judge
from marway_observations.reading import Observed

__all__ = ["Quality", "measure"]


@dataclass(frozen=True, slots=True)
class Quality:
    """One figure about one version.

    Attributes:
        model: The model.
        version: The version.
        label: Only predictions that this label led there; None means all of the version.
        rule: What was measured, and its bounds.
        since: From when on predictions count.
        until: Before when they ended.
        value: The figure; None where it cannot be told.
        lower: Lower bound of its 95 % confidence interval; None where there is none.
        upper: Upper bound of it.
        known: Predictions that the figure is of: their truth is known and can be compared.
        missing: Predictions of whose truth nothing was said yet.
        unusable: Predictions whose truth is known and that cannot be compared all the same: how many, by reason.
    """

    model: str
    version: str
    label: str | None
    rule: QualityRule
    since: datetime
    until: datetime
    value: float | None
    lower: float | None
    upper: float | None
    known: int
    missing: int
    unusable: Mapping[str, int] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric's name."""
        return self.rule.name

    @property
    def verdict(self) -> Literal["no_bound", "too_few", "holds", "unclear", "breached"]:
        """What can be said of the rule's bound: ``unclear`` where the interval has values on both sides of it."""
        rule = self.rule
        if rule.minimum is None and rule.maximum is None:
            return "no_bound"
        if self.known < rule.min_count or self.value is None:
            return "too_few"
        lower = self.value if self.lower is None else self.lower
        upper = self.value if self.upper is None else self.upper
        minimum = float("-inf") if rule.minimum is None else rule.minimum
        maximum = float("inf") if rule.maximum is None else rule.maximum
        if upper < minimum or lower > maximum:
            return "breached"
        return "holds" if lower >= minimum and upper <= maximum else "unclear"


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
    found = []
    for rule, of in versions.items():
        found += observed.read(partial(_measure, model=model, rule=rule, versions=of, now=now))
    return sorted(found, key=lambda each: (each.version, each.label or "", each.metric))


def _measure(
    connection: duckdb.DuckDBPyConnection, model: str, rule: QualityRule, versions: list[str], now: datetime
) -> list[Quality]:
    since = now - period(rule.window)
    judge(connection, rule, versions, since, now)
    counts: dict[Group, Counter[str]] = defaultdict(Counter)
    for version, label, reason, n in connection.execute(REASONS).fetchall():
        counts[version, None][reason] += n
        if label is not None:
            counts[version, label][reason] += n
    values = figures(connection, rule)
    return [
        Quality(
            model,
            *group,
            rule,
            since,
            now,
            *values.get(group, Interval(None)),
            known=reasons.pop(KNOWN, 0),
            missing=reasons.pop(MISSING, 0),
            unusable=reasons,
        )
        for group, reasons in counts.items()
    ]
