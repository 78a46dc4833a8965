"""One pass over observations and feedback, hour by hour."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Final

from marway.errors import VersionNotFound
from marway.objects import ObjectStore
from marway.registry import Registry
from marway.serving import ServingSettings
from marway_observations.layout import FEEDBACK, OBSERVATIONS, observations_prefix
from marway_observations.retention.merging import Hour, merge
from marway_observations.retention.turn import Turn
from marway_observations.store import open_observations

__all__ = ["Collected", "collect"]

_SETTLED: Final = timedelta(hours=1)
"""How long after an hour's end its files are merged: some come late, from a gateway whose store was away."""
_DAY: Final = re.compile(r"date=(\d{4})-(\d{2})-(\d{2})")
_HOUR: Final = re.compile(r"hour=(\d{2})")


@dataclass(slots=True)
class Collected:
    """What was done, or would be: keys of objects.

    Attributes:
        expired: Deleted because they are too old.
        merged: New files, each of which stands for several.
        replaced: Deleted because a merged file stands for them.
        broken: Files that cannot be read; they are left as they are.
    """

    expired: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def collect(registry: Registry, *, observations: str | None = None, dry_run: bool = False) -> dict[str, list[str]]:
    """Delete what is too old of observations and feedback, and merge the small files of hours that ended.

    Args:
        registry: Knows the models, and how long theirs are kept.
        observations: URL of the store that has both, as `open_observations` takes it.
        dry_run: Change nothing; say what would be done.

    Raises:
        InvalidSettings: The URL is of no known kind.
        RegistryUnavailable: A store cannot be read or changed.
        InvalidRecord: A model's records cannot be read: how long its observations are to be kept is not known.
    """
    store, report = open_observations(registry.url, observations), Collected()
    now = store.now()
    days = {model: _keep_days(registry, model) for model in _models(store)}
    # Of models that have none as well: truth may be told before the first observation of a model is in the store.
    others = [_keep_days(registry, model) for model in registry.models() if model not in days]
    longest = max([*days.values(), *others], default=ServingSettings().observe_keep_days)
    keep = [*((observations_prefix(model), kept) for model, kept in days.items()), (FEEDBACK, longest)]
    left: list[Hour] = []
    for prefix, kept in keep:
        for hour in _hours(store, prefix):
            if hour.ends + timedelta(days=kept) <= now:
                for key in list(store.keys(hour.prefix)):
                    report.expired.append(key)
                    if not dry_run:
                        store.delete(key)
            elif hour.ends + _SETTLED <= now:
                left.append(hour)
    with Turn(store, dry_run=dry_run) as turn:
        for hour in left if turn.ours else ():
            done = merge(store, hour, turn, dry_run=dry_run)
            report.merged += done.merged
            report.replaced += done.replaced
            report.broken += done.broken
    return asdict(report)


def _models(store: ObjectStore) -> list[str]:
    return [name.removeprefix("model=") for name in store.children(OBSERVATIONS) if name.startswith("model=")]


def _keep_days(registry: Registry, model: str) -> int:
    """Return the longest `observe_keep_days` of a model's versions; deleted ones count, as theirs may be left."""
    state, days = registry.state(model), []
    for version in registry.versions(model):
        with contextlib.suppress(VersionNotFound):  # its publisher took it back a moment ago
            days.append(state.serving_for(registry.record(model, version)).observe_keep_days)
    return max(days, default=ServingSettings().observe_keep_days)


def _hours(store: ObjectStore, prefix: str) -> Iterator[Hour]:
    """Yield the hours that there are files of, oldest first; what is named otherwise is somebody else's."""
    for day in store.children(prefix):
        found = _DAY.fullmatch(day)
        if found is None:
            continue
        for name in store.children(f"{prefix}{day}/"):
            hour = _HOUR.fullmatch(name)
            if hour is None:
                continue
            try:
                begins = datetime(*(int(part) for part in found.groups()), int(hour[1]), tzinfo=timezone.utc)  # type: ignore[misc, arg-type]
            except ValueError:
                continue
            yield Hour(f"{prefix}{day}/{name}/", begins + timedelta(hours=1), is_feedback=prefix == FEEDBACK)
