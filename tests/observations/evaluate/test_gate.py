"""A bound that is breached is told once, and once more when it is kept again, whoever is killed meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marway.errors import RegistryUnavailable
from marway.objects import DirectoryStore
from marway_observations.evaluate.gate import GateState, breaches, judge, settle
from marway_observations.evaluate.results import Drift, Quality
from marway_observations.events import Event

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)


def quality(**changed: Any) -> Quality:
    """Return an accuracy of 0.95 of 100 predictions, with a minimum of 0.9."""
    given = {
        "model": "intent",
        "version": "1.0",
        "label": None,
        "metric": "accuracy",
        "window": "7d",
        "known": 100,
        "missing": 20,
        "value": 0.95,
        "lower": 0.9,
        "upper": 0.98,
        "minimum": 0.9,
        "maximum": None,
        "min_count": 50,
    }
    return Quality(**{**given, **changed})


def drift(field: str = "input.age", *, psi: float = 0.5, drifted: bool = True) -> Drift:
    return Drift(
        model="intent",
        version="1.0",
        field=field,
        against="training",
        window="24h",
        count=500,
        psi=psi,
        ks=0.3,
        psi_maximum=0.2,
        drifted=drifted,
    )


GOOD = quality()
BAD = quality(value=0.7, lower=0.6, upper=0.78)
UNCLEAR = quality(value=0.88, lower=0.8, upper=0.93)
FEW = quality(known=49, value=0.1, lower=0.05, upper=0.2)


class Log:
    """Takes events, each id once, as the real one does; may be away."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.away = False

    def raise_(self, event: Event) -> bool:
        if self.away:
            raise RegistryUnavailable("away")
        return self.events.setdefault(event.id, event) is event

    @property
    def types(self) -> list[str]:
        return [event.type.removeprefix("dev.marway.model.") for event in self.events.values()]


@pytest.mark.parametrize(
    ("result", "standing"),
    [
        (GOOD, "met"),
        (BAD, "breached"),
        (UNCLEAR, "unclear"),
        (FEW, "too_few"),
        (quality(minimum=None), "no_bound"),
        (quality(value=None, lower=None, upper=None), "too_few"),
        (quality(value=0.5, lower=None, upper=None), "breached"),
        (quality(metric="mae", minimum=None, maximum=2.0, value=3.0, lower=2.1, upper=4.0), "breached"),
        (quality(metric="mae", minimum=None, maximum=2.0, value=2.5, lower=1.9, upper=3.0), "unclear"),
        (quality(metric="mae", minimum=None, maximum=2.0, value=1.5, lower=1.0, upper=3.0), "met"),
        (drift(), "breached"),
        (drift(psi=0.16, drifted=False), "unclear"),
        (drift(psi=0.1, drifted=False), "met"),
    ],
)
def test_how_a_figure_stands(result: Quality | Drift, standing: str) -> None:
    """Breached is what surely is on the wrong side; met is a figure on the right side; between them it is unclear."""
    assert result.standing == standing


def test_breaches_are_what_ends_a_rollout() -> None:
    """Only what surely breaches its bound is one."""
    assert breaches([GOOD, BAD, UNCLEAR, FEW]) == (BAD,)


def test_one_event_each_way(tmp_path: Path) -> None:
    """However often it is looked at, a breach is one event, and its end another; what is unclear changes nothing."""
    store, log = DirectoryStore(tmp_path), Log()
    for looked, result in enumerate((GOOD, FEW, UNCLEAR, BAD, BAD, UNCLEAR, FEW, BAD, GOOD, UNCLEAR, GOOD, BAD)):
        settle(store, log, "intent", "quality", [result], at=AT + timedelta(minutes=looked))
    assert log.types == ["quality_below_minimum", "quality_recovered", "quality_below_minimum"]
    first = next(iter(log.events.values()))
    assert (first.subject, first.time) == ("intent", AT + timedelta(minutes=3))
    assert first.data["value"] == 0.7
    assert first.data["minimum"] == 0.9
    assert "label" not in first.data


def test_each_version_and_metric_is_judged_by_itself(tmp_path: Path) -> None:
    """Two versions and two metrics are four bounds; what single labels come to is shown, and not judged."""
    store, log = DirectoryStore(tmp_path), Log()
    results = [quality(version=version, metric=metric) for version in ("1.0", "2.0") for metric in ("accuracy", "f1")]
    worse = results[0].model_copy(update={"value": 0.1, "upper": 0.2})
    of_a_label = worse.model_copy(update={"version": "2.0", "label": "TEST"})
    settle(store, log, "intent", "quality", [worse, *results[1:], of_a_label], at=AT)
    settle(store, log, "intent", "quality", results, at=AT)
    assert log.types == ["quality_below_minimum", "quality_recovered"]


def test_fields_that_drift_together_are_one_event(tmp_path: Path) -> None:
    """One event names all fields that begin to drift at once; one that joins later is another."""
    store, log = DirectoryStore(tmp_path), Log()
    calm = [drift("input.c", psi=0.01, drifted=False)]
    settle(store, log, "intent", "drift", [drift("input.a"), drift("input.b"), *calm], at=AT)
    settle(store, log, "intent", "drift", [drift("input.a"), drift("input.b"), drift("input.c")], at=AT)
    ended = [drift(f"input.{name}", psi=0.05, drifted=False) for name in "abc"]
    settle(store, log, "intent", "drift", ended, at=AT)
    assert log.types == ["drifted", "drifted", "drift_ended"]
    fields = [[each["field"] for each in event.data["fields"]] for event in log.events.values()]
    assert fields == [["input.a", "input.b"], ["input.c"], ["input.a", "input.b", "input.c"]]


def test_quality_and_drift_do_not_undo_one_another(tmp_path: Path) -> None:
    """A look at drift leaves what is known of quality, and the other way round."""
    store, log = DirectoryStore(tmp_path), Log()
    settle(store, log, "intent", "quality", [BAD], at=AT)
    settle(store, log, "intent", "drift", [drift()], at=AT)
    settle(store, log, "intent", "quality", [BAD], at=AT)
    settle(store, log, "intent", "drift", [drift()], at=AT)
    assert log.types == ["quality_below_minimum", "drifted"]


def test_what_cannot_be_judged_goes_on_and_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    """A version of which nothing can be said stays drifted; one without results begins anew."""
    store, log = DirectoryStore(tmp_path), Log()
    settle(store, log, "intent", "drift", [drift()], at=AT)
    settle(store, log, "intent", "drift", [], at=AT, unjudged=["1.0"])
    settle(store, log, "intent", "drift", [drift()], at=AT)
    assert log.types == ["drifted"]
    settle(store, log, "intent", "drift", [], at=AT, unjudged=["2.0"])
    settle(store, log, "intent", "drift", [drift()], at=AT)
    assert log.types == ["drifted", "drifted"]


def test_an_event_that_could_not_be_raised_is_raised_by_the_next(tmp_path: Path) -> None:
    """Where events cannot be kept at the moment, the next look raises them, though the bound is kept again by then."""
    store, log = DirectoryStore(tmp_path), Log()
    log.away = True
    with pytest.raises(RegistryUnavailable):
        settle(store, log, "intent", "quality", [BAD], at=AT)
    log.away = False
    settle(store, log, "intent", "quality", [GOOD], at=AT)
    assert log.types == ["quality_below_minimum", "quality_recovered"]


class Killed(BaseException):
    """The process ended here."""


class Dying(DirectoryStore):
    """Ends the process before or after a write, now and then."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        super().__init__(root)
        self._chance = chance

    def create(self, key: str, data: bytes) -> str:
        return self._perhaps(lambda: DirectoryStore.create(self, key, data))

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        return self._perhaps(lambda: DirectoryStore.replace(self, key, data, etag=etag))

    def _perhaps(self, write: Callable[[], str]) -> str:
        if self._chance.random() < 0.2:
            raise Killed
        tag = write()
        if self._chance.random() < 0.2:
            raise Killed
        return tag


@pytest.mark.parametrize("seed", range(4))
def test_killed_anywhere_it_neither_loses_nor_doubles_one(tmp_path: Path, seed: int) -> None:
    """Killed before or after any write, the next look makes up for it: what was looked at to its end was told."""
    chance = random.Random(seed)
    store, log = Dying(tmp_path, chance), Log()
    for looked in range(40):
        result = chance.choice((GOOD, BAD))
        try:
            settle(store, log, "intent", "quality", [result], at=AT + timedelta(minutes=looked))
        except Killed:
            continue
        assert (log.types[-1:] == ["quality_below_minimum"]) is (result is BAD)
    assert len(log.types) > 5
    assert log.types == [("quality_below_minimum", "quality_recovered")[turn % 2] for turn in range(len(log.types))]


def test_two_at_once_make_one_event(tmp_path: Path) -> None:
    """Of two gateways that see the same breach at the same moment one writes it, and the other finds it written."""

    class Meeting(DirectoryStore):
        met = False

        def create(self, key: str, data: bytes) -> str:
            if not self.met:
                self.met = True
                settle(DirectoryStore(tmp_path), log, "intent", "quality", [BAD], at=AT)
            return super().create(key, data)

    log = Log()
    settle(Meeting(tmp_path), log, "intent", "quality", [BAD], at=AT)
    assert log.types == ["quality_below_minimum"]


def test_nothing_is_written_where_nothing_changes(tmp_path: Path) -> None:
    """A look that finds all as it was costs one read."""
    assert judge("intent", "quality", GateState(), [GOOD, UNCLEAR, FEW], at=AT) is None
    settle(DirectoryStore(tmp_path), Log(), "intent", "quality", [GOOD], at=AT)
    assert not (tmp_path / "gates").exists()
