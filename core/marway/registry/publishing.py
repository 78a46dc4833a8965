"""Publishing a version: in an order that shows nothing half done, and repairs what an interrupted publish left.

Archive, golden answers, wheels, record, then the pointers: first the name, last the id, which makes the version a
published one. Whoever loses a race for a name or an id takes its own record back.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from marway.errors import ArchiveCorrupt, InvalidRecord, VersionConflict
from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, Progress
from marway.records import MAX_RECORD_BYTES, Pointer, Proof, VersionRecord
from marway.refs import new_ulid
from marway.registry import keys
from marway.registry.contents import Contents
from marway.registry.encoding import encode
from marway.registry.graphs import check_publishable, graph_in, pin_all

__all__ = ["Publishing"]

_NONE: Final[Mapping[str, Path]] = MappingProxyType({})


class Publishing(Contents):
    """Stores versions and what is proved about them."""

    def publish(
        self,
        record: VersionRecord,
        archive: Path,
        *,
        golden: bytes | None = None,
        wheels: Mapping[str, Path] = _NONE,
        progress: Progress | None = None,
    ) -> VersionRecord:
        """Store a version, or finish what an interrupted publish of the same bytes left undone.

        Bytes that are there already are read and checked: damaged ones are replaced.

        Args:
            record: What to store; its digests are those of ``archive`` and ``golden``.
            archive: The `.mar` or `.bundle` file.
            golden: Golden answers, as they are stored.
            wheels: By their digests, what it requires and is not stored yet.
            progress: Told about archive bytes sent; not at all when they are there.

        Returns:
            The stored record: an older one when the same bytes were published before.

        Raises:
            InvalidGraph: It is a graph that cannot be run with what is published.
            VersionConflict: The version exists with other bytes or was deleted, or its name or id is taken.
            ArchiveCorrupt: ``archive`` does not have the digest that ``record`` says.
            OutcomeUnknown: A reply was lost and the store cannot be read: publish again, which finishes it.
            RegistryUnavailable: There is no registry, or it cannot be written.
        """
        self.check_there()
        data = encode(record)
        if len(data) > MAX_RECORD_BYTES:
            raise InvalidRecord(
                f"the record of {record.name} {record.version} has {len(data)} bytes; at most {MAX_RECORD_BYTES} are "
                "accepted: keep large facts elsewhere and store a reference",
                model=record.name,
                version=record.version,
            )
        if golden is not None and hashlib.sha256(golden).hexdigest() != record.golden_sha256:
            raise InvalidRecord(
                f"the golden answers of {record.name} {record.version} have another digest than it says"
            )
        # Refuse before the large upload what would be refused after it.
        given, record = record, self._publishable(record)
        graph = graph_in(record, archive)
        if record is given:  # one that was published before stays, whatever became of the versions that it names
            check_publishable(self, record, graph)
        key = keys.record_key(record.name, record.version)
        self._unmark(key)
        self._put_archive(record, archive, progress)
        self._put_golden(record, golden)
        self._put_wheels(record, wheels)
        self.check_there()  # the upload may have taken long
        if graph is not None:
            pin_all(self, record, graph)
        etag = None
        try:
            etag = self._create(key, record)
        except ObjectExists:
            record = self._same_bytes(record)
        try:
            self._claim(record)
        except VersionConflict:
            if etag is not None:
                # Nobody else can finish it either: pointers never change.
                with contextlib.suppress(ObjectChanged):
                    self._store.delete(key, etag=etag)
            raise
        self._outlive_gc(record, archive, golden, wheels, progress)
        self.check_there()
        return record

    def prove(self, proof: Proof) -> None:
        """Store what these bytes were seen to do.

        Raises:
            ArchiveCorrupt: The registry has no such archive.
        """
        self.check_there()
        if all(self._store.size(key) is None for key in keys.archive_keys(proof.archive_sha256).values()):
            raise ArchiveCorrupt(f"{self.url} has no archive {proof.archive_sha256[:12]}… that could be proved")
        prefix = keys.proofs_prefix if proof.is_load else keys.checks_prefix
        self._create(f"{prefix(proof.archive_sha256)}{new_ulid()}.json", proof)

    def _publishable(self, record: VersionRecord) -> VersionRecord:
        """Return the record to store: the one that is there, if it has the same bytes; refuse what cannot be stored."""
        pointer = self.pointer(record.name)
        if pointer is not None and pointer.kind == "id":
            raise VersionConflict(
                f"{record.name!r} is already the id of {pointer.model} {pointer.version}: choose another model name",
                model=record.name,
            )
        if pointer is not None and pointer.model != record.name:
            raise _taken_in_other_case(record, pointer)
        grave = self.state(record.name).tombstones.get(record.version)
        if grave is not None:  # whatever its bytes were, and whether they are still there
            raise VersionConflict(
                f"{record.name} {record.version} was deleted {grave.summary()}, and a deleted version never comes "
                "back: publish this one under another version",
                model=record.name,
                version=record.version,
            )
        if self._store.size(keys.record_key(record.name, record.version)) is not None:
            record = self._same_bytes(record)
        for key in _id_keys(record.id):
            try:
                taken = self._pointer_at(key)
            except ObjectMissing:
                continue
            if (taken.model, taken.version, taken.kind) != (record.name, record.version, "id"):
                raise _id_taken(record, taken)
        return record

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

    def _outlive_gc(
        self,
        record: VersionRecord,
        archive: Path,
        golden: bytes | None,
        wheels: Mapping[str, Path],
        progress: Progress | None,
    ) -> None:
        """See that nothing of a version that is now published is being deleted; store again what was.

        A gc that has not seen the version yet condemned before this, and is waited for here.
        """
        wanted = tuple(keys.objects_of(record))
        for key in wanted:
            self._unmark(key)
        if any(self._store.size(key) is None for key in wanted):
            self._put_archive(record, archive, progress)
            self._put_golden(record, golden)
            self._put_wheels(record, wheels)
        key = keys.record_key(record.name, record.version)
        self._unmark(key)
        if self._store.size(key) is None:
            with contextlib.suppress(ObjectExists):
                self._create(key, record)

    def _claim(self, record: VersionRecord) -> None:
        self._point(record, record.name.lower(), Pointer(kind="name", model=record.name))
        mine = Pointer(kind="id", model=record.name, version=record.version, id=record.id)
        for key in _id_keys(record.id):
            self._point(record, key, mine)

    def _point(self, record: VersionRecord, key: str, pointer: Pointer) -> None:
        try:
            self._create(keys.pointer_key(key), pointer)
        except ObjectExists as exc:
            stored = self._pointer_at(key)
            if (stored.kind, stored.model, stored.version) != (pointer.kind, pointer.model, pointer.version):
                if pointer.kind == "name" and stored.kind == "name":
                    raise _taken_in_other_case(record, stored) from exc
                raise _id_taken(record, stored) from exc

    def _pointer_at(self, key: str) -> Pointer:
        return self._read(Pointer, keys.pointer_key(key))


def _id_keys(model_id: str) -> tuple[str, ...]:
    """Return the keys that an id takes, the id's own last.

    Names match in any case, so an id takes its lower-case form as well. Ids made by Marway need not: no model name
    begins with `mv_`.
    """
    if model_id.startswith("mv_"):
        return (model_id,)
    return tuple(dict.fromkeys((model_id.lower(), model_id)))


def _taken_in_other_case(record: VersionRecord, pointer: Pointer) -> VersionConflict:
    return VersionConflict(
        f"there is a model {pointer.model!r}, which differs from {record.name!r} only in case: use its name",
        model=record.name,
    )


def _id_taken(record: VersionRecord, pointer: Pointer) -> VersionConflict:
    owner = f"{pointer.model} {pointer.version}" if pointer.kind == "id" else f"the model {pointer.model}"
    return VersionConflict(
        f"{record.name} {record.version} cannot be published: its name or its id {record.id!r} is taken by {owner}",
        model=record.name,
        version=record.version,
    )
