"""What every part of the registry has: that it is there, stored documents, and archives with what belongs to them.

That a registry is there is said by an object that no writer makes unasked. An empty directory may be the mount point
of a volume that is gone, and an empty prefix a slip in a URL: whoever wrote there would be told that all went well, and
nobody would ever read it. So a registry is made once, on purpose, and each change looks first whether it is there, and
still the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Final, TypeVar

from pydantic import BaseModel

from marway.errors import InvalidRecord, RegistryUnavailable
from marway.graphs import Graph, fetch_graph
from marway.objects import ObjectExists, ObjectMissing, ObjectStore
from marway.process.identity import this_user
from marway.records import ArchiveRef, Proof, RegistryIdentity, VersionRecord, utc_now
from marway.refs import new_ulid
from marway.registry import keys
from marway.registry.encoding import decode, encode

__all__ = ["RegistryBase", "digest_of"]

T = TypeVar("T", bound=BaseModel)

_PIECE_BYTES: Final = 1024 * 1024
_HOW: Final = (
    "if there should be one, see that its volume is mounted and the URL is right; to make a new one, publish with "
    "--create-registry"
)


class RegistryBase:
    """Knows the store, and whether it may only be used where a registry is; what is read of it is checked.

    Args:
        store: Where the objects are.
        must_exist: Whether changes are refused where no registry was made. What the `marway` command, the archiver,
            gateways and sidecars open asks for it (`open_registry`); who writes a store himself decides for himself.
    """

    def __init__(self, store: ObjectStore, *, must_exist: bool = False) -> None:
        self._store = store
        self._must_exist = must_exist
        self._identity: str | None = None

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def store(self) -> ObjectStore:
        """Where the objects are; what gateways keep beside models is in the same."""
        return self._store

    def identity(self) -> RegistryIdentity | None:
        """Return what says that this is a registry, or None where there is none, or one from before there was this."""
        try:
            return self._read(RegistryIdentity, keys.IDENTITY)
        except ObjectMissing:
            return None

    def exists(self) -> bool:
        """Return whether a registry is there; nothing is written to find out.

        Raises:
            InvalidRecord: What says so is damaged.
            RegistryUnavailable: It cannot be read.
        """
        return self._has_models() or self.identity() is not None

    def create(self) -> RegistryIdentity:
        """Make the registry, and return its identity: the one that it has, if it was made before."""
        made = RegistryIdentity(id=new_ulid(), created_at=utc_now(), created_by=this_user())
        try:
            self._create(keys.IDENTITY, made)
        except ObjectExists:
            return self._read(RegistryIdentity, keys.IDENTITY)
        return made

    def check_there(self) -> None:
        """Check, before a change, that the registry is there, and the one that it was before.

        One that holds models and was never given an identity is given one now.

        Raises:
            RegistryUnavailable: It is not there, or another one is; nothing was written.
        """
        if not self._must_exist:
            return
        found = self.identity()
        if found is None:
            if self._identity is not None or not self._has_models():
                raise self._not_there()
            found = self.create()
        if self._identity is None:
            self._identity = found.id
        elif found.id != self._identity:
            raise RegistryUnavailable(
                f"{self.url} holds another registry now ({found.id}) than before ({self._identity}): was another "
                "volume mounted? Nothing was written; restart what uses it if that was meant"
            )

    def check_not_lost(self) -> None:
        """Check, where a model was not found, that this is because there is none, and not because nothing is there.

        Raises:
            RegistryUnavailable: There is no registry.
        """
        if self._must_exist and not self.exists():
            raise self._not_there()

    def golden(self, sha256: str) -> bytes:
        """Return golden answers by the digest that a record or a proof names.

        Raises:
            ObjectMissing: There are none.
            InvalidRecord: They are not those that were published.
        """
        key = keys.golden_key(sha256)
        data = self._store.get(key).data
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InvalidRecord(
                f"{key} is damaged: its bytes have another digest; publish the version again, which mends it"
            )
        return data

    def proofs(self, archive_sha256: str, *, skip_damaged: bool = False) -> Iterator[Proof]:
        """Yield what is proved about these bytes, oldest first.

        Args:
            archive_sha256: The bytes.
            skip_damaged: Pass over a proof that cannot be believed, which then proves nothing.

        Raises:
            InvalidRecord: A proof is damaged.
        """
        prefixes = keys.proofs_prefix(archive_sha256), keys.checks_prefix(archive_sha256)
        yield from self._proofs(archive_sha256, *prefixes, skip_damaged=skip_damaged)

    def _proofs(self, archive_sha256: str, *prefixes: str, skip_damaged: bool) -> Iterator[Proof]:
        found = (key for prefix in prefixes for key in self._store.keys(prefix))
        for key in sorted(found, key=lambda key: key.rpartition("/")[2]):
            try:
                proof = self._read(Proof, key)
                if proof.archive_sha256 != archive_sha256:
                    raise InvalidRecord(f"{key} is damaged: it proves another archive")
            except ObjectMissing:
                continue  # gc deletes them with their archive
            except InvalidRecord:
                if skip_damaged:
                    continue
                raise
            yield proof

    @property
    def parallel_reads(self) -> bool:
        """Whether a large archive is read faster by several `open_archive` calls at once, each for a part of it."""
        return self._store.parallel_reads

    def open_archive(
        self, archive: ArchiveRef, *, start: int = 0, length: int | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """Open an archive's bytes for streaming, from byte ``start`` on; the handle can seek.

        Args:
            archive: Which, as its record says.
            start: First byte that is read.
            length: Where reading ends, in bytes from ``start``; None, or more than there is, means the archive's end.

        Raises:
            ObjectMissing: It is not there.
        """
        return self._store.open(keys.archive_key(archive), start=start, length=length)

    def graph(self, record: VersionRecord) -> Graph:
        """Return the document of a version that is a graph; its archive is fetched, and its digest is checked.

        Raises:
            ArchiveCorrupt: Its archive is not there, or has other bytes than the record says.
            InvalidGraph: It is no graph, or one that cannot be run.
        """
        return fetch_graph(self, record)

    def open_wheel(self, sha256: str, *, start: int = 0, length: int | None = None) -> AbstractContextManager[BinaryIO]:
        """Open a wheel's bytes; as `open_archive` does an archive's."""
        return self._store.open(keys.wheel_key(sha256), start=start, length=length)

    def wheel_bytes(self, sha256: str) -> int | None:
        """Return a wheel's size in bytes, or None when it is not here."""
        return self._store.size(keys.wheel_key(sha256))

    def is_proved(self, record: VersionRecord) -> bool:
        """Return whether a pod has loaded this version and reproduced its golden answers; once true it stays so."""
        digest = record.archive.sha256
        return any(
            proof.kind == "pod" and proof.golden_sha256 == record.golden_sha256
            for proof in self._proofs(digest, keys.proofs_prefix(digest), skip_damaged=True)
        )

    def _read(self, kind: type[T], key: str) -> T:
        """Return a stored document.

        Raises:
            ObjectMissing: There is none.
            InvalidRecord: It is damaged.
        """
        return decode(kind, self._store.get(key).data, source=key)

    def _create(self, key: str, value: BaseModel) -> str:
        """Store a document that must not be there yet, and return its tag."""
        return self._store.create(key, encode(value, key=key))

    def _replace(self, key: str, value: BaseModel, etag: str) -> str:
        """Store a document in the place of the one that has this tag, and return the new tag."""
        return self._store.replace(key, encode(value, key=key), etag=etag)

    def _has_models(self) -> bool:
        return next(self._store.children(keys.MODELS), None) is not None

    def _not_there(self) -> RegistryUnavailable:
        return RegistryUnavailable(f"there is no registry at {self.url}: {_HOW}")


def digest_of(handle: BinaryIO) -> str:
    """Return the sha256 of what is left to read, in hex."""
    digest = hashlib.sha256()
    while piece := handle.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()
