"""Evaluates the models of a registry, one after the other: memory is that of one."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from marway.errors import MarwayError
from marway.objects import ObjectStore
from marway.registry import Registry
from marway_observations.drift.evaluating import evaluate_drift
from marway_observations.evaluate.gate import RaisesEvents, settle
from marway_observations.evaluate.results import Drift, Evaluation, Kind, Quality, Trouble, Unjudged
from marway_observations.layout import OBSERVATIONS
from marway_observations.quality import quality_of

__all__ = ["evaluate"]

_MODEL: Final = "model="
_HOUR: Final = re.compile(r"date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})\Z")


def evaluate(
    kind: Kind,
    registry: Registry,
    observations: ObjectStore,
    log: RaisesEvents,
    *,
    copies: Path | None = None,
    at: datetime | None = None,
) -> Evaluation:
    """Look at all models of which predictions are kept, raise events where a bound is crossed, and say what was found.

    A model that cannot be evaluated is named with the reason, and does not keep the others from it.

    Args:
        kind: What is looked at.
        registry: Where models and their rules are.
        observations: Where observations and feedback are.
        log: Where events go.
        copies: Where copies of files in S3 stay for the next time; those that are too old for any window are removed.
        at: When the windows end; None means now.

    Raises:
        RegistryUnavailable: Which models there are cannot be told.
    """
    at = at or datetime.now(timezone.utc)
    look = _Look(registry, observations, copies, at)
    for folder in observations.children(OBSERVATIONS):
        if not folder.startswith(_MODEL):
            continue
        model = folder.removeprefix(_MODEL)
        try:
            found = look.quality(model) if kind == "quality" else look.drift(model)
            unjudged = [each.version for each in look.unjudged if each.model == model]
            settle(registry.store, log, model, kind, found, at=at, unjudged=unjudged)
        except MarwayError as exc:
            look.troubles.append(Trouble(model=model, why=exc.message))
    if copies is not None:
        _prune(copies, at - look.longest - timedelta(hours=2))
    return Evaluation(
        at=at,
        cpu_s=time.process_time(),
        rules=look.rules,
        quality=tuple(look.qualities),
        drift=tuple(look.drifts),
        unjudged=tuple(look.unjudged),
        troubles=tuple(look.troubles),
    )


class _Look:
    """One look at all models: what was found so far."""

    def __init__(self, registry: Registry, observations: ObjectStore, copies: Path | None, at: datetime) -> None:
        self._registry = registry
        self._observations = observations
        self._copies = copies
        self._at = at
        self.rules = 0
        self.longest = timedelta(0)
        self.qualities: list[Quality] = []
        self.drifts: list[Drift] = []
        self.unjudged: list[Unjudged] = []
        self.troubles: list[Trouble] = []

    def quality(self, model: str) -> list[Quality]:
        """Return the figures of a model's versions that declare quality."""
        found = quality_of(self._observations, self._registry, model, at=self._at, copies=self._copies)
        if found.left_out:
            self._left_out(model, [each.key for each in found.left_out])
        self.rules += sum(map(len, found.rules.values()))
        self.longest = max(self.longest, found.window)
        self.qualities += found.results
        return list(found.results)

    def drift(self, model: str) -> list[Drift]:
        """Return the fields of a model's labelled versions that have a drift rule."""
        found: list[Drift] = []
        for each in evaluate_drift(self._observations, self._registry, model, at=self._at, copies=self._copies):
            self.rules += 1
            self.longest = max(self.longest, self._at - each.since)
            if each.status not in ("drifted", "steady"):
                self.unjudged.append(Unjudged(model=model, version=each.version, why=each.reason))
                continue
            found += [
                Drift(
                    model=model,
                    version=each.version,
                    field=field.field,
                    against=each.against,
                    window=f"{(each.until - each.since) / timedelta(hours=1):g}h",
                    count=each.rows,
                    psi=field.psi,
                    ks=field.ks,
                    psi_maximum=each.psi_maximum,
                    drifted=field.drifted,
                )
                for field in each.fields
            ]
        self.drifts += found
        return found

    def _left_out(self, model: str, keys: Sequence[str]) -> None:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        self.troubles.append(Trouble(model=model, why=f"{keys[0]}{more} cannot be read and was left out"))


def _prune(copies: Path, oldest: datetime) -> None:
    """Remove the copies of files of hours before ``oldest``."""
    wanted = oldest.strftime("%Y-%m-%d/%H")
    for hour in list(_hours(copies)):
        found = _HOUR.search(hour.as_posix())
        if found is not None and f"{found[1]}/{found[2]}" < wanted:
            shutil.rmtree(hour, ignore_errors=True)


def _hours(copies: Path) -> Iterator[Path]:
    return copies.rglob("hour=*")
