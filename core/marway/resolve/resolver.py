"""From a reference to the version it stands for now, with no look-up in nearly all cases.

What never changes (records, and what a name or an id stands for) is cached for as long as it fits. A model's state is
cached for at most `state_ttl_s`, counted from before it was read, and is read again in the background from half that
time on, so that requests for a model in use never wait for it. While the registry does not answer, the last known
state serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from marway.errors import InvalidRecord, MarwayError, RegistryUnavailable
from marway.records import ModelState, Pointer, VersionRecord
from marway.refs import DEFAULT_LABEL, Reference, is_label, parse_reference
from marway.resolve.reader import LookUps, RegistryReader, keep
from marway.resolve.resolved import Divided, Resolved
from marway.traffic import Traffic

__all__ = ["Resolver"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _State:
    """A model's state as it was read, and the references that it has resolved so far."""

    model: str
    state: ModelState
    read_at: float
    refresh_at: float
    serve_until: float
    damage: str | None = None
    resolved: dict[tuple[str | None, str | None], Resolved] = field(default_factory=dict)


class Resolver:
    """Resolves references for one process. Not for use from several event loops.

    Args:
        reader: The registry.
        state_ttl_s: How old a state may be while the registry answers.
        state_max_stale_s: How old while it does not; None means no bound.
        negative_ttl_s: How long a "not found" is remembered.
        wait_s: How long one request waits for one look-up.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        reader: RegistryReader,
        *,
        state_ttl_s: float,
        state_max_stale_s: float | None,
        negative_ttl_s: float,
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._ttl_s = state_ttl_s
        self._max_stale_s = state_max_stale_s
        self._clock = clock
        self._pointers: OrderedDict[str, Pointer] = OrderedDict()
        self._records: OrderedDict[tuple[str, str], VersionRecord] = OrderedDict()
        self._states: OrderedDict[str, _State] = OrderedDict()
        self._lookups = LookUps(wait_s=wait_s, negative_ttl_s=negative_ttl_s, clock=clock)

    def lookup(self, name: str, selector: str | None) -> Resolved | None:
        """Return what the caches know, or None; neither waits nor raises."""
        pointer = self._pointers.get(name)
        entry = self._states.get(pointer.model) if pointer is not None else None
        if pointer is None or entry is None:
            return None
        self._pointers.move_to_end(name)
        self._states.move_to_end(pointer.model)
        now = self._clock()
        if now >= entry.refresh_at:
            if now >= entry.serve_until:
                return None
            self._refresh(pointer.model)
        return entry.resolved.get((pointer.version, selector))

    async def resolve(self, name: str, selector: str | None = None) -> Resolved:
        """Return what a model name or id, with a version, a label or neither, stands for.

        Raises:
            InvalidReference: It cannot be a reference.
            ModelNotFound, VersionNotFound, LabelNotFound: With a message that names what exists.
            RegistryUnavailable: The registry does not answer and nothing usable is known.
        """
        known = self.lookup(name, selector)
        if known is not None:
            return known
        reference = parse_reference(name if selector is None else f"{name}/{selector}")
        self._lookups.raise_if_absent(("model", name))
        self._lookups.raise_if_absent(("reference", name, selector or ""))
        pointer = await self._pointer(name)
        for _ in range(2):
            entry = await self._state(pointer.model)
            version, label = _choose(pointer, reference, entry.state)
            if version is not None:
                record = await self._record(pointer.model, version)
                resolved = Resolved(record, entry.state.serving_for(record), label, await self._divided(entry, label))
                entry.resolved[pointer.version, selector] = resolved
                return resolved
            # Either it does not exist, and the registry words that best, or it came after our state was read.
            await self._find(reference)
            self._states.pop(pointer.model, None)
        raise RegistryUnavailable(f"the state of model {pointer.model!r} changes while it is read: try again")

    async def _divided(self, entry: _State, label: str | None) -> Divided | None:
        """Return how a label's requests are divided; versions that were deleted get none."""
        traffic = entry.state.traffic.get(label) if label is not None else None
        if traffic is None:
            return None

        async def version(name: str | None) -> Resolved | None:
            if name is None or name in entry.state.tombstones:
                return None
            record = await self._record(entry.model, name)
            return Resolved(record, entry.state.serving_for(record), label)

        shadow = [(await version(rule.version), rule.percent) for rule in traffic.shadow]
        copies = tuple((resolved, percent) for resolved, percent in shadow if resolved is not None)
        return Divided(traffic, await version(traffic.candidate), copies)

    async def labels_of(self, model: str) -> dict[str, str]:
        """Return where the labels of a model point now, without those whose version is deleted.

        Raises:
            InvalidReference, ModelNotFound: There is no such model.
            InvalidRecord: Its state cannot be read.
            RegistryUnavailable: The registry does not answer and nothing usable is known.
        """
        parse_reference(model)
        state = (await self._state((await self._pointer(model)).model)).state
        return {label: version for label, version in state.labels.items() if version not in state.tombstones}

    async def traffic(self, model: str) -> Mapping[str, Traffic]:
        """Return how the labels of a model are divided now; those that are not, are not there.

        Raises:
            InvalidReference, ModelNotFound: There is no such model.
            InvalidRecord: Its state cannot be read.
            RegistryUnavailable: The registry does not answer and nothing usable is known.
        """
        return (await self._state((await self._pointer(model)).model)).state.traffic

    def labels(self, *, within_s: float, limit: int) -> list[tuple[str, str, str]]:
        """Return model, label and version of labels, those of the models used last first; neither waits nor raises.

        Args:
            within_s: States read longer ago are left out: nobody uses the model, and its labels may have moved.
            limit: The most that are returned.
        """
        since = self._clock() - within_s
        found: list[tuple[str, str, str]] = []
        for entry in reversed(self._states.values()):
            if entry.read_at >= since:
                found += [(entry.model, label, version) for label, version in entry.state.labels.items()]
            if len(found) >= limit:
                break
        return found[:limit]

    async def refresh(self, model: str) -> None:
        """Read a model's state again, after a change of it, so that requests here see the change from now on.

        With the registry away the last known state serves on, as ever.
        """
        running = self._lookups.running(("state", model))
        if running is not None:
            await asyncio.wait({running})  # it may have read before the change; a later one has not
        self._lookups.forget_absent()
        with contextlib.suppress(MarwayError):
            await self._lookups.once(("state", model), lambda: self._read_state(model))

    async def aclose(self) -> None:
        """Cancel look-ups that run."""
        await self._lookups.aclose()

    # -- what never changes --------------------------------------------------------------------------------

    async def _pointer(self, name: str) -> Pointer:
        pointer = self._pointers.get(name)
        if pointer is not None:
            return pointer

        def find() -> Pointer:
            registry = self._reader.registry
            found = registry.pointer(name)
            if found is None:
                registry.resolve(Reference(name))  # raises, naming what exists, unless it was published just now
                found = registry.pointer(name)
            if found is None:
                raise RegistryUnavailable(f"the registry changes while {name!r} is looked up: try again")
            return found

        pointer = await self._lookups.once(("model", name), lambda: self._reader.call(find))
        keep(self._pointers, name, pointer)
        return pointer

    async def _record(self, model: str, version: str) -> VersionRecord:
        record = self._records.get((model, version))
        if record is None:
            self._lookups.raise_if_absent(("record", model, version))
            read = self._reader.registry.record
            record = await self._lookups.once(
                ("record", model, version), lambda: self._reader.call(read, model, version)
            )
            if record.training.features:  # up to 80 KiB of memory a version, of which predictions need nothing
                training = record.training.model_copy(update={"features": {}})
                record = record.model_copy(update={"training": training})
            keep(self._records, (model, version), record)
        return record

    # -- state ---------------------------------------------------------------------------------------------

    async def _state(self, model: str) -> _State:
        entry = self._states.get(model)
        if entry is not None and self._clock() < entry.serve_until:
            return entry
        try:
            return await self._lookups.once(("state", model), lambda: self._read_state(model))
        except (RegistryUnavailable, InvalidRecord):
            if entry is None or not self._serve_stale(entry):
                raise
            return entry

    def _refresh(self, model: str) -> None:
        """Read a state again in the background, if that is not happening already."""
        if self._lookups.running(("state", model)) is None:
            self._lookups.start(("state", model), lambda: self._read_state(model))

    async def _read_state(self, model: str) -> _State:
        # The age counts from before the read: a label moved while it ran is honoured in time as well.
        read_at = self._clock()
        known = self._states.get(model)
        try:
            state = await self._reader.call(self._reader.registry.state, model)
        except (RegistryUnavailable, InvalidRecord) as exc:
            if known is not None:
                self._serve_stale(known)
                if isinstance(exc, InvalidRecord) and exc.message != known.damage:
                    _log.error("the last good state of model %s serves: %s", model, exc.message)
                    known.damage = exc.message
            raise
        entry = _State(
            model,
            state.model_copy(update={"history": ()}),  # large, and of no use here
            read_at,
            refresh_at=read_at + self._ttl_s / 2,
            serve_until=read_at + self._ttl_s,
        )
        if known is not None and known.state.generation == state.generation:
            entry.resolved = known.resolved
        keep(self._states, model, entry)
        return entry

    def _serve_stale(self, entry: _State) -> bool:
        """Let an old state serve a while longer, and return whether its bound allows that."""
        now = self._clock()
        last = None if self._max_stale_s is None else entry.read_at + self._max_stale_s
        if last is not None and now >= last:
            return False
        entry.serve_until = now + self._ttl_s if last is None else min(now + self._ttl_s, last)
        entry.refresh_at = min(now + self._ttl_s / 2, entry.serve_until)
        return True

    # -- look-ups ------------------------------------------------------------------------------------------

    async def _find(self, reference: Reference) -> None:
        """Raise the registry's own "not found" for a reference, unless it exists by now."""
        resolve = self._reader.registry.resolve
        key = ("reference", reference.name, reference.selector or "")
        await self._lookups.once(key, lambda: self._reader.call(resolve, reference))


def _choose(pointer: Pointer, reference: Reference, state: ModelState) -> tuple[str | None, str | None]:
    """Return the version that a state gives a reference, and the label that led to it; None for no version."""
    if pointer.kind == "id":
        version, label = (pointer.version if reference.selector is None else None), None
    elif reference.selector is None or is_label(reference.selector):
        label = reference.selector or DEFAULT_LABEL
        version = state.labels.get(label)
    else:
        version, label = reference.selector, None
    return (None if version in state.tombstones else version), label
