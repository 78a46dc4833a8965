"""What one reader has seen of a model's state: generations only grow, and each is one change for ever."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from marway.errors import InvalidRecord, RegistryUnavailable
from marway.records import ModelState

__all__ = ["SeenStates"]

_MODELS_MAX: Final = 20_000
"""Models remembered, those read last; some hundred bytes each."""


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
                if len(self._newest) > _MODELS_MAX:
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
