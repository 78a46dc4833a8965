"""Looks at rollouts that run, and writes down what feedback says of each, where all gateways read it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from math import ceil
from pathlib import Path
from typing import Final

from marway.errors import InvalidRecord, MarwayError
from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore
from marway.records import HistoryEntry
from marway.registry import Registry
from marway.registry.encoding import decode, encode
from marway.serving import QualityRule
from marway.traffic import Traffic
from marway_observations.evaluate.gate import breaches
from marway_observations.evaluate.results import Quality
from marway_observations.quality import measure
from marway_observations.reading import Observed
from marway_observations.rollouts.comparing import Division, Sides, compare
from marway_observations.rollouts.results import Asked, Comparison, Looked, RolloutQuality, Trouble, quality_key

__all__ = ["divisions_of", "guarding", "look", "rewarding"]

_AFTER: Final = timedelta(seconds=5)
"""So long after a change requests may still have been divided as before: gateways follow within 2 s, a request takes a
while, and clocks differ."""
_BEFORE: Final = timedelta(seconds=2)
"""So long before a change, by the clock of whoever made it, a gateway whose clock is late may have followed it."""
_WIDER: Final = 1.6
"""By so much intervals of 95 % are widened, to 99.8 %: a rollout is looked at again and again."""
_LATE: Final = timedelta(minutes=1)
_NOTHING_DECLARED: Final = (
    "no quality rule is declared of the base or the candidate that truth about single answers could be set beside: "
    "classification, regression, correct or score (docs/quality.md)"
)


def look(
    registry: Registry,
    observations: ObjectStore,
    asked: Sequence[Asked],
    *,
    copies: Path | None = None,
    at: datetime | None = None,
) -> Looked:
    """Look at some rollouts once. One that cannot be looked at is named, and does not keep the others from it.

    Args:
        registry: Where models, their rules and the documents are.
        observations: Where observations and feedback are.
        asked: Which; those that are over by now are passed over.
        copies: Where copies of files in S3 stay for the next time.
        at: Until when predictions count; None means now.
    """
    at = at or datetime.now(timezone.utc)
    began = time.process_time()
    found: dict[str, RolloutQuality] = {}
    troubles = []
    for each in asked:
        made = _look_or_trouble(registry, observations, each, copies, at)
        if isinstance(made, Trouble):
            troubles.append(made)
        elif made is not None:
            found[each.rollout] = made
    return Looked(cpu_s=time.process_time() - began, found=found, troubles=tuple(troubles))


def guarding(rules: Sequence[QualityRule]) -> QualityRule | None:
    """Return the rule that the guard `quality` goes by: the first by which two answers to one request are compared,
    else the first by which an answer is judged at all. None where there is none.
    """
    judged = [rule for rule in rules if rule.name != "auc"]
    paired = [rule for rule in judged if rule.kind in ("classification", "regression")]
    return next(iter((*paired, *judged)), None)


def rewarding(rules: Sequence[QualityRule]) -> QualityRule:
    """Return the rule that the policy `thompson` goes by: the first of what callers said, else scores from 0 to 1."""
    return next((rule for rule in rules if rule.kind in ("score", "correct")), QualityRule(kind="score"))


def divisions_of(newest_first: Iterator[HistoryEntry], rollout: str) -> tuple[Division, ...]:
    """Return the times in which a rollout divided requests alike, oldest first, from its model's history."""
    changes: list[HistoryEntry] = []
    for entry in newest_first:
        change = entry.rollout
        if change is None or change.id != rollout:
            continue
        if change.action != "shadow":
            changes.append(entry)
        if change.action == "start":
            break
    found: list[Division] = []
    for entry in reversed(changes):
        change = entry.rollout
        assert change is not None
        share = change.percent / 100
        if found and found[-1].until is None:
            before = found[-1]
            if (before.step, before.share) == (change.step, share):
                continue  # paused, or gone on: nothing else is divided
            found[-1] = before._replace(until=entry.at, sure_until=entry.at - _BEFORE)
        found.append(Division(change.step, share, entry.at, None, entry.at + _AFTER, None))
    return tuple(found)


def _look_or_trouble(
    registry: Registry, observations: ObjectStore, asked: Asked, copies: Path | None, at: datetime
) -> RolloutQuality | Trouble | None:
    try:
        return _look(registry, observations, asked, copies, at)
    except MarwayError as exc:
        return Trouble(model=asked.model, why=exc.message)


def _look(
    registry: Registry, observations: ObjectStore, asked: Asked, copies: Path | None, at: datetime
) -> RolloutQuality | None:
    state = registry.state(asked.model)
    traffic = state.traffic.get(asked.label)
    if traffic is None or traffic.rollout != asked.rollout or traffic.base is None or traffic.candidate is None:
        return None
    declared = {
        version: state.serving_for(registry.record(asked.model, version)).quality
        for version in (traffic.base, traffic.candidate)
    }
    rules = declared[traffic.candidate] or declared[traffic.base]
    before, tag = _read(registry.store, asked)
    sides = Sides(asked.label, traffic.base, traffic.candidate)
    divisions = divisions_of(registry.history(asked.model), asked.rollout)
    guard = guarding(rules) if "quality" in traffic.guards else None
    reward = rewarding(rules) if traffic.policy == "thompson" else None
    breached = None
    compared: dict[QualityRule, Comparison] = {}
    with Observed(observations, model=asked.model, since=traffic.began - _LATE, copies=copies) as observed:
        for rule in (guard, reward):
            if rule is not None and rule not in compared:
                scale = before.guard.scale if before is not None and before.guard is not None else None
                compared[rule] = compare(observed, rule, sides, divisions, scale=scale)
        if guard is not None:
            breached = _breached(observed, asked, traffic, rules, at)
    made = RolloutQuality(
        at=at,
        guard=None if guard is None else compared[guard],
        reward=None if reward is None else compared[reward],
        breached=breached,
        missing=_NOTHING_DECLARED if guard is None and "quality" in traffic.guards else None,
    )
    _write(registry.store, asked, made, tag)
    return made


def _breached(
    observed: Observed, asked: Asked, traffic: Traffic, rules: Sequence[QualityRule], at: datetime
) -> str | None:
    """Return which bound the candidate's answers to callers surely breach while the base's do not, or None."""
    assert traffic.base is not None
    assert traffic.candidate is not None
    window = f"{ceil((at - traffic.began + _LATE).total_seconds())}s"
    bounded = [
        rule.model_copy(update={"window": window})
        for rule in rules
        if rule.minimum is not None or rule.maximum is not None
    ]
    if not bounded:
        return None
    versions = dict.fromkeys((traffic.base, traffic.candidate), bounded)
    of_label = [each for each in measure(observed, asked.model, versions, now=at) if each.label == asked.label]
    broken = breaches(_widened(each) for each in of_label)
    bases = {each.metric for each in broken if each.version == traffic.base}
    for each in broken:
        if each.version == traffic.candidate and each.metric not in bases:
            return _in_words(each)
    return None


def _widened(found: Quality) -> Quality:
    if found.value is None or found.lower is None or found.upper is None:
        return found
    lower, upper = (found.value + (each - found.value) * _WIDER for each in (found.lower, found.upper))
    return found.model_copy(update={"lower": lower, "upper": upper})


def _in_words(found: Quality) -> str:
    bound = f"at least {found.minimum:g}" if found.minimum is not None else f"at most {found.maximum:g}"
    between = "" if found.lower is None or found.upper is None else f" (99.8 %: {found.lower:.4g} to {found.upper:.4g})"
    figure = f"{found.metric} of {found.version} is {found.value:.4g}{between} of {found.known} answers"
    return f"{figure}, and must be {bound}"


def _read(store: ObjectStore, asked: Asked) -> tuple[RolloutQuality | None, str | None]:
    key = quality_key(asked.model, asked.rollout)
    try:
        stored = store.get(key)
    except ObjectMissing:
        return None, None
    try:
        return decode(RolloutQuality, stored.data, source=key), stored.etag
    except InvalidRecord:
        return None, stored.etag  # all of it is counted anew


def _write(store: ObjectStore, asked: Asked, made: RolloutQuality, tag: str | None) -> None:
    key = quality_key(asked.model, asked.rollout)
    data = encode(made, key=key)
    try:
        if tag is None:
            store.create(key, data)
        else:
            store.replace(key, data, etag=tag)
    except (ObjectExists, ObjectChanged):
        return  # another process has just looked as well: what it wrote is as good
