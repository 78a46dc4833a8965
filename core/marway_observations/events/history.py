"""Events of what the histories of models tell: releases, rollouts, rollbacks and deletions, whoever made them.

Each model has a cursor, up to which its history was looked through. It is moved when all before it is raised, so that
nothing is missed when that is interrupted, or while no gateway runs. Models that were there before the first look
begin where they are then: what happened before anybody wanted events is history.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from marway.objects import ObjectChanged, ObjectExists, ObjectMissing
from marway.protection.labels import ProtectionChange
from marway.records import HistoryEntry
from marway.registry import Registry
from marway.registry.encoding import decode, encode
from marway.registry.keys import state_key
from marway.stored import Frozen
from marway.traffic import RolloutAction, RolloutChange
from marway_observations.events.event import (
    APPROVAL_ASKED,
    APPROVAL_GIVEN,
    DELETED,
    RELEASED,
    ROLLED_BACK,
    ROLLOUT_ABORTED,
    ROLLOUT_PAUSED,
    ROLLOUT_PROMOTED,
    ROLLOUT_RESUMED,
    ROLLOUT_ROLLED_BACK,
    ROLLOUT_STARTED,
    ROLLOUT_STEP,
    Event,
)
from marway_observations.events.log import EVENTS, EventLog

__all__ = ["HistoryEvents", "events_of"]

_CURSORS_MADE: Final = f"{EVENTS}cursors-made.json"
_TYPES: Final = {"label": RELEASED, "rollback": ROLLED_BACK, "tombstone": DELETED}
_OF_PROTECTION: Final = {"ask": APPROVAL_ASKED, "approve": APPROVAL_GIVEN}
_OF_ROLLOUTS: Final[Mapping[RolloutAction, str]] = {
    "start": ROLLOUT_STARTED,
    "step": ROLLOUT_STEP,
    "pause": ROLLOUT_PAUSED,
    "resume": ROLLOUT_RESUMED,
    "promote": ROLLOUT_PROMOTED,
    "roll_back": ROLLOUT_ROLLED_BACK,
    "abort": ROLLOUT_ABORTED,
}
_log = logging.getLogger(__name__)


class Cursor(Frozen):
    """`events/cursors/<model>.json`: up to which generation a model's history was looked through."""

    format: int = 1
    generation: int


class CursorsMade(Frozen):
    """That every model of before has a cursor: one that has none is new, and is looked through from its beginning."""

    format: int = 1


def events_of(model: str, entry: HistoryEntry) -> Iterator[Event]:
    """Yield the events of a change of a model; none where it is of no interest to others, such as how it is served."""
    if entry.protection is not None:
        event = _event_of_protection(model, entry, entry.protection)
        if event is not None:
            yield event
        return
    if entry.rollout is not None:
        yield from _events_of_rollout(model, entry, entry.rollout)
        if entry.rollout.action != "promote":
            return  # the label stays
    kind = _TYPES.get(entry.kind)
    if kind is None:
        return
    version, previous = entry.to_version, entry.from_version
    if kind == DELETED:
        version, previous = entry.from_version, None
    yield _event(
        model,
        entry,
        kind,
        version=version,
        **({} if kind == DELETED else {"label": entry.label, "previous_version": previous}),
        forced=entry.forced,
        **({"approved_by": list(entry.approved_by)} if entry.approved_by else {}),
    )


def _events_of_rollout(model: str, entry: HistoryEntry, done: RolloutChange) -> Iterator[Event]:
    kind = _OF_ROLLOUTS.get(done.action)
    if kind is None:
        return  # weights move all the time, and shadow copies are nobody else's matter
    event = _event(
        model,
        entry,
        kind,
        version=done.candidate,
        label=entry.label,
        base=entry.from_version,
        rollout=done.id,
        step=done.step,
        percent=done.percent,
        guard=done.guard,
        reason=done.reason,
        forced=entry.forced,
    )
    # A promotion is a release as well, which has the plain id.
    yield event.model_copy(update={"id": f"{event.id}-promoted"}) if done.action == "promote" else event


def _event(model: str, entry: HistoryEntry, kind: str, **facts: Any) -> Event:
    known = {"generation": entry.generation, "by": entry.by, "note": entry.note}
    return Event(
        id=f"{model}-{entry.generation}",
        type=kind,
        subject=model,
        time=entry.at,
        data={"model": model, **facts, **known},
    )


def _event_of_protection(model: str, entry: HistoryEntry, done: ProtectionChange) -> Event | None:
    kind = _OF_PROTECTION.get(done.action)
    if kind is None:
        return None  # what a label asks for is nobody else's matter until somebody is asked
    return _event(model, entry, kind, version=done.version, label=entry.label, current_version=entry.from_version)


class HistoryEvents:
    """Raises the events of histories. Methods block; one thread at a time calls them.

    Args:
        registry: Whose models.
        log: Where to.
    """

    def __init__(self, registry: Registry, log: EventLog) -> None:
        self._registry = registry
        self._store = registry.store
        self._log = log
        self._looked: dict[str, str] = {}  # the tag of each state that was looked through
        self._began: bool | None = None

    def models(self) -> Iterable[str]:
        """Return the models to look at, lazily."""
        return self._registry.models()

    def look(self, model: str) -> int:
        """Raise what happened to a model since its history was looked through, and return how many events that were.

        Raises:
            InvalidRecord: Its state or its cursor is damaged.
            RegistryUnavailable: The registry cannot be read or written: nothing is missed, look again.
        """
        tag = self._store.tag(state_key(model))
        if tag is None or tag == self._looked.get(model):
            return 0
        cursor, cursor_tag = self._cursor(model)
        generation = self._registry.state(model).generation
        new = []
        if cursor is None and not self.began():
            pass  # it was there before the first look
        elif cursor is not None and generation < cursor.generation:
            _log.warning(
                "the history of model %r ends with change %d, and %d was seen before: an old state was put back; "
                "events go on from there",
                *(model, generation, cursor.generation),
            )
        else:
            new = self._new(model, 0 if cursor is None else cursor.generation)
            generation = new[-1].generation if new else generation
        raised = sum(self._log.raise_(event) for entry in new for event in events_of(model, entry))
        if cursor is None or cursor.generation != generation:
            self._move(model, Cursor(generation=generation), cursor_tag)
        self._looked[model] = tag
        return raised

    def began(self) -> bool:
        """Return whether all models were looked at once, so that one without a cursor is new."""
        if not self._began:
            self._began = self._store.size(_CURSORS_MADE) is not None
        return self._began

    def begin(self) -> None:
        """Say that all models were looked at once."""
        with contextlib.suppress(ObjectExists):
            self._store.create(_CURSORS_MADE, encode(CursorsMade(), key=_CURSORS_MADE))

    def _new(self, model: str, seen: int) -> list[HistoryEntry]:
        """Return the changes of a model after those that were seen, oldest first."""
        found: list[HistoryEntry] = []
        for entry in self._registry.history(model):
            if entry.generation <= seen:
                break
            found.append(entry)
        return found[::-1]

    def _cursor(self, model: str) -> tuple[Cursor | None, str | None]:
        key = _cursor_key(model)
        try:
            stored = self._store.get(key)
        except ObjectMissing:
            return None, None
        return decode(Cursor, stored.data, source=key), stored.etag

    def _move(self, model: str, cursor: Cursor, tag: str | None) -> None:
        key = _cursor_key(model)
        with contextlib.suppress(ObjectChanged, ObjectExists):  # another gateway looked as well, and raised the same
            if tag is None:
                self._store.create(key, encode(cursor, key=key))
            else:
                self._store.replace(key, encode(cursor, key=key), etag=tag)


def _cursor_key(model: str) -> str:
    return f"{EVENTS}cursors/{model}.json"
