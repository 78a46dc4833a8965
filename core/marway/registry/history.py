"""A model's history, and what one reader has seen of it: generations only grow, and each is one change for ever.

The newest entries are in the model's state, older ones in create-only chunks.

A chunk holds the entries of `CHUNK` consecutive generations and is named by the first of them, so that whoever writes
it writes the same. It is written before the state that no longer holds its entries: no reader ever misses one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from marway.errors import InvalidRecord, RegistryUnavailable
from marway.objects import ObjectExists, ObjectMissing, ObjectStore
from marway.records import HistoryChunk, HistoryEntry, ModelState
from marway.registry import keys
from marway.registry.encoding import decode, encode

__all__ = ["CHUNK", "SeenStates", "applied", "newest_first", "spilled"]

CHUNK: Final = 100
"""Generations a chunk; a state holds fewer than twice as many entries."""
_SEEN_MAX: Final = 20_000
"""Models remembered, those read last; some hundred bytes each."""


def newest_first(store: ObjectStore, name: str, state: ModelState) -> Iterator[HistoryEntry]:
    """Yield all entries, newest first."""
    yield from reversed(state.history)
    oldest = state.history[0].generation if state.history else state.generation + 1
    for first in range(_first_of(oldest - 1), 0, -CHUNK):
        for entry in reversed(_chunk(store, name, first)):
            if entry.generation < oldest:
                yield entry


def applied(store: ObjectStore, name: str, state: ModelState, *, op_id: str, since: int) -> HistoryEntry | None:
    """Return the entry with ``op_id`` if it is in the history behind generation ``since``."""
    for entry in newest_first(store, name, state):
        if entry.op_id == op_id:
            return entry
        if entry.generation <= since:
            return None
    return None


def spilled(store: ObjectStore, name: str, state: ModelState) -> ModelState:
    """Return the state with its oldest entries moved to a chunk, if it has enough of them."""
    if len(state.history) < 2 * CHUNK:
        return state
    first = _first_of(state.history[0].generation)
    old = tuple(entry for entry in state.history if entry.generation < first + CHUNK)
    chunk = HistoryChunk(entries=old)
    try:
        store.create(keys.chunk_key(name, first), encode(chunk, key=keys.chunk_key(name, first)))
    except ObjectExists as exc:
        there = _chunk(store, name, first)
        if [entry.op_id for entry in there] != [entry.op_id for entry in old]:
            raise InvalidRecord(
                f"{keys.chunk_key(name, first)} and the state of model {name!r} tell different histories: one of them "
                "was restored or changed by hand",
                model=name,
            ) from exc
    return state.model_copy(update={"history": state.history[len(old) :]})


def _first_of(generation: int) -> int:
    """Return the first generation of the chunk that ``generation`` (from 1) belongs to."""
    return (generation - 1) // CHUNK * CHUNK + 1


def _chunk(store: ObjectStore, name: str, first: int) -> tuple[HistoryEntry, ...]:
    key = keys.chunk_key(name, first)
    try:
        return decode(HistoryChunk, store.get(key).data, source=key).entries
    except ObjectMissing:
        return ()


@dataclass(frozen=True, slots=True)
class _Seen:
    generation: int
    op_id: str | None


class SeenStates:
    """Remembers the newest generation of each model that was read. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: OrderedDict[str, _Seen] = OrderedDict()

    def before(self, name: str) -> _Seen | None:
        """Return what is known of a model before its state is read again: others may overtake a slow read."""
        with self._lock:
            return self._newest.get(name)

    def check(self, name: str, state: ModelState, before: _Seen | None) -> None:
        """Remember a state that was read, unless it cannot be what came of the one that was known ``before``.

        Raises:
            RegistryUnavailable: There is no state any more.
            InvalidRecord: It is older than one that was read, or has another history.
        """
        if before is not None:
            _compare(name, state, before)
        if state.generation == 0:
            return
        with self._lock:
            known = self._newest.get(name)
            if known is None or known.generation < state.generation:
                self._newest[name] = _Seen(state.generation, _op_id(state, state.generation))
                self._newest.move_to_end(name)
                if len(self._newest) > _SEEN_MAX:
                    self._newest.popitem(last=False)


def _compare(name: str, state: ModelState, before: _Seen) -> None:
    if state.generation == 0:
        # A state never goes away again: the directory is not mounted, or was emptied under us.
        raise RegistryUnavailable(f"the state of model {name!r} vanished from the registry", model=name)
    if state.generation < before.generation:
        raise InvalidRecord(
            f"models/{name}/state.json is of generation {state.generation}, and {before.generation} was read before: "
            "an old state was put back, and acknowledged changes are missing from it; put the newest back, or "
            "restart what refuses it if the old one is meant",
            model=name,
        )
    op_id = _op_id(state, before.generation)
    if op_id is not None and before.op_id is not None and op_id != before.op_id:
        raise InvalidRecord(
            f"models/{name}/state.json has another change {before.generation} than was read before: an old state was "
            "put back and changed, and acknowledged changes are missing from it; `marway history` shows what is left; "
            "restart what refuses it if that is meant",
            model=name,
        )


def _op_id(state: ModelState, generation: int) -> str | None:
    """Return the op_id of one generation, if the state itself tells of it."""
    if not state.history:
        return None
    index = generation - state.history[0].generation
    if not 0 <= index < len(state.history) or state.history[index].generation != generation:
        return None
    return state.history[index].op_id
