"""What can be asked of the registry."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from marway.errors import InvalidRecord, LabelNotFound, MarwayError, ModelNotFound, VersionNotFound
from marway.objects import ObjectMissing, ObjectStore
from marway.objects.probing import probe
from marway.records import HistoryEntry, ModelState, Pointer, VersionRecord
from marway.refs import DEFAULT_LABEL, Reference, is_label
from marway.registry import history, keys
from marway.registry.base import RegistryBase
from marway.registry.encoding import decode
from marway.text import did_you_mean

__all__ = ["ModelSummary", "Reading"]

_READ_AHEAD: Final = 16
_KNOWN_MAX: Final = 10_000
_LISTED_MAX: Final = 10
_COMPARED_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One model as a list shows it; deleted versions are left out.

    Attributes:
        name: Its name.
        state: Its state; an empty one when that is damaged.
        versions: Its versions, in the order of their names.
        damage: Why the state cannot be read, or None.
    """

    name: str
    state: ModelState
    versions: tuple[str, ...]
    damage: str | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether it had versions, all of which are deleted."""
        return not self.versions and bool(self.state.tombstones)


class Reading(RegistryBase):
    """Reads models, versions and labels.

    What is read is checked: a document against its own digest and key, golden answers against theirs, a state against
    what this reader has seen of it.

    Args:
        store: Where the objects are.
        must_exist: As `RegistryBase` takes it.
    """

    def __init__(self, store: ObjectStore, *, must_exist: bool = False) -> None:
        super().__init__(store, must_exist=must_exist)
        self._published: set[tuple[str, str]] = set()
        self._seen = history.SeenStates()

    def probe(self) -> None:
        """Check that the store keeps concurrent writers apart; see `marway.objects.probing`."""
        probe(self._store)

    def models(self, *, start_after: str = "") -> Iterator[str]:
        """Yield the names of all models, or of those behind ``start_after``, in order, lazily."""
        return self._store.children(keys.MODELS, start_after=start_after)

    def summaries(self, *, start_after: str = "") -> Iterator[ModelSummary]:
        """Yield all models with their states and versions, in order, reading only a few ahead of the caller.

        One whose versions are all deleted is passed over: its name can be used, and its history is asked for by name.
        """
        names = self.models(start_after=start_after)
        waiting: deque[Future[ModelSummary]] = deque()
        with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="summaries") as threads:
            try:
                for name in names:
                    waiting.append(threads.submit(self.summary, name))
                    if len(waiting) >= _READ_AHEAD and not (found := waiting.popleft().result()).is_deleted:
                        yield found
                while waiting:
                    if not (found := waiting.popleft().result()).is_deleted:
                        yield found
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def summary(self, name: str) -> ModelSummary:
        """Return one model as a list shows it; a damaged state is part of it and not raised, as others are well."""
        damage = None
        try:
            state = self.state(name)
        except InvalidRecord as exc:
            state, damage = ModelState(), exc.message
        return ModelSummary(name, state, self._left(name, state), damage)

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a model, in the order of their names; empty when there is no such model."""
        prefix = keys.records_prefix(name)
        return tuple(key.removeprefix(prefix).removesuffix(".json") for key in self._store.keys(prefix))

    def pointer(self, id_or_name: str) -> Pointer | None:
        """Return what an id or a model name stands for, or None. Names match whatever their case, ids as they are."""
        for name in dict.fromkeys((id_or_name, id_or_name.lower())):
            key = keys.pointer_key(name)
            try:
                pointer = self._read(Pointer, key)
            except ObjectMissing:
                continue
            if pointer.kind == "name" and pointer.model.lower() != name:
                raise InvalidRecord(f"{key} is damaged: it is what the name {pointer.model!r} stands for")
            if pointer.kind == "name" or id_or_name == name == (pointer.id or name):
                return pointer
        return None

    def record(self, name: str, version: str) -> VersionRecord:
        """Return a version's record.

        Raises:
            VersionNotFound: The model has no such version; the message names those it has.
            InvalidRecord: It is damaged, or another version's.
        """
        key = keys.record_key(name, version)
        try:
            record = self._read(VersionRecord, key)
        except ObjectMissing as exc:
            raise self._no_version(name, version) from exc
        if (record.name, record.version) != (name, version):
            raise InvalidRecord(
                f"{key} is damaged: it holds the record of {record.name} {record.version}", model=name, version=version
            )
        return record

    def state(self, name: str) -> ModelState:
        """Return a model's state; a model without one has no labels yet.

        Raises:
            InvalidRecord: It is damaged, or older than one that was read before.
            RegistryUnavailable: It cannot be read, or was there before and is not now.
        """
        return self._state_and_tag(name)[0]

    def history(self, name: str) -> Iterator[HistoryEntry]:
        """Yield all acknowledged changes of a model's state, newest first; older ones are read when wanted."""
        return history.newest_first(self._store, name, self.state(name))

    def find(self, name: str) -> str:
        """Return a model's name as it is written, from one in any case.

        Raises:
            ModelNotFound: There is none; the message names some that there are.
        """
        pointer = self.pointer(name)
        if pointer is None:
            raise self._no_model(name)
        if pointer.kind != "name":
            raise self._no_model(name, f" ({name!r} is the id of {pointer.model} {pointer.version})")
        return pointer.model

    def resolve(self, reference: Reference) -> VersionRecord:
        """Return the version that ``reference`` stands for now.

        Raises:
            ModelNotFound, VersionNotFound, LabelNotFound: With a message that names what exists.
        """
        pointer = self.pointer(reference.name)
        if pointer is None:
            raise self._no_model(reference.name)
        if pointer.kind == "id":
            if reference.selector is not None:
                raise VersionNotFound(
                    f"{reference.name!r} is a model id and stands for one version: leave {reference.selector!r} away",
                    model=pointer.model,
                )
            if pointer.version is None:
                raise InvalidRecord(f"ids/{reference.name}.json names no version")
            return self._not_deleted(self.record(pointer.model, pointer.version), self.state(pointer.model))
        name, selector = pointer.model, reference.selector or DEFAULT_LABEL
        state = self.state(name)
        if not is_label(selector):
            return self._not_deleted(self._published_record(name, selector), state)
        version = state.labels.get(selector)
        if version is None:
            raise self._no_label(name, selector, state)
        return self._not_deleted(self.record(name, version), state)

    # -- for the parts of the registry that write ----------------------------------------------------------

    def _state_and_tag(self, name: str) -> tuple[ModelState, str | None]:
        key = keys.state_key(name)
        before = self._seen.before(name)
        try:
            stored = self._store.get(key)
        except ObjectMissing:
            state, etag = ModelState(), None
        else:
            state, etag = decode(ModelState, stored.data, source=key), stored.etag
        self._seen.check(name, state, before)
        return state, etag

    def _published_record(self, name: str, version: str) -> VersionRecord:
        """Return a record whose publish came to its end: its id, written last, points at it."""
        record = self.record(name, version)
        if (name, version) not in self._published:
            pointer = self.pointer(record.id)
            if pointer is None or (pointer.model, pointer.version) != (name, version):
                raise VersionNotFound(
                    f"{name} {version} was not published to its end: publish it again, which finishes it",
                    model=name,
                    version=version,
                )
            if len(self._published) >= _KNOWN_MAX:
                self._published.clear()
            self._published.add((name, version))
        return record

    def _not_deleted(self, record: VersionRecord, state: ModelState) -> VersionRecord:
        grave = state.tombstones.get(record.version)
        if grave is not None:
            left = _listed(self._left(record.name, state))
            raise VersionNotFound(
                f"{record.name} {record.version} was deleted {grave.summary()}: versions left are {left}",
                model=record.name,
                version=record.version,
            )
        return record

    def _left(self, name: str, state: ModelState) -> tuple[str, ...]:
        """Return the versions of a model that are not deleted."""
        return tuple(each for each in self.versions(name) if each not in state.tombstones)

    def _no_model(self, name: str, what: str = "") -> ModelNotFound:
        """Return the error about a name that no model has, and what it is instead; the registry has to be there."""
        self.check_not_lost()
        first = list(itertools.islice(self.models(), _LISTED_MAX + 1))
        # Whoever errs mostly gets the beginning right: enough of a large registry is looked at for that.
        beside = itertools.islice(self.models(start_after=name[:1]), _COMPARED_MAX)
        meant = did_you_mean(name, itertools.chain(first, beside), "model ")
        return ModelNotFound(f"there is no model {name!r}{what}: the registry has {_listed(first)}{meant}", model=name)

    def _no_version(self, name: str, version: str) -> VersionNotFound:
        labels: Mapping[str, str] = {}
        try:
            summary = self.summary(name)
            labels, left = summary.state.labels, summary.versions
        except MarwayError:  # the answer is the same without it, and says less
            left = self.versions(name)
        meant = _version_meant(version, left) or did_you_mean(version, labels, "label ")
        return VersionNotFound(
            f"model {name!r} has no version {version!r}: it has {_listed(left)}{meant}", model=name, version=version
        )

    def _no_label(self, name: str, label: str, state: ModelState) -> LabelNotFound:
        left = self._left(name, state)
        known = ", ".join(f"{each} → {at}" for each, at in sorted(state.labels.items())) or "none"
        meant = did_you_mean(label, state.labels, "label ") or _version_meant(label, left)
        if left and not meant:
            flag = "" if label == DEFAULT_LABEL else f" --label {label}"
            meant = f"; `marway release {name} VERSION{flag}` sets it"
        return LabelNotFound(
            f"model {name!r} has no label {label}: its labels are {known}; its versions are {_listed(left)}{meant}",
            model=name,
        )


def _listed(names: Sequence[str]) -> str:
    """Return names for a message: all when few, else the first and that there are more."""
    more = " and more" if len(names) > _LISTED_MAX else ""
    return f"{', '.join(names[:_LISTED_MAX])}{more}" if names else "none yet"


def _version_meant(version: str, versions: Sequence[str]) -> str:
    return did_you_mean(version, versions, "version ", same_numbers=True)
