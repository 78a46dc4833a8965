"""Changes of a model's state by compare-and-swap, each applied once or known not to be."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from marway.errors import InvalidInput, StateConflict, clip
from marway.objects import ObjectChanged, ObjectExists
from marway.proofs.origins import CopyOrigin
from marway.records import HistoryEntry, ModelState, ServingChange, utc_now
from marway.refs import new_ulid
from marway.registry import history, keys
from marway.registry.encoding import encode
from marway.registry.reading import Reading
from marway.traffic import RolloutChange

__all__ = ["Change", "Changing"]

MAX_NOTE: Final = 1000
"""Characters of a note or a name in the history, which all readers of the state carry about."""
_OP_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_GIVE_UP_S: Final = 120.0
_BACKOFF_S: Final = 0.05
_BACKOFF_MAX_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Change:
    """An acknowledged change: the state as it was written, or as it is by now, and the history's entry."""

    state: ModelState
    entry: HistoryEntry


class Changing(Reading):
    """Changes states."""

    def _change(
        self,
        name: str,
        change: Callable[[ModelState, HistoryEntry], tuple[ModelState, HistoryEntry]],
        entry: HistoryEntry,
        *,
        new_op: bool = True,
    ) -> Change:
        """Apply ``change`` to the stored state, over and over until it is written or refused.

        Args:
            name: The model, as it is written.
            change: Gets the state and ``entry`` with its generation; returns both changed. Raises to refuse.
            entry: What to say in the history.
            new_op: Whether nobody can have used the entry's op_id before; else it is looked for in the history that
                the state holds (at least the newest 100 changes), and a change found there is not made again.

        Raises:
            InvalidInput: The op_id belongs to another change.
            StateConflict: Others changed the state all the time; this change was not made.
            OutcomeUnknown: The write's fate could not be found out.
            RegistryUnavailable: The registry is not there, or cannot be written.
        """
        for what, text in (("note", entry.note), ("name", entry.by)):
            if text is not None and len(text) > MAX_NOTE:
                raise InvalidInput(f"the {what} has {len(text)} characters; at most {MAX_NOTE} are kept", model=name)
        key = keys.state_key(name)
        deadline = time.monotonic() + _GIVE_UP_S
        limit = _BACKOFF_S
        since: int | None = None
        self.check_there()
        while True:
            with self._store.advisory_lock(key):
                before, etag = self._state_and_tag(name)
                if since is None:
                    since = before.generation if new_op else _oldest(before)
                if (mine := history.applied(self._store, name, before, op_id=entry.op_id, since=since)) is not None:
                    _check_same(name, mine, entry)
                    return Change(before, mine)  # our own write, whose reply was lost
                generation = before.generation + 1
                after, made = change(before, entry.model_copy(update={"generation": generation}))
                after = after.model_copy(update={"generation": generation, "history": (*before.history, made)})
                after = history.spilled(self._store, name, after)
                try:
                    if etag is None:
                        self._store.create(key, encode(after, key=key))
                    else:
                        self._store.replace(key, encode(after, key=key), etag=etag)
                except (ObjectChanged, ObjectExists):
                    pass
                else:
                    return Change(after, made)
            if time.monotonic() > deadline:
                # The last write may have been done in spite of its refusal.
                now = self.state(name)
                if (mine := history.applied(self._store, name, now, op_id=entry.op_id, since=since)) is not None:
                    return Change(now, mine)
                raise StateConflict(
                    f"others changed model {name!r} all the time for {_GIVE_UP_S:.0f} s: nothing was changed",
                    model=name,
                )
            time.sleep(random.uniform(0, limit))  # full jitter: losers must not meet again
            limit = min(_BACKOFF_MAX_S, limit * 2)

    def note_copy(
        self, name: str, version: str, origin: CopyOrigin, *, note: str | None = None, by: str, op_id: str | None = None
    ) -> Change:
        """Say in the history of a model that a version was copied here, and where from; nothing else is changed."""

        def unchanged(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            return state, entry

        what = ServingChange(version=version)
        entry = self._entry(by=by, op_id=op_id, kind="serving", serving=what, copied=origin, note=note)
        return self._change(name, unchanged, entry, new_op=op_id is None)

    @staticmethod
    def _entry(*, by: str, op_id: str | None, **facts: object) -> HistoryEntry:
        if op_id is not None and not _OP_ID.fullmatch(op_id):
            raise InvalidInput(f"{clip(op_id, 80)!r} cannot be an op_id: use 1 to 64 letters, digits, '_' or '-'")
        known = {"generation": 0, "op_id": op_id or new_ulid(), "at": utc_now(), "by": by}
        return HistoryEntry.model_validate({**known, **facts})


def _oldest(state: ModelState) -> int:
    """Return the generation before the oldest one that the state itself tells of."""
    return state.history[0].generation - 1 if state.history else state.generation


def _check_same(model: str, done: HistoryEntry, wanted: HistoryEntry) -> None:
    """Refuse an op_id that stands for another change."""
    same = _asked(done) == _asked(wanted)
    if wanted.kind == "rollback" and wanted.to_version is not None:
        same = same and done.to_version == wanted.to_version
    if done.rollout is not None:
        same = done.label == wanted.label and _same_of_rollout(done.rollout, wanted)
    if not same:
        raise InvalidInput(
            f"the op_id {wanted.op_id!r} was used for another change of {model!r}: use a new one for each change",
            model=model,
        )


def _asked(entry: HistoryEntry) -> tuple[object, ...]:
    """Return what a change asked for; where a label was, and what a rollback found, only its answer says."""
    if entry.protection is not None or entry.contract is not None:
        return entry.kind, entry.label, entry.protection or entry.contract
    what = {"label": entry.to_version, "tombstone": entry.from_version, "serving": entry.serving}.get(entry.kind)
    return entry.kind, entry.label, what, entry.rollout


def _same_of_rollout(done: RolloutChange, wanted: HistoryEntry) -> bool:
    """Return whether a change of a rollout is what was asked for. A rollback rolls back a rollout that runs, the last
    step promotes, and who asks again to start one gives it another id.
    """
    asked = wanted.rollout
    if asked is None:
        return wanted.kind == "rollback" and done.action == "roll_back"
    named = asked.action == "start" or asked.id in (None, done.id)
    actions = ("step", "promote", "pause") if asked.action == "step" else (asked.action,)
    return named and done.action in actions and asked.candidate in (None, done.candidate)
