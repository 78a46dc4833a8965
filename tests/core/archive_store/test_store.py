"""The archive store: what is in it is whole, was fetched once, and stays while it is used."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from marway.archive_store import ArchiveStore
from marway.archive_store.layout import Layout
from marway.errors import ArchiveCorrupt, LoadFailed, Unavailable
from marway.objects import locks
from marway.records import ArchiveRef, VersionRecord
from marway.registry import Registry
from support.archives import Observed, fetched, names, published
from support.fetching import Wish, fetching
from support.registry import publish

MakeStore = Callable[..., ArchiveStore]


@pytest.fixture
def record(tmp_path: Path, registry: Registry) -> VersionRecord:
    """A published version, whose archive is a few bytes."""
    return publish(registry, tmp_path, "some", "1.0")


@pytest.fixture
def seen() -> Observed:
    return Observed()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def make(root: Path, registry: Registry, seen: Observed) -> MakeStore:
    return lambda **options: ArchiveStore(root, registry, observe=seen, **options)


@pytest.fixture
def store(make: MakeStore) -> ArchiveStore:
    return make()


def stored(record: VersionRecord) -> str:
    return f"{record.archive.sha256}.mar"


def wish(root: Path, registry_path: Path, record: VersionRecord, **more: object) -> Wish:
    return Wish(str(root), registry_path.as_uri(), record.archive.sha256, record.archive.size_bytes, **more)  # type: ignore[arg-type]


def test_an_archive_is_fetched_and_readable_by_others(
    root: Path, store: ArchiveStore, record: VersionRecord, seen: Observed
) -> None:
    """The archive is there under its digest, read-only for all, and fetched no second time."""
    for _ in range(2):
        path = fetched(store, record.archive)
    assert path.read_bytes() == b"some 1.0"
    assert path.stat().st_mode & 0o777 == 0o444
    assert names(root) == [stored(record)]
    assert seen == ["ok"]


def test_many_at_once_fetch_once(root: Path, store: ArchiveStore, record: VersionRecord, seen: Observed) -> None:
    """Twenty callers at once make one download; the others share it."""
    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(fetched, [store] * 20, [record.archive] * 20))) == 1
    assert seen.count("ok") == 1
    assert set(seen) <= {"ok", "shared"}
    assert names(root) == [stored(record)]


def test_a_missing_archive_is_named(root: Path, store: ArchiveStore, seen: Observed) -> None:
    """An archive that the registry does not have gives an error that says what to do."""
    with pytest.raises(LoadFailed, match="publish the version again"):
        fetched(store, ArchiveRef(sha256="0" * 64, size_bytes=1))
    assert seen == ["missing"]
    assert names(root) == []


def test_a_store_that_is_no_directory_is_an_outage(
    root: Path, store: ArchiveStore, record: VersionRecord, seen: Observed
) -> None:
    """A file in the store's place gives an error that says so, and that may be tried elsewhere."""
    root.write_text("not a directory")
    with pytest.raises(Unavailable, match="cannot store"):
        store.use(record.archive)
    assert seen == ["no_space"]


def test_the_least_recently_used_goes_first(
    tmp_path: Path, root: Path, registry: Registry, make: MakeStore, seen: Observed
) -> None:
    """At its limit the store evicts what was used longest ago, not what was fetched first, and no more than it must."""
    store = make(limit_bytes=3500)
    first, second, third, fourth = (published(registry, tmp_path, name) for name in ("a", "b", "c", "d"))
    for number, record in enumerate((third, second, first)):
        fetched(store, record.archive)
        os.utime(Layout(root).use_lock(record.archive.sha256), (number, number))
    fetched(store, third.archive)
    fetched(store, fourth.archive)
    assert names(root) == sorted(stored(record) for record in (first, third, fourth))
    assert seen == ["ok"] * 4


def test_what_is_used_is_never_evicted(
    tmp_path: Path, root: Path, registry: Registry, make: MakeStore, seen: Observed
) -> None:
    """A store whose archives are all in use refuses the next with a clear error, and takes it afterwards."""
    store = make(limit_bytes=2500)
    first, second, third = (published(registry, tmp_path, name) for name in ("a", "b", "c"))
    with store.use(first.archive) as kept:
        with (
            store.use(second.archive) as other,
            pytest.raises(Unavailable, match="in use by loaded versions") as raised,
        ):
            store.use(third.archive)
        assert raised.value.retry_after_s
        assert kept.path.exists()
        assert other.path.exists()
        store.use(third.archive).close()
        assert names(root) == sorted((stored(first), stored(third)))
    assert seen == ["ok", "ok", "no_space", "ok"]


def test_a_use_of_another_process_counts_until_it_dies(
    tmp_path: Path, root: Path, registry: Registry, make: MakeStore
) -> None:
    """What any pod uses stays, and what a killed pod used may go."""
    store = make(limit_bytes=1500)
    first, second = (published(registry, tmp_path, name) for name in ("a", "b"))
    with fetching(wish(root, tmp_path / "registry", first, hold=True)) as process:
        assert process.line() == {"at": "hold"}
        with pytest.raises(Unavailable, match="in use"):
            fetched(store, second.archive)
        process.process.kill()
        process.process.wait(30)
        fetched(store, second.archive)
    assert names(root) == [stored(second)]


def test_a_use_counts_once_for_each_version(tmp_path: Path, registry: Registry, make: MakeStore) -> None:
    """Two versions with one archive hold it until both let go; letting go twice is letting go once."""
    store = make(limit_bytes=1500)
    first, second = (published(registry, tmp_path, name) for name in ("a", "b"))
    one, two = store.use(first.archive), store.use(first.archive)
    one.close()
    one.close()
    with pytest.raises(Unavailable, match="in use"):
        fetched(store, second.archive)
    two.close()
    fetched(store, second.archive)


def test_nothing_is_evicted_for_what_can_never_fit(
    tmp_path: Path, root: Path, registry: Registry, make: MakeStore, seen: Observed
) -> None:
    """An archive larger than the store, or than what can be freed, is refused and costs no other its place."""
    store = make(limit_bytes=2500)
    small, used, large, huge = (
        published(registry, tmp_path, name, size) for name, size in (("a", 500), ("b", 1500), ("c", 2000), ("d", 3000))
    )
    fetched(store, small.archive)
    with store.use(used.archive):
        for record, said in ((large, "in use"), (huge, "archive_store_bytes")):
            with pytest.raises(Unavailable, match=said):
                fetched(store, record.archive)
    assert names(root) == sorted((stored(small), stored(used)))
    assert seen == ["ok", "ok", "no_space", "no_space"]


def test_some_of_the_volume_stays_free(root: Path, make: MakeStore, record: VersionRecord) -> None:
    """What is to stay free on the volume is not taken; the error names the setting."""
    volume = os.statvfs(root.parent)
    with pytest.raises(Unavailable, match="archive_store_free_bytes"):
        fetched(make(free_bytes=volume.f_blocks * volume.f_frsize), record.archive)
    assert names(root) == []


def test_downloads_at_once_do_not_overfill(
    tmp_path: Path, root: Path, registry: Registry, make: MakeStore, seen: Observed
) -> None:
    """Of eight downloads at once into a store for three, none begins that would overfill it."""
    records = [published(registry, tmp_path, f"m{number}", 1000) for number in range(8)]
    store = make(limit_bytes=3500)
    begun = threading.Barrier(8)

    def use(record: VersionRecord) -> object:
        begun.wait(30)
        try:
            return store.use(record.archive)
        except Unavailable:
            return None

    with ThreadPoolExecutor(8) as pool:
        uses = list(pool.map(use, records))
    assert sum(each is not None for each in uses) == 3
    assert len(names(root)) == 3
    assert sorted(seen) == ["no_space"] * 5 + ["ok"] * 3


def test_who_waits_leaves_a_store_that_is_closed(
    tmp_path: Path, root: Path, registry: Registry, store: ArchiveStore, record: VersionRecord, seen: Observed
) -> None:
    """Who waits for another process's download leaves at the store's end."""
    at = wish(root, tmp_path / "registry", record, signal="SIGSTOP", before="rename")
    with fetching(at) as process:
        assert process.line() == {"at": "signal"}
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.use, record.archive)
            deadline = time.monotonic() + 30
            while len(list(Layout(root).partials())) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            store.close()
            with pytest.raises(Unavailable, match="called off"):
                waiting.result(30)
        assert seen == ["unavailable"]
        assert len(names(root)) == 1


def test_what_dead_downloaders_left_is_removed(
    tmp_path: Path, root: Path, registry: Registry, make: MakeStore, record: VersionRecord
) -> None:
    """A start removes the files of downloads whose process is dead, and leaves those of the living."""
    other = published(registry, tmp_path, "other")
    dead = wish(root, tmp_path / "registry", record, signal="SIGKILL", before="rename")
    with fetching(dead) as process:
        process.line()
        process.process.wait(30)
    alive = wish(root, tmp_path / "registry", other, signal="SIGSTOP", before="rename")
    with fetching(alive):
        deadline = time.monotonic() + 30
        while len(names(root)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        make().clean()
        (left,) = names(root)
        assert other.archive.sha256 in left


def test_room_is_made_of_what_nobody_needs_first(
    tmp_path: Path, root: Path, registry: Registry, make: MakeStore, record: VersionRecord
) -> None:
    """Dead downloads and quarantined bytes go before any archive does."""
    store = make(limit_bytes=2500)
    first, damaged = published(registry, tmp_path, "a"), published(registry, tmp_path, "b")
    fetched(store, first.archive)
    object_of(tmp_path, damaged).write_bytes(bytes(1000))
    with pytest.raises(ArchiveCorrupt):
        fetched(store, damaged.archive)
    assert names(root / "quarantine") == sorted((stored(damaged), f"{damaged.archive.sha256}.json"))
    fetched(store, published(registry, tmp_path, "c").archive)
    assert fetched(store, first.archive).exists()
    assert names(root / "quarantine") == []


def object_of(tmp_path: Path, record: VersionRecord) -> Path:
    path = tmp_path / "registry" / "archives" / "sha256" / stored(record)
    path.chmod(0o644)
    return path


def test_the_quarantine_is_bounded(tmp_path: Path, root: Path, registry: Registry, make: MakeStore) -> None:
    """The newest eight corrupt archives are kept, none beyond the limit in bytes, each with what was found."""
    store = make(quarantine_bytes=5000)
    records = [published(registry, tmp_path, f"m{number}", 100) for number in range(10)]
    records.append(published(registry, tmp_path, "large", 6000))
    for record in records:
        object_of(tmp_path, record).write_bytes(b"x" * record.archive.size_bytes)
        with pytest.raises(ArchiveCorrupt, match="publish the version again"):
            fetched(store, record.archive)
    kept = names(root / "quarantine")
    assert len([name for name in kept if name.endswith(".json")]) == 8
    assert len([name for name in kept if name.endswith(".mar")]) == 7
    assert stored(records[-1]) not in kept
    reason = json.loads((root / "quarantine" / f"{records[-1].archive.sha256}.json").read_text())
    assert reason["expected_sha256"] == records[-1].archive.sha256
    assert "has other bytes" in reason["reason"]


def test_a_stopped_evictor_holds_nobody_up(
    root: Path, store: ArchiveStore, record: VersionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive whose lock is held alone by a process that makes no headway can be used all the same."""
    monkeypatch.setattr(locks, "STUCK_AFTER_S", 0.2)
    fetched(store, record.archive)
    held = locks.try_exclusive(Layout(root).use_lock(record.archive.sha256))
    assert held is not None
    try:
        with store.use(record.archive):
            assert locks.try_exclusive(Layout(root).use_lock(record.archive.sha256)) is None
    finally:
        os.close(held)


def test_bundles_are_kept_as_what_they_are(
    tmp_path: Path, root: Path, registry: Registry, make: MakeStore, seen: Observed
) -> None:
    """A bundle has a suffix of its own, and is evicted and kept while it is used as a `.mar` is."""
    store = make(limit_bytes=2500)
    bundle, other, third = (
        published(registry, tmp_path, name, kind=kind)
        for name, kind in (("a", "bundle"), ("b", "mar"), ("c", "bundle"))
    )
    path = fetched(store, bundle.archive)
    assert path.name == f"{bundle.archive.sha256}.bundle"
    fetched(store, other.archive)
    os.utime(Layout(root).use_lock(bundle.archive.sha256), (1, 1))
    fetched(store, third.archive)
    assert names(root) == sorted((stored(other), f"{third.archive.sha256}.bundle"))
    with store.use(third.archive):
        os.utime(Layout(root).use_lock(third.archive.sha256), (1, 1))
        fetched(store, bundle.archive)
        assert names(root) == sorted(f"{each.archive.sha256}.bundle" for each in (bundle, third))
    assert set(seen) == {"ok"}


def test_a_damaged_bundle_is_quarantined_as_one(
    tmp_path: Path, root: Path, registry: Registry, make: MakeStore
) -> None:
    """What came in its place keeps its suffix, counts as what the quarantine holds, and goes when room is wanted."""
    store = make(limit_bytes=2500)
    first, damaged = published(registry, tmp_path, "a"), published(registry, tmp_path, "b", kind="bundle")
    fetched(store, first.archive)
    path = tmp_path / f"registry/bundles/sha256/{damaged.archive.sha256}.bundle"
    path.chmod(0o644)
    path.write_bytes(bytes(1000))
    with pytest.raises(ArchiveCorrupt):
        fetched(store, damaged.archive)
    assert names(root / "quarantine") == [f"{damaged.archive.sha256}{end}" for end in (".bundle", ".json")]
    fetched(store, published(registry, tmp_path, "c").archive)
    assert fetched(store, first.archive).exists()
    assert names(root / "quarantine") == []
