"""A model's history: the newest entries in its state, older ones in create-only chunks.

A chunk holds the entries of `CHUNK` consecutive generations and is named by the first of them, so that whoever writes
it writes the same. It is written before the state that no longer holds its entries: no reader ever misses one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from marway.errors import InvalidRecord
from marway.objects import ObjectExists, ObjectMissing, ObjectStore
from marway.records import HistoryChunk, HistoryEntry, ModelState
from marway.registry import keys
from marway.registry.encoding import decode, encode

__all__ = ["CHUNK", "applied", "newest_first", "spilled"]

CHUNK: Final = 100
"""Generations a chunk; a state holds fewer than twice as many entries."""


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
