"""Garbage collection: what nothing refers to is marked, and deleted if a day later still nothing does.

A publish clears the marks of what it relies on before it relies on it, and looks at them once more at its end. Deleting
begins with a compare-and-swap of the mark from `marked` to `condemned`; then gc looks again whether anything refers to
the object. So whatever the clocks say, of a publish and a gc that meet one sees the other: gc finds the record and
lets go, or the publish, whose record came later, finds `condemned`, waits until the mark is gone and stores the object
again.

Ages are by the store's clock, which is the same for all: that of one machine may be a day off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Final

from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, StoredObject
from marway.records import GcMark, VersionRecord, utc_now
from marway.refs import new_ulid
from marway.registry import keys
from marway.registry.encoding import decode
from marway.registry.graphs import stands
from marway.registry.traffic.expiring import ExpiringRollouts

__all__ = ["GRACE", "GarbageCollection", "GcReport"]

GRACE: Final = timedelta(days=1)
"""Between marking and deleting; longer than any publish takes."""
_DEAD_GC: Final = timedelta(hours=1)
"""A deletion that is not done by then belongs to a gc that died."""
_THREADS: Final = 16
_KEPT: Final = (keys.ARCHIVES, keys.BUNDLES, keys.GOLDEN, keys.WHEELS)


@dataclass(slots=True)
class GcReport:
    """What a collection did, or would do: keys of objects.

    Attributes:
        marked: Found unused for the first time.
        waiting: Marked earlier, not yet for a day.
        deleted: Deleted, with their proofs.
        kept: Marked earlier, in use again.
        swept: Temporary files, unfinished uploads, contracts and pins of writes that were interrupted.
    """

    marked: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)


class GarbageCollection(ExpiringRollouts):
    """Deletes what nobody can reach."""

    def gc(self, *, dry_run: bool = False, now: datetime | None = None) -> GcReport:
        """Mark what is unused, and delete what has been for a day.

        Unused are archives, golden answers and wheels of no version, or only of deleted ones, and records whose
        publish was given up. Deleted versions keep their record, so that their name and id stay taken. What was counted
        of rollouts goes `ROLLOUT_KEPT` after they ended.

        Args:
            dry_run: Change nothing; the report says what would be done.
            now: The time, for tests: as much later or earlier than the machine's clock as the store's is taken to be.

        Raises:
            InvalidRecord: A record cannot be read: nothing is deleted, as it may refer to anything.
        """
        self.check_there()
        now = self._store.now() if now is None else self._store.now() + (now - utc_now())
        report = GcReport()
        condemned: dict[str, str] = {}
        used, abandoned = self._scan()
        marks = set(self._store.keys(keys.GC))
        stored = (key for prefix in _KEPT for key in self._store.keys(prefix))
        for key in (*(key for key in stored if key not in used), *sorted(abandoned)):
            self._judge(key, now, report, condemned, dry_run=dry_run)
            marks.discard(keys.mark_key(key))
        for mark in sorted(marks):
            self._forget(mark, now, report, dry_run=dry_run)
        if condemned:
            self._execute(condemned, report)
        report.swept.extend(self._contracts_left(now, dry_run=dry_run))
        report.swept.extend(self._pins_left(now, dry_run=dry_run))
        report.expired.extend(self._rollouts_over(now, dry_run=dry_run))
        report.swept.extend(self._store.sweep(older_than_s=GRACE.total_seconds(), dry_run=dry_run))
        return report

    def _contracts_left(self, now: datetime, *, dry_run: bool) -> Iterator[str]:
        """Delete what no state names, of contracts whose add or removal was interrupted; yield their keys."""
        for name in list(self._store.children(keys.CONTRACTS)):
            stored = list(self._store.keys(keys.contracts_prefix(name)))
            # Read after them: what was added since is named by now, or is younger than any add takes.
            named = {keys.contract_object_key(name, ref.id) for ref in self.state(name).contracts.values()}
            for key in stored:
                if key not in named and self._age(key, now) >= GRACE:
                    if not dry_run:
                        self._store.delete(key)
                    yield key

    def _pins_left(self, now: datetime, *, dry_run: bool) -> Iterator[str]:
        """Delete what says that a graph names a version, where that graph is not there; yield the keys."""
        for key in list(self._store.keys(keys.PINS)):
            graph, version = PurePosixPath(key).parts[-2:]
            if not stands(self, graph, version.removesuffix(".json")) and self._age(key, now) >= GRACE:
                if not dry_run:
                    self._store.delete(key)
                yield key

    def _scan(self) -> tuple[set[str], set[str]]:
        """Return the keys that versions refer to, and those of records that no pointer leads to."""
        used: set[str] = set()
        abandoned: set[str] = set()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="gc") as threads:
            for found, lost in threads.map(self._scan_model, self.models()):
                used |= found
                abandoned |= lost
        return used, abandoned

    def _scan_model(self, name: str) -> tuple[set[str], set[str]]:
        used: set[str] = set()
        abandoned: set[str] = set()
        tombstones = self.state(name).tombstones
        for version in self.versions(name):
            key = keys.record_key(name, version)
            try:
                record = self._read(VersionRecord, key)
            except ObjectMissing:
                continue  # its publisher took it back a moment ago
            if version in tombstones:
                continue
            # An abandoned record is counted as well: its bytes go once it has gone.
            used.update(keys.objects_of(record))
            pointer = self.pointer(record.id)
            if pointer is None or (pointer.model, pointer.version) != (name, version):
                abandoned.add(key)
        return used, abandoned

    def _judge(self, key: str, now: datetime, report: GcReport, condemned: dict[str, str], *, dry_run: bool) -> None:
        """Take one unused object a step nearer to its end; the last puts its mark's tag into ``condemned``."""
        mark = keys.mark_key(key)
        stored: StoredObject | None = None
        with contextlib.suppress(ObjectMissing):
            stored = self._store.get(mark)
        status = "cleared" if stored is None else decode(GcMark, stored.data, source=mark).status
        if status != "cleared" and self._age(mark, now) < (GRACE if status == "marked" else _DEAD_GC):
            report.waiting.append(key)
            return
        if status == "cleared":
            report.marked.append(key)
        elif dry_run:
            report.deleted.append(key)
        if dry_run:
            return
        made = GcMark(status="marked" if status == "cleared" else "condemned", at=now, op_id=new_ulid())
        try:
            tag = self._create(mark, made) if stored is None else self._replace(mark, made, stored.etag)
        except ObjectExists:
            return  # another gc's, of this moment
        except ObjectChanged:
            report.kept.append(key)  # a publish cleared the mark, or another gc is at it
            return
        if made.status == "condemned":
            condemned[key] = tag

    def _execute(self, condemned: dict[str, str], report: GcReport) -> None:
        """Delete what is still unused now that whoever publishes can see that it is condemned; let go of the rest."""
        used, abandoned = self._scan()
        for key, tag in condemned.items():
            mark = keys.mark_key(key)
            wanted = key not in abandoned if key.startswith(keys.MODELS) else key in used
            if wanted or self._store.tag(mark) != tag:  # another gc took it over from one that had slept
                report.kept.append(key)
                with contextlib.suppress(ObjectChanged):
                    self._store.delete(mark, etag=tag)
                continue
            self._destroy(key)
            report.deleted.append(key)

    def _age(self, mark: str, now: datetime) -> timedelta:
        at = self._store.written_at(mark)
        return timedelta(0) if at is None else now - at

    def _destroy(self, key: str) -> None:
        self._store.delete(key)
        if key.startswith((keys.ARCHIVES, keys.BUNDLES)):
            digest = PurePosixPath(key).stem
            for prefix in (keys.proofs_prefix(digest), keys.checks_prefix(digest)):
                for proof in list(self._store.keys(prefix)):
                    self._store.delete(proof)
        self._store.delete(keys.mark_key(key))

    def _forget(self, mark: str, now: datetime, report: GcReport, *, dry_run: bool) -> None:
        """Remove the mark of an object that is used again or gone."""
        try:
            stored = self._store.get(mark)
        except ObjectMissing:
            return
        found = decode(GcMark, stored.data, source=mark)
        if found.status == "condemned" and self._age(mark, now) < _DEAD_GC:
            return  # another gc is between deleting the object and removing the mark
        key = mark.removeprefix(keys.GC)
        if found.status == "marked":
            report.kept.append(key)
        if not dry_run:
            with contextlib.suppress(ObjectChanged):
                self._store.delete(mark, etag=stored.etag)
