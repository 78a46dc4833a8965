"""Garbage collection: what nobody uses goes after a day, and nothing else ever does."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from marway.errors import InvalidRecord, StateConflict
from marway.objects import open_store
from marway.records import GcMark, Proof, utc_now
from marway.refs import Reference
from marway.registry import Registry, contents
from marway.registry.encoding import encode
from support.invariants import assert_sound
from support.registry import Publish, publisher, record_of

NOW = utc_now()
LATER = NOW + timedelta(hours=25)


def archive(text: bytes) -> str:
    return f"archives/sha256/{record_of(text).archive.sha256}.mar"


@pytest.fixture
def orphan(registry: Registry) -> str:
    """The key of an archive that no version uses."""
    registry._store.create(archive(b"orphan"), b"orphan")
    return archive(b"orphan")


def test_unused_archive(store_url: str, tmp_path: Path) -> None:
    """An archive of no version is marked, left for a day, and then deleted, in any store; others stay."""
    store = open_store(store_url)
    registry = Registry(store)
    publisher(registry, tmp_path)(golden=b"answers")
    store.create(archive(b"orphan"), b"orphan")
    store.create(f"golden/{'0' * 64}.json", b"orphan")
    unused = [archive(b"orphan"), f"golden/{'0' * 64}.json"]
    assert registry.gc(now=NOW).marked == unused
    assert registry.gc(now=NOW + timedelta(hours=23)).waiting == unused
    report = registry.gc(now=LATER)
    assert (report.deleted, report.marked, report.waiting) == (unused, [], [])
    assert list(store.keys("gc/")) == []
    assert store.size(archive(b"orphan")) is None
    assert_sound(store)
    assert registry.resolve(Reference("intent", "1.0")).version == "1.0"


def test_deleted_version(registry: Registry, publish: Publish) -> None:
    """A deleted version's bytes, golden answers and proofs go; its record stays, so that its name and id stay taken."""
    record = publish("intent", "1.0", golden=b"answers")
    registry.prove(
        Proof(kind="pod", archive_sha256=record.archive.sha256, server="x", duration_s=1, at=utc_now(), by="test")
    )
    registry.prove(
        Proof(kind="replay", archive_sha256=record.archive.sha256, server="x", duration_s=1, at=utc_now(), by="test")
    )
    publish("intent", "2.0")
    registry.delete("intent", "1.0", by="test")
    registry.gc(now=NOW)
    assert len(registry.gc(now=LATER).deleted) == 2
    assert list(registry.proofs(record.archive.sha256)) == []
    assert list(registry._store.keys("golden/")) == []
    assert registry.versions("intent") == ("1.0", "2.0")


def test_shared_archive(registry: Registry, publish: Publish) -> None:
    """An archive that another version still uses stays when one of them is deleted."""
    publish("one", data=b"same")
    publish("two", data=b"same")
    registry.delete("one", "1.0", by="test")
    registry.gc(now=NOW)
    assert registry.gc(now=LATER).deleted == []


def test_dry_run(registry: Registry, orphan: str) -> None:
    """A dry run says what would be done and changes nothing."""
    assert registry.gc(dry_run=True, now=NOW).marked == [orphan]
    assert list(registry._store.keys("gc/")) == []
    registry.gc(now=NOW)
    assert registry.gc(dry_run=True, now=LATER).deleted == [orphan]
    assert registry._store.size(orphan) == 6


def test_publish_clears_a_mark(registry: Registry, publish: Publish, orphan: str) -> None:
    """An archive that is published after it was marked stays."""
    registry.gc(now=NOW)
    publish(data=b"orphan")
    report = registry.gc(now=LATER)
    assert (report.deleted, list(registry._store.keys("gc/"))) == ([], [])
    with registry.open_archive(record_of(b"orphan").archive) as handle:
        assert handle.read() == b"orphan"


def test_cleared_mark_begins_anew(registry: Registry, publish: Publish, orphan: str) -> None:
    """An archive whose mark was cleared by a publish that was given up gets another day."""
    registry.gc(now=NOW)
    registry._unmark(orphan)
    assert registry.gc(now=LATER).marked == [orphan]
    assert registry.gc(now=LATER + timedelta(hours=25)).deleted == [orphan]


def test_used_again(registry: Registry, orphan: str, publish: Publish) -> None:
    """A mark goes when its object is used again."""
    registry.gc(now=NOW)
    record = record_of(b"orphan")
    registry._store.create("models/intent/versions/1.0.json", encode(record))  # by a writer that knows no marks
    assert registry.gc(now=LATER).kept == [orphan]
    assert list(registry._store.keys("gc/archives/")) == []


def test_publish_between_looking_and_deleting(registry: Registry, publish: Publish, orphan: str) -> None:
    """A publish that comes while gc has decided but not yet begun to delete keeps its archive."""
    registry.gc(now=NOW)
    real = registry._store.replace

    def publish_first(key: str, data: bytes, *, etag: str) -> str:
        registry._store.replace = real  # type: ignore[method-assign]
        publish(data=b"orphan")
        return real(key, data, etag=etag)

    registry._store.replace = publish_first  # type: ignore[method-assign]
    report = registry.gc(now=LATER)
    assert (report.deleted, report.kept) == ([], [orphan])
    assert_sound(registry._store)
    assert registry._store.size(orphan) == 6


def test_publish_while_deleting(registry: Registry, publish: Publish, orphan: str) -> None:
    """A publish that comes while gc is deleting waits until it has, and stores its archive again."""
    registry.gc(now=NOW)
    real, publishing_now, published = registry._store.delete, threading.Event(), threading.Event()
    record = record_of(b"orphan")

    def publish_it() -> None:
        publishing_now.set()
        publish(data=b"orphan")
        published.set()

    thread = threading.Thread(target=publish_it)

    def delete(key: str, *, etag: str | None = None) -> None:
        if key == orphan:
            thread.start()
            publishing_now.wait(10)
            assert not published.is_set()
        real(key, etag=etag)

    registry._store.delete = delete  # type: ignore[method-assign]
    assert registry.gc(now=LATER).deleted == [orphan]
    thread.join(30)
    with registry.open_archive(record.archive) as handle:
        assert handle.read() == b"orphan"


def test_gc_that_died(registry: Registry, publish: Publish, orphan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish does not wait for ever for a gc that died, and the next gc finishes what that one began."""
    mark = GcMark(status="condemned", at=NOW, op_id="x")
    registry._store.create(f"gc/{orphan}", encode(mark))
    monkeypatch.setattr(contents, "_GC_WAIT_S", 0.05)
    with pytest.raises(StateConflict, match="`marway gc` finishes it"):
        publish(data=b"orphan")
    assert registry.gc(now=NOW + timedelta(minutes=30)).waiting == [orphan]
    assert registry.gc(now=NOW + timedelta(hours=2)).deleted == [orphan]
    publish(data=b"orphan")


def test_gc_that_died_after_deleting(registry: Registry, orphan: str) -> None:
    """A mark whose object is gone already goes as well, when no other gc can be at it."""
    registry._store.create(f"gc/{orphan}", encode(GcMark(status="condemned", at=NOW, op_id="x")))
    registry._store.delete(orphan)
    registry.gc(now=NOW + timedelta(minutes=30))
    assert list(registry._store.keys("gc/")) == [f"gc/{orphan}"]
    registry.gc(now=NOW + timedelta(hours=2))
    assert list(registry._store.keys("gc/")) == []


def test_abandoned_record(registry: Registry, publish: Publish) -> None:
    """A record whose publish was given up goes after a day, and its archive a day after that."""
    publish()
    record = record_of(b"abandoned", version="2.0")
    registry._store.create(archive(b"abandoned"), b"abandoned")
    registry._store.create("models/intent/versions/2.0.json", encode(record))
    registry.gc(now=NOW)
    assert registry.gc(now=LATER).deleted == ["models/intent/versions/2.0.json"]
    registry.gc(now=LATER)
    assert registry.gc(now=LATER + timedelta(hours=25)).deleted == [archive(b"abandoned")]
    assert registry.versions("intent") == ("1.0",)


def test_unreadable_record(registry: Registry, publish: Publish, orphan: str) -> None:
    """A record that cannot be read stops gc: what it refers to is not known."""
    registry.gc(now=NOW)
    registry._store.create("models/intent/versions/9.json", b'{"format": 2}')
    with pytest.raises(InvalidRecord, match=r"versions/9\.json"):
        registry.gc(now=LATER)
    assert registry._store.size(orphan) == 6


def test_two_collections_at_once(registry: Registry, orphan: str) -> None:
    """Two collections that meet delete once and fail neither."""
    registry.gc(now=NOW)
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(registry.gc(now=LATER))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(reports) == 2
    assert registry._store.size(orphan) is None


def test_leftovers(registry: Registry, publish: Publish, tmp_path: Path) -> None:
    """What interrupted writes left is swept when it is a day old."""
    publish()
    left = tmp_path / "registry" / "models" / "intent" / ".tmp-left"
    left.write_bytes(b"")
    assert registry.gc().swept == []
    os.utime(left, (0, 0))
    assert registry.gc().swept == ["models/intent/.tmp-left"]
    assert not left.exists()
