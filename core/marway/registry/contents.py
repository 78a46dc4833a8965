"""What a version is made of, each under the digest of its bytes: stored once, mended where damaged, kept from gc."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from marway.errors import InvalidRecord, StateConflict
from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, Progress
from marway.records import GcMark, VersionRecord, utc_now
from marway.refs import new_ulid
from marway.registry import keys
from marway.registry.base import digest_of
from marway.registry.encoding import decode
from marway.registry.reading import Reading

__all__ = ["Contents"]

_log = logging.getLogger(__name__)
_GC_WAIT_S: Final = 30.0


class Contents(Reading):
    """Stores archives, golden answers and wheels."""

    def _put_archive(self, record: VersionRecord, archive: Path, progress: Progress | None) -> None:
        key, sha256 = keys.archive_key(record.archive), record.archive.sha256
        self._unmark(key)
        self._put(key, sha256, lambda: self._store.create_file(key, archive, sha256=sha256, progress=progress))

    def _put(self, key: str, sha256: str, create: Callable[[], object]) -> None:
        """Store an object that its digest names, in place of a damaged one if need be."""
        while True:
            with contextlib.suppress(ObjectExists):
                create()
                return
            if not self._removed_if_damaged(key, sha256):
                return

    def _removed_if_damaged(self, key: str, sha256: str) -> bool:
        """Return whether an object had another digest than its name says, or was gone; it is gone then."""
        tag = self._store.tag(key)
        try:
            if tag is None or self._has_digest(key, sha256) or self._has_digest(key, sha256):  # a read may err, too
                return tag is None
            # Only what was read: another publish may have replaced it meanwhile.
            self._store.delete(key, etag=tag)
        except (ObjectMissing, ObjectChanged):
            return True
        _log.warning("%s/%s was damaged: it is stored again", self.url, key)
        return True

    def _has_digest(self, key: str, sha256: str) -> bool:
        with self._store.open(key) as handle:
            return digest_of(handle) == sha256

    def _put_golden(self, record: VersionRecord, golden: bytes | None) -> None:
        if record.golden_sha256 is None:
            return
        key = keys.golden_key(record.golden_sha256)
        self._unmark(key)
        if golden is not None and hashlib.sha256(golden).hexdigest() == record.golden_sha256:
            self._put(key, record.golden_sha256, lambda: self._store.create(key, golden))
            return
        if self._store.size(key) is None:
            raise InvalidRecord(
                f"{record.name} {record.version} names golden answers {record.golden_sha256[:12]}…, which are neither "
                "here nor in the registry: publish with them",
                model=record.name,
                version=record.version,
            )
        self.golden(record.golden_sha256)  # raises where they are damaged: these bytes cannot mend them

    def _put_wheels(self, record: VersionRecord, wheels: Mapping[str, Path]) -> None:
        for wheel in {wheel.sha256: wheel for lock in record.environments for wheel in lock.wheels}.values():
            key, path = keys.wheel_key(wheel.sha256), wheels.get(wheel.sha256)
            self._unmark(key)
            if path is not None:
                self._put(key, wheel.sha256, partial(self._store.create_file, key, path, sha256=wheel.sha256))
            elif self._store.size(key) is None:
                raise InvalidRecord(
                    f"{record.name} {record.version} requires {wheel.filename}, which is neither here nor in the "
                    "registry: publish it as a new version",
                    model=record.name,
                    version=record.version,
                )

    def _unmark(self, key: str) -> None:
        """Tell gc that an object is wanted; wait while gc is deleting it."""
        mark = keys.mark_key(key)
        deadline = time.monotonic() + _GC_WAIT_S
        while True:
            try:
                stored = self._store.get(mark)
            except ObjectMissing:
                return
            found = decode(GcMark, stored.data, source=mark)
            if found.status == "cleared":
                return
            if found.status == "marked":
                cleared = GcMark(status="cleared", at=utc_now(), op_id=new_ulid())
                try:
                    self._replace(mark, cleared, stored.etag)
                except ObjectChanged:
                    continue
                return
            if time.monotonic() > deadline:
                raise StateConflict(
                    f"a gc that began at {found.at:%Y-%m-%d %H:%M} UTC was deleting {key} and did not finish: "
                    "`marway gc` finishes it an hour after that; then publish again"
                )
            time.sleep(random.uniform(0, 0.5))  # another process deletes: the store tells nobody when it is done
