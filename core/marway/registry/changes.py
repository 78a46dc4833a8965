"""Changes of a model's state by compare-and-swap, each applied once or known not to be."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from marway.errors import InvalidInput, StateConflict
from marway.objects import ObjectChanged, ObjectExists
from marway.records import HistoryEntry, ModelState, encode_state, utc_now
from marway.refs import new_ulid
from marway.registry import history, keys
from marway.registry.reading import Reading

__all__ = ["Change", "Changing"]

MAX_NOTE: Final = 1000
"""Characters of a note or a name in the history, which all readers of the state carry about."""
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
    ) -> Change:
        """Apply ``change`` to the stored state, over and over until it is written or refused.

        Args:
            name: The model, as it is written.
            change: Gets the state and ``entry`` with its generation; returns both changed. Raises to refuse.
            entry: What to say in the history.

        Raises:
            StateConflict: Others changed the state all the time; this change was not made.
            OutcomeUnknown: The write's fate could not be found out.
        """
        for what, text in (("note", entry.note), ("name", entry.by)):
            if text is not None and len(text) > MAX_NOTE:
                raise InvalidInput(f"the {what} has {len(text)} characters; at most {MAX_NOTE} are kept", model=name)
        key = keys.state_key(name)
        deadline = time.monotonic() + _GIVE_UP_S
        limit = _BACKOFF_S
        since: int | None = None
        while True:
            with self._store.turn(key):
                before, etag = self._state_and_tag(name)
                since = before.generation if since is None else since
                if (mine := history.applied(self._store, name, before, op_id=entry.op_id, since=since)) is not None:
                    return Change(before, mine)  # our own write, whose reply was lost
                generation = before.generation + 1
                after, said = change(before, entry.model_copy(update={"generation": generation}))
                after = after.model_copy(update={"generation": generation, "history": (*before.history, said)})
                after = history.spilled(self._store, name, after)
                try:
                    if etag is None:
                        self._store.create(key, encode_state(after))
                    else:
                        self._store.replace(key, encode_state(after), etag=etag)
                except (ObjectChanged, ObjectExists):
                    pass
                else:
                    return Change(after, said)
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

    @staticmethod
    def _entry(*, by: str, **facts: object) -> HistoryEntry:
        return HistoryEntry.model_validate({"generation": 0, "op_id": new_ulid(), "at": utc_now(), "by": by, **facts})
