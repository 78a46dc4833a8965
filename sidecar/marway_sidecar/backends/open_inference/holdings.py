"""What a server holds memory for, by its index, and when it has given that back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from marway.deadline import Deadline
from marway.errors import MarwayError, RuntimeDown
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.open_inference.wire import Indexed, Known, Refused, Wire
from marway_sidecar.errors import about

__all__ = ["Holdings", "ready"]

_HELD: Final = frozenset({"READY", "LOADING", "UNLOADING"})
"""States in which a server holds memory for a version."""
_LOOK_S: Final = 0.01
_LOOK_MAX_S: Final = 0.25
"""How often it is looked whether a version is gone: more and more seldom, up to this."""
_UNLOAD_GRACE_S: Final = 30.0


class Holdings:
    """Looks at one server.

    Args:
        management: The way to it.
        known: The versions that are served, by their names here; for a server without an index, which only others have.
        managed: Whether models are loaded and unloaded there.
    """

    def __init__(self, management: Wire, known: Mapping[str, Known], *, managed: bool) -> None:
        self._management = management
        self._known = known
        self._managed = managed

    async def given_back(self, model: ServedModel, called: str) -> None:
        """Unload a model and return once the server has given back all that it held for it.

        Raises:
            MarwayError: It does not, within the time that its calls may take.
        """
        if called not in await self.held():
            return
        try:
            await self._management.unload(called)
        except Refused as exc:
            if called in await self.held():
                message = f"the model server would not unload {model.name} {model.version}: {exc.text}"
                raise about(model, MarwayError(message)) from exc
        deadline, pause_s = Deadline.after(model.predict_timeout_s + _UNLOAD_GRACE_S), _LOOK_S
        while called in await self.held():
            if deadline.left_s() <= 0:
                message = f"the model server has not given back {model.name} {model.version}: a call still runs in it"
                raise about(model, MarwayError(message))
            await asyncio.sleep(pause_s)
            pause_s = min(_LOOK_MAX_S, pause_s * 2)

    async def held(self, *, timeout_s: float | None = None) -> Mapping[str, Sequence[Indexed]]:
        """Return which models take memory in the server, by name."""
        try:
            options = {"timeout_s": timeout_s} if timeout_s is not None else {}
            index = await self._management.index(**options)
        except Refused as exc:
            if not self._managed:
                return await self._asked_one_by_one()
            message = f"the model server has no model repository that can be asked ({exc.text}): "
            raise RuntimeDown(f"{message}start it with one, or set open_inference_manage = false") from exc
        return {name: found for name, found in index.items() if any(each.state in _HELD for each in found)}

    async def _asked_one_by_one(self) -> Mapping[str, Sequence[Indexed]]:
        """Return which of the versions that are served a server without an index has."""
        found: dict[str, list[Indexed]] = defaultdict(list)
        for known in list(self._known.values()):
            if await self._management.metadata(known.called, known.number) is not None:
                found[known.called].append(Indexed(known.number, "READY", ""))
        return found


def ready(held: Mapping[str, Sequence[Indexed]], known: Known) -> bool:
    entries = held.get(known.called, ())
    return any(each.state == "READY" and known.number in ("", each.version) for each in entries)
