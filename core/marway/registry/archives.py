"""What the registry has about an archive's bytes: the bytes, golden answers to its examples, and proofs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Final

from marway.errors import InvalidRecord
from marway.objects import ObjectMissing
from marway.records import Proof, VersionRecord
from marway.registry import keys
from marway.registry.identity import Identified

__all__ = ["ArchiveReading", "digest_of"]

_PIECE_BYTES: Final = 1024 * 1024


class ArchiveReading(Identified):
    """Reads archives and what belongs to them; what is read is checked."""

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
        for key in self._store.keys(keys.proofs_prefix(archive_sha256)):
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
        self, sha256: str, *, start: int = 0, length: int | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """Open an archive's bytes for streaming, from byte ``start`` on; the handle can seek.

        Args:
            sha256: Its digest.
            start: First byte that is read.
            length: Where reading ends, in bytes from ``start``; None, or more than there is, means the archive's end.

        Raises:
            ObjectMissing: There is no archive with that digest.
        """
        return self._store.open(keys.archive_key(sha256), start=start, length=length)

    def is_proved(self, record: VersionRecord) -> bool:
        """Return whether a pod has loaded this version and reproduced its golden answers; once true it stays so."""
        return any(
            proof.kind == "pod" and proof.golden_sha256 == record.golden_sha256
            for proof in self.proofs(record.archive.sha256, skip_damaged=True)
        )


def digest_of(handle: BinaryIO) -> str:
    """Return the sha256 of what is left to read, in hex."""
    digest = hashlib.sha256()
    while piece := handle.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()
