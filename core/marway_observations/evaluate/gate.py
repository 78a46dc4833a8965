"""From figures to events: a bound that is breached is told once, and once more when it is kept again.

What is breached is remembered in the registry's store, `gates/<model>.json`, by compare-and-swap. A change is written
there first, together with the events that tell of it, and only then are they raised; whoever finds such events raises
them, which is harmless when it was done. So no gateway that is killed, or runs beside another for a moment, loses one
or makes two of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from pydantic import Field

from marway.errors import RegistryUnavailable
from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore
from marway.refs import new_ulid
from marway.registry.encoding import decode, encode
from marway.stored import Frozen
from marway_observations.evaluate.results import Drift, Kind, Quality, subjects_of
from marway_observations.events import Event
from marway_observations.events.event import DRIFT_ENDED, DRIFTED, QUALITY_BELOW_MINIMUM, QUALITY_RECOVERED

__all__ = ["Breach", "GateState", "breaches", "judge", "settle"]

_TRIES: Final = 8


class RaisesEvents(Protocol):
    """Where events go."""

    def raise_(self, event: Event) -> bool: ...


class Breach(Frozen):
    """A bound that is breached, since when."""

    since: datetime


class GateState(Frozen):
    """`gates/<model>.json`.

    Attributes:
        breached: What is breached, by its subject.
        unraised: Events of the last change that may not have been raised yet.
    """

    format: int = 1
    breached: Mapping[str, Breach] = Field(default_factory=dict)
    unraised: tuple[Event, ...] = ()


def breaches(results: Iterable[Quality]) -> tuple[Quality, ...]:
    """Return the results that surely breach their bound: what ends a rollout, and raises an event."""
    return tuple(each for each in results if each.standing == "breached")


def judge(
    model: str,
    kind: Kind,
    state: GateState,
    results: Sequence[Quality | Drift],
    *,
    at: datetime,
    unjudged: Collection[str] = (),
) -> GateState | None:
    """Return the state after an evaluation of all that is declared of a model, or None where nothing changed.

    What is breached stays so while it is unclear. What was breached and has no result any more, as no rule asks for it
    or nobody asks the version, is forgotten without an event.

    Args:
        model: Which model.
        kind: Which kind of results these are; what is breached of the other is left as it is.
        state: What was the case before.
        results: All that there are; of quality those of whole versions count, not those of single labels.
        at: When they were made.
        unjudged: Versions of which nothing can be said now: what was the case before goes on.
    """
    results = [each for each in results if isinstance(each, Drift) or each.label is None]
    kept = tuple(subjects_of(kind, version) for version in unjudged)
    standing = {each.subject: each.standing for each in results}
    breached = {
        subject: breach
        for subject, breach in state.breached.items()
        if not subject.startswith(f"{kind}/")
        or subject.startswith(kept)
        or standing.get(subject) in ("breached", "unclear", "too_few")
    }
    begun = [each for each in results if each.standing == "breached" and each.subject not in state.breached]
    ended = [each for each in results if each.standing == "met" and each.subject in state.breached]
    if breached.keys() == state.breached.keys() and not begun:
        return None
    breached.update({each.subject: Breach(since=at) for each in begun})
    events = (*_events(model, begun, at, begins=True), *_events(model, ended, at, begins=False))
    return GateState(breached=breached, unraised=(*state.unraised, *events))


def settle(
    store: ObjectStore,
    log: RaisesEvents,
    model: str,
    kind: Kind,
    results: Sequence[Quality | Drift],
    *,
    at: datetime,
    unjudged: Collection[str] = (),
) -> tuple[Event, ...]:
    """Remember what an evaluation of a model came to, raise what is to be told, and return it.

    Args:
        store: The registry's.
        log: Where events go.
        model: Which model.
        kind: Which kind of results these are.
        results: All that there are.
        at: When they were made.
        unjudged: Versions of which nothing can be said now.

    Raises:
        RegistryUnavailable: The store does not answer. The next evaluation finishes what was begun.
    """
    for _ in range(_TRIES):
        state, tag = _read(store, model)
        try:
            after = judge(model, kind, state, results, at=at, unjudged=unjudged)
            if after is not None:
                tag = _write(store, model, after, tag)
                state = after
            for event in state.unraised:
                log.raise_(event)
            if state.unraised:
                _write(store, model, state.model_copy(update={"unraised": ()}), tag)
        except (ObjectChanged, ObjectExists):
            continue  # another gateway's, which was stopped for a while, or is about to begin
        return state.unraised
    raise RegistryUnavailable(f"{_key(model)} changes faster than it can be written", model=model)


def _read(store: ObjectStore, model: str) -> tuple[GateState, str | None]:
    try:
        stored = store.get(_key(model))
    except ObjectMissing:
        return GateState(), None
    return decode(GateState, stored.data, source=_key(model)), stored.etag


def _write(store: ObjectStore, model: str, state: GateState, tag: str | None) -> str:
    data = encode(state, key=_key(model))
    return store.create(_key(model), data) if tag is None else store.replace(_key(model), data, etag=tag)


def _key(model: str) -> str:
    return f"gates/{model}.json"


def _events(model: str, results: Sequence[Quality | Drift], at: datetime, *, begins: bool) -> Iterator[Event]:
    """Yield an event for each figure, and one for all fields of a version: what drifts seldom drifts alone."""

    def event(kind: str, data: Mapping[str, Any]) -> Event:
        return Event(id=new_ulid(), type=kind, subject=model, time=at, data=data)

    fields: dict[tuple[str, str, str], list[Drift]] = {}
    for each in results:
        if isinstance(each, Drift):
            fields.setdefault((each.version, each.against, each.window), []).append(each)
        else:
            data = each.model_dump(mode="json", exclude={"label"})
            yield event(QUALITY_BELOW_MINIMUM if begins else QUALITY_RECOVERED, data)
    for (version, against, window), drifts in fields.items():
        moved = [each.model_dump(include={"field", "count", "psi", "ks", "psi_maximum"}) for each in drifts]
        yield event(
            DRIFTED if begins else DRIFT_ENDED,
            {"model": model, "version": version, "against": against, "window": window, "fields": moved},
        )
