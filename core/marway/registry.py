"""The model registry: immutable versions and one mutable state a model, in an object store.

::

    archives/sha256/<digest>.mar            create-only
    models/<name>/versions/<version>.json   create-only, VersionRecord
    models/<name>/state.json                compare-and-swap, ModelState
    ids/<id or lower-case name>.json        create-only, Pointer

The order of a publish is archive, record, pointers, then label, so that a reader never sees a label or a record
that points at nothing. Every change of state carries an `op_id` of its own; after a write whose outcome is in doubt
the writer looks for its op_id in the history: there it succeeded, else it starts over from what is stored now.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from marway.errors import (
    ArchiveCorrupt,
    InvalidRecord,
    LabelNotFound,
    ModelNotFound,
    OutcomeUnknown,
    StateConflict,
    VersionConflict,
    VersionNotFound,
)
from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore, Progress
from marway.records import (
    MAX_RECORD_BYTES,
    HistoryEntry,
    ModelState,
    Pointer,
    Proof,
    VersionRecord,
    decode,
    encode,
    encode_state,
    utc_now,
)
from marway.refs import DEFAULT_LABEL, Reference, check_label, is_label, new_ulid

__all__ = ["Registry"]

_CAS_ATTEMPTS = 50
_CAS_BACKOFF_S = 0.05
_CAS_BACKOFF_MAX_S = 2.0


class Registry:
    """Reads and writes models, versions and labels. Methods block; they are safe to call from many threads.

    Args:
        store: Where the objects are.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    def url(self) -> str:
        return self._store.url

    # -- reading ------------------------------------------------------------------------------------------

    def models(self) -> Iterator[str]:
        """Yield the names of all models, in order, lazily."""
        return self._store.children("models/")

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a model, in the order of their names; empty when there is no such model."""
        return tuple(child.removesuffix(".json") for child in self._store.children(f"models/{name}/versions/"))

    def pointer(self, id_or_name: str) -> Pointer | None:
        """Return what an id or a model name stands for, or None. Names match whatever their case."""
        for key in dict.fromkeys((id_or_name, id_or_name.lower())):
            try:
                data = self._store.get(f"ids/{key}.json").data
            except ObjectMissing:
                continue
            pointer = decode(Pointer, data, source=f"ids/{key}.json")
            if pointer.kind == "id" and key != id_or_name:
                continue
            return pointer
        return None

    def record(self, name: str, version: str) -> VersionRecord:
        """Return a version's record.

        Raises:
            VersionNotFound: The model has no such version; the message names those it has.
        """
        key = _record_key(name, version)
        try:
            data = self._store.get(key).data
        except ObjectMissing as exc:
            raise VersionNotFound(
                f"model {name!r} has no version {version!r}: it has {_listed(self.versions(name))}",
                model=name,
                version=version,
            ) from exc
        return decode(VersionRecord, data, source=key)

    def state(self, name: str) -> ModelState:
        """Return a model's state; a model without one has no labels yet."""
        return self._state_and_tag(name)[0]

    def open_archive(self, sha256: str) -> AbstractContextManager[BinaryIO]:
        """Open an archive's bytes for streaming.

        Raises:
            ObjectMissing: There is no archive with that digest.
        """
        return self._store.open(_archive_key(sha256))

    def resolve(self, reference: Reference) -> VersionRecord:
        """Return the version that ``reference`` stands for now.

        Raises:
            ModelNotFound, VersionNotFound, LabelNotFound: With a message that names what exists.
        """
        pointer = self.pointer(reference.name)
        if pointer is None:
            raise ModelNotFound(
                f"there is no model {reference.name!r}: the registry has {_listed(self._some_models())}",
                model=reference.name,
            )
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
            return self._not_deleted(self.record(name, selector), state)
        version = state.labels.get(selector)
        if version is None:
            labels = ", ".join(f"{label} → {at}" for label, at in sorted(state.labels.items())) or "none"
            raise LabelNotFound(
                f"model {name!r} has no label {selector}: its labels are {labels}; "
                f"its versions are {_listed(self.versions(name))}",
                model=name,
            )
        return self._not_deleted(self.record(name, version), state)

    # -- writing ------------------------------------------------------------------------------------------

    def golden(self, sha256: str) -> bytes:
        """Return a golden document."""
        return self._store.get(f"golden/{sha256}.json").data

    def prove(self, proof: Proof) -> None:
        """Store a proof."""
        self._store.create(f"proofs/{proof.archive_sha256}/{new_ulid()}.json", encode(proof))

    def proofs(self, archive_sha256: str) -> Iterator[Proof]:
        """Yield what is proved about these bytes."""
        for key in self._store.keys(f"proofs/{archive_sha256}/"):
            yield decode(Proof, self._store.get(key).data, source=key)

    def publish(
        self,
        record: VersionRecord,
        archive: Path,
        *,
        golden: bytes | None = None,
        progress: Progress | None = None,
    ) -> VersionRecord:
        """Store a version, or finish what an interrupted publish of the same bytes left undone.

        Args:
            record: What to store; its archive digest and size are those of ``archive``.
            archive: The `.mar` file.
            golden: Its golden document.
            progress: Told about archive bytes sent.

        Returns:
            The stored record: an older one when the same bytes were published before.

        Raises:
            VersionConflict: The version exists with other bytes, or the name differs from a model's only in case.
            ArchiveCorrupt: ``archive`` does not have the digest that ``record`` says.
        """
        data = encode(record)
        if len(data) > MAX_RECORD_BYTES:
            raise InvalidRecord(
                f"the record of {record.name} {record.version} has {len(data)} bytes; at most {MAX_RECORD_BYTES} are "
                "accepted: keep large facts elsewhere and store a reference",
                model=record.name,
                version=record.version,
            )
        # Refuse before the large upload what would be refused after it.
        self._check_publishable(record)
        self._put_archive(record, archive, progress)
        if golden is not None:
            with contextlib.suppress(ObjectExists):
                self._store.create(f"golden/{record.golden_sha256}.json", golden)
        try:
            self._store.create(_record_key(record.name, record.version), data)
        except ObjectExists:
            record = self._same_bytes(record)
        self._point(record.name.lower(), Pointer(kind="name", model=record.name))
        self._point(record.id, Pointer(kind="id", model=record.name, version=record.version))
        return record

    def release(
        self,
        name: str,
        version: str,
        *,
        label: str = DEFAULT_LABEL,
        if_currently: str | None = None,
        note: str | None = None,
        forced: bool = False,
        by: str,
    ) -> ModelState:
        """Move ``label`` to ``version`` and return the state as written.

        Args:
            name: The model.
            version: Where to; it must be published.
            label: Which label.
            if_currently: Only if the label points at this version now.
            note: Why, for the history.
            forced: Said in the history.
            by: Who, for the history.

        Raises:
            ModelNotFound, VersionNotFound: Nothing was changed.
            StateConflict: The label is not at ``if_currently``.
            OutcomeUnknown: The write's fate could not be found out.
        """
        check_label(label)
        pointer = self.pointer(name)
        if pointer is None or pointer.kind != "name":
            raise ModelNotFound(
                f"there is no model {name!r}: the registry has {_listed(self._some_models())}", model=name
            )
        record = self.record(pointer.model, version)

        def move(state: ModelState) -> tuple[ModelState, HistoryEntry]:
            self._not_deleted(record, state)
            current = state.labels.get(label)
            if if_currently is not None and current != if_currently:
                raise StateConflict(
                    f"{record.name} {label} is at {current or 'no version'}, not at {if_currently}: nothing changed",
                    model=record.name,
                )
            entry = HistoryEntry(
                generation=state.generation + 1,
                op_id=new_ulid(),
                at=utc_now(),
                by=by,
                kind="label",
                label=label,
                from_version=current,
                to_version=version,
                note=note,
                forced=forced,
            )
            return state.model_copy(update={"labels": {**state.labels, label: version}}), entry

        return self._change(record.name, move)

    # -- inside -------------------------------------------------------------------------------------------

    def _change(self, name: str, change: Callable[[ModelState], tuple[ModelState, HistoryEntry]]) -> ModelState:
        """Apply ``change`` by compare-and-swap, over and over until it is written or refused."""
        key = _state_key(name)
        for attempt in range(_CAS_ATTEMPTS):
            state, etag = self._state_and_tag(name)
            changed, entry = change(state)
            changed = changed.model_copy(update={"generation": entry.generation, "history": (*state.history, entry)})
            data = encode_state(changed)
            try:
                if etag is None:
                    self._store.create(key, data)
                else:
                    self._store.replace(key, data, etag=etag)
            except (ObjectChanged, ObjectExists):
                stored = self.state(name)
                if any(past.op_id == entry.op_id for past in stored.history):
                    return stored  # our own write, whose reply was lost
                limit = min(_CAS_BACKOFF_MAX_S, _CAS_BACKOFF_S * 2**attempt)
                time.sleep(random.uniform(0, limit))  # full jitter: losers must not meet again
                continue
            return changed
        raise OutcomeUnknown(
            f"the state of model {name!r} changed {_CAS_ATTEMPTS} times while it was being written: try again",
            model=name,
        )

    def _state_and_tag(self, name: str) -> tuple[ModelState, str | None]:
        key = _state_key(name)
        try:
            stored = self._store.get(key)
        except ObjectMissing:
            return ModelState(), None
        return decode(ModelState, stored.data, source=key), stored.etag

    def _check_publishable(self, record: VersionRecord) -> None:
        pointer = self.pointer(record.name)
        if pointer is not None and pointer.kind == "id":
            raise VersionConflict(
                f"{record.name!r} is already the id of {pointer.model} {pointer.version}: choose another model name",
                model=record.name,
            )
        if pointer is not None and pointer.model != record.name:
            raise VersionConflict(
                f"there is a model {pointer.model!r}, which differs from {record.name!r} only in case: use its name",
                model=record.name,
            )
        pointer = self.pointer(record.id)
        if pointer is not None and (pointer.model, pointer.version) != (record.name, record.version):
            raise VersionConflict(
                f"the model id {record.id!r} is taken by {pointer.model} {pointer.version or ''}".rstrip(),
                model=record.name,
                version=record.version,
            )
        if self._store.size(_record_key(record.name, record.version)) is not None:
            self._same_bytes(record)

    def _same_bytes(self, record: VersionRecord) -> VersionRecord:
        stored = self.record(record.name, record.version)
        if stored.archive != record.archive:
            raise VersionConflict(
                f"{record.name} {record.version} exists with other bytes (sha256 {stored.archive.sha256[:12]}…, "
                f"these have {record.archive.sha256[:12]}…): a version never changes; publish them as a new one",
                model=record.name,
                version=record.version,
            )
        return stored

    def _put_archive(self, record: VersionRecord, archive: Path, progress: Progress | None) -> None:
        key = _archive_key(record.archive.sha256)
        size = self._store.size(key)
        if size is None:
            try:
                self._store.create_file(key, archive, sha256=record.archive.sha256, progress=progress)
                return
            except ObjectExists:
                size = self._store.size(key)
        if size != record.archive.size_bytes:
            raise ArchiveCorrupt(
                f"{self.url}/{key} has {size} bytes, its archive {record.archive.size_bytes}: the store was damaged"
            )

    def _point(self, key: str, pointer: Pointer) -> None:
        try:
            self._store.create(f"ids/{key}.json", encode(pointer))
        except ObjectExists as exc:
            stored = self._store.get(f"ids/{key}.json").data
            if decode(Pointer, stored, source=f"ids/{key}.json") != pointer:
                raise VersionConflict(
                    f"{key!r} was taken for something else at the same moment: publish under another name",
                    model=pointer.model,
                ) from exc

    def _not_deleted(self, record: VersionRecord, state: ModelState) -> VersionRecord:
        if record.version in state.tombstones:
            raise VersionNotFound(
                f"{record.name} {record.version} was deleted: versions left are "
                f"{_listed(v for v in self.versions(record.name) if v not in state.tombstones)}",
                model=record.name,
                version=record.version,
            )
        return record

    def _some_models(self) -> Iterator[str]:
        for count, name in enumerate(self.models()):
            if count == _LISTED_MAX + 1:
                return
            yield name


_LISTED_MAX = 10


def _listed(names: Iterable[str]) -> str:
    """Return names for a message: all when few, else the first and that there are more."""
    known = list(names)
    if not known:
        return "none yet"
    text = ", ".join(known[:_LISTED_MAX])
    return f"{text} and more" if len(known) > _LISTED_MAX else text


def _record_key(name: str, version: str) -> str:
    return f"models/{name}/versions/{version}.json"


def _state_key(name: str) -> str:
    return f"models/{name}/state.json"


def _archive_key(sha256: str) -> str:
    return f"archives/sha256/{sha256}.mar"
