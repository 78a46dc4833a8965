"""Quality of a model's versions, each by its own rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from marway.errors import NotFound
from marway.objects import ObjectStore
from marway.registry import Registry
from marway.serving import QualityRule, period
from marway_observations.evaluate.results import Quality
from marway_observations.joining import UNMATCHED
from marway_observations.quality.measuring import measure
from marway_observations.reading import LeftOut, Observed

__all__ = ["Chosen", "ModelQuality", "Rules", "quality_of", "unmatched"]

_FEW: Final = 20
"""Records that are read sooner than all observations are looked through for their versions."""
Rules: TypeAlias = tuple[QualityRule, ...]
Chosen: TypeAlias = Callable[[Rules], Rules]
"""Makes the rules that are asked about from those that a version declares."""


@dataclass(frozen=True, slots=True)
class ModelQuality:
    """What was found.

    Attributes:
        results: The figures.
        rules: The rules of each version that was looked at.
        window: The longest window among them; zero where there is no rule.
        left_out: Files that could not be read.
    """

    results: tuple[Quality, ...]
    rules: dict[str, Rules]
    window: timedelta
    left_out: tuple[LeftOut, ...] = ()


def quality_of(
    observations: ObjectStore,
    registry: Registry,
    model: str,
    *,
    at: datetime,
    version: str | None = None,
    chosen: Chosen = lambda declared: declared,
    copies: Path | None = None,
) -> ModelQuality:
    """Return the figures of a model's versions.

    Where one that a label leads to, or that has settings of its own, has a rule, so may others: those that may have
    answered within its window are looked at as well, each by its own rules.

    Args:
        observations: Where observations and feedback are.
        registry: Where the rules are.
        model: The model's name.
        at: When the windows end.
        version: Only this one.
        chosen: Makes the rules that are asked about from those that a version declares, which may be none.
        copies: Where copies of files in S3 stay for the next time.

    Raises:
        RegistryUnavailable: A store cannot be read.
        InvalidInput: It needs more memory than it may have.
        VersionNotFound: There is no such version.
    """
    state = registry.state(model)

    def rules_of(versions: Collection[str]) -> Iterable[tuple[str, Rules]]:
        for each in sorted(set(versions) - state.tombstones.keys()):
            try:
                rules = chosen(state.serving_for(registry.record(model, each)).quality)
            except NotFound:
                if each == version:
                    raise
                continue  # deleted since the state was read, or never there
            if rules:
                yield each, rules

    labelled = {*state.labels.values(), *(state.serving.keys() - {"*"})}
    rules = dict(rules_of(labelled if version is None else (version,)))
    undeclared = chosen(())
    while True:
        windows = [period(rule.window) for each in (*rules.values(), undeclared) for rule in each]
        if not windows:
            return ModelQuality((), {}, timedelta(0))
        window = max(windows)
        with Observed(observations, model=model, since=at - window, until=at, copies=copies) as observed:
            if version is None:
                others = set(registry.versions(model)) - rules.keys()
                if len(others) > _FEW:
                    others &= {name for (name,) in observed.query("SELECT DISTINCT version FROM observations")}
                rules |= rules_of(others)
            if any(period(rule.window) > window for each in rules.values() for rule in each):
                continue  # one that was only seen now looks further back
            results = measure(observed, model, rules, now=at)
            return ModelQuality(tuple(results), rules, window, observed.left_out)


def unmatched(observations: ObjectStore, *, since: datetime, until: datetime) -> int:
    """Return how many pieces of feedback that came in a time apply to no prediction that was kept, of any model.

    All predictions that are kept are looked through, however old: feedback may come late.

    Raises:
        RegistryUnavailable: The store cannot be read.
        InvalidInput: It needs more memory than it may have.
    """
    with Observed(observations, feedback_since=since, feedback_until=until) as observed:
        return int(observed.query(UNMATCHED)[0][0])
