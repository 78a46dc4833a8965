"""What every object store does: run over a directory and over a real S3 server."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from marway.errors import ArchiveCorrupt
from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore, open_store
from marway.objects.probing import probe

PARTS_BYTES = 20 * 1024 * 1024 + 3
"""More than two parts of an upload, and not a whole number of them."""


@pytest.fixture
def store(store_url: str) -> ObjectStore:
    return open_store(store_url)


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, str]:
    """A file of several upload parts, and its digest."""
    path = tmp_path / "large.mar"
    data = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(PARTS_BYTES // 32 + 1))[:PARTS_BYTES]
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def test_opens_again(store: ObjectStore, store_url: str) -> None:
    """A store's own URL opens the same store."""
    store.create("models/a/x.json", b"x")
    assert open_store(store.url).get("models/a/x.json").data == b"x"


def test_get_missing(store: ObjectStore) -> None:
    """An object that is not there is said to be missing by every way of reading it."""
    with pytest.raises(ObjectMissing):
        store.get("a/b")
    with pytest.raises(ObjectMissing), store.open("a/b"):
        pass
    assert store.size("a/b") is None


def test_create(store: ObjectStore) -> None:
    """A created object has its bytes, its size and the tag that creating it returned."""
    tag = store.create("a/b", b"data")
    stored = store.get("a/b")
    assert (stored.data, stored.etag) == (b"data", tag)
    assert store.size("a/b") == 4


def test_create_empty(store: ObjectStore) -> None:
    """An object may be empty."""
    store.create("a/empty", b"")
    assert store.get("a/empty").data == b""
    assert store.size("a/empty") == 0


def test_create_exists(store: ObjectStore) -> None:
    """Creating what exists is refused and leaves it as it is."""
    store.create("a/b", b"first")
    with pytest.raises(ObjectExists):
        store.create("a/b", b"second")
    assert store.get("a/b").data == b"first"


def test_replace(store: ObjectStore) -> None:
    """The tag of what is stored lets it be replaced, once."""
    first = store.create("a/b", b"1")
    second = store.replace("a/b", b"2", etag=first)
    assert store.get("a/b").data == b"2"
    with pytest.raises(ObjectChanged):
        store.replace("a/b", b"3", etag=first)
    assert store.get("a/b").etag == second


def test_replace_missing(store: ObjectStore) -> None:
    """Replacing what is not there is refused and makes nothing."""
    tag = store.create("a/b", b"1")
    store.delete("a/b")
    with pytest.raises(ObjectChanged):
        store.replace("a/b", b"2", etag=tag)
    assert store.size("a/b") is None


def test_one_creator_wins(store: ObjectStore) -> None:
    """Of many threads that create one key at once, one is told that it did, and its bytes are stored."""
    won = _at_once(8, lambda number: store.create("a/b", b"%d" % number))
    assert len(won) == 1
    assert store.get("a/b").data == b"%d" % won[0]


def test_one_replacer_wins(store: ObjectStore) -> None:
    """Of many threads that replace one object at once, one is told that it did, and its bytes are stored."""
    tag = store.create("a/b", b"before")
    won = _at_once(8, lambda number: store.replace("a/b", b"%d" % number, etag=tag))
    assert len(won) == 1
    assert store.get("a/b").data == b"%d" % won[0]


def _at_once(count: int, act: object) -> list[int]:
    barrier = threading.Barrier(count)

    def one(number: int) -> bool:
        barrier.wait(30)
        try:
            act(number)  # type: ignore[operator]
        except (ObjectExists, ObjectChanged):
            return False
        return True

    with ThreadPoolExecutor(count) as threads:
        return [number for number, won in enumerate(threads.map(one, range(count))) if won]


def test_create_file(store: ObjectStore, large: tuple[Path, str]) -> None:
    """A file of several parts is stored with its bytes, and progress ends at its size without going back."""
    path, digest = large
    seen: list[tuple[int, int]] = []
    store.create_file("archives/x.mar", path, sha256=digest, progress=lambda done, total: seen.append((done, total)))
    assert store.size("archives/x.mar") == PARTS_BYTES
    with store.open("archives/x.mar") as handle:
        assert hashlib.file_digest(handle, "sha256").hexdigest() == digest
    assert seen[-1] == (PARTS_BYTES, PARTS_BYTES)
    assert seen == sorted(seen)


def test_create_small_file(store: ObjectStore, tmp_path: Path) -> None:
    """A small file is stored with its bytes."""
    path = tmp_path / "small.mar"
    path.write_bytes(b"small")
    store.create_file("archives/s.mar", path, sha256=hashlib.sha256(b"small").hexdigest())
    assert store.get("archives/s.mar").data == b"small"


@pytest.mark.parametrize("size", [10, PARTS_BYTES])
def test_create_file_corrupt(store: ObjectStore, tmp_path: Path, size: int) -> None:
    """A file with other bytes than promised is refused, and nothing of it stays."""
    path = tmp_path / "bad.mar"
    path.write_bytes(bytes(size))
    with pytest.raises(ArchiveCorrupt, match="changed while it was being read"):
        store.create_file("archives/x.mar", path, sha256="0" * 64)
    assert store.size("archives/x.mar") is None
    assert store.sweep(older_than_s=-60, dry_run=True) == ()


def test_create_file_exists(store: ObjectStore, large: tuple[Path, str]) -> None:
    """A file is not read when the object exists."""
    path, digest = large
    store.create("archives/x.mar", b"there")
    path.unlink()
    with pytest.raises(ObjectExists):
        store.create_file("archives/x.mar", path, sha256=digest)


def test_create_file_race(store: ObjectStore, large: tuple[Path, str]) -> None:
    """Many who store the same file at once leave it whole, and no unfinished upload behind."""
    path, digest = large

    def one(_: int) -> None:
        with contextlib.suppress(ObjectExists):
            store.create_file("archives/x.mar", path, sha256=digest)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one, range(4)))
    with store.open("archives/x.mar") as handle:
        assert hashlib.file_digest(handle, "sha256").hexdigest() == digest
    assert store.sweep(older_than_s=-60, dry_run=True) == ()


def test_open_ranges(store: ObjectStore, large: tuple[Path, str]) -> None:
    """An opened object can be read from any byte on, and seeks."""
    path, digest = large
    store.create_file("archives/x.mar", path, sha256=digest)
    data = path.read_bytes()
    with store.open("archives/x.mar", start=PARTS_BYTES - 7) as handle:
        assert handle.read() == data[-7:]
        assert handle.read(1) == b""
        handle.seek(1000)
        assert handle.read(10) == data[1000:1010]
        handle.seek(-5, 2)
        assert handle.read() == data[-5:]


def test_open_part(store: ObjectStore, large: tuple[Path, str]) -> None:
    """A part of an object has the object's bytes and ends where it was to, or where the object does."""
    path, digest = large
    store.create_file("archives/x.mar", path, sha256=digest)
    data, end = path.read_bytes(), PARTS_BYTES
    for start, length in (
        *((0, end), (0, 1), (1000, 3_000_000), (end - 7, 7), (end - 7, 100)),
        *((5, 0), (0, 0), (end, 10), (end + 5, 10)),
    ):
        with store.open("archives/x.mar", start=start, length=length) as handle:
            assert handle.read() == data[start : start + length]
            assert handle.read(1) == b""


def test_seek_part(store: ObjectStore) -> None:
    """Positions in a part are the object's own, and its end is the part's."""
    store.create("a/b", b"0123456789")
    with store.open("a/b", start=2, length=5) as handle:
        assert (handle.tell(), handle.read(2), handle.tell()) == (2, b"23", 4)
        assert handle.seek(0) == 0
        assert handle.read() == b"0123456"
        assert handle.seek(-1, 2) == 6
        assert handle.read() == b"6"


@pytest.mark.parametrize("length", [0, 10])
def test_part_of_missing(store: ObjectStore, length: int) -> None:
    """A part of an object that is not there is missing when it is opened, not only when it is read."""
    with pytest.raises(ObjectMissing), store.open("a/b", start=0, length=length):
        pass


def test_parts_at_once(store: ObjectStore, large: tuple[Path, str]) -> None:
    """Parts read by several threads at once, each from one open store, together are the object."""
    path, digest = large
    store.create_file("archives/x.mar", path, sha256=digest)
    size = 1024 * 1024

    def part(start: int) -> bytes:
        with store.open("archives/x.mar", start=start, length=size) as handle:
            return handle.read()

    with ThreadPoolExecutor(4) as threads:
        found = b"".join(threads.map(part, range(0, PARTS_BYTES, size)))
    assert hashlib.sha256(found).hexdigest() == digest
    assert isinstance(store.parallel_reads, bool)


def test_delete(store: ObjectStore) -> None:
    """A deleted object is gone, deleting it again is no error, and it can be created anew."""
    store.create("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    assert list(store.keys("a/")) == []
    store.create("a/b", b"2")


def test_delete_if_unchanged(store: ObjectStore) -> None:
    """Deleting on condition of a tag leaves an object that has another."""
    old = store.create("a/b", b"1")
    new = store.replace("a/b", b"2", etag=old)
    with pytest.raises(ObjectChanged):
        store.delete("a/b", etag=old)
    assert store.get("a/b").data == b"2"
    store.delete("a/b", etag=new)
    store.delete("a/b", etag=new)
    assert store.size("a/b") is None


def test_keys(store: ObjectStore) -> None:
    """Keys of a prefix come in byte order, and can begin behind one of them."""
    names = ["1.0", "1.0+b", "1.0-a", "10", "2", "B", "a"]
    for name in reversed(names):
        store.create(f"m/versions/{name}.json", b"")
    store.create("m/versions2/other.json", b"")
    expected = sorted(f"m/versions/{name}.json" for name in names)
    assert list(store.keys("m/versions/")) == expected
    assert list(store.keys("m/versions/1.0")) == [key for key in expected if key.startswith("m/versions/1.0")]
    assert list(store.keys("m/versions/", start_after=expected[2])) == expected[3:]
    assert list(store.keys("nothing/")) == []


def test_sizes(store: ObjectStore) -> None:
    """Sizes come with the keys of a prefix, in their order; of the whole store, too."""
    for name, data in (("m/a", b"xyz"), ("m/b/c", b""), ("n", b"1")):
        store.create(name, data)
    assert list(store.sizes("m/")) == [("m/a", 3), ("m/b/c", 0)]
    assert dict(store.sizes("")) == {"m/a": 3, "m/b/c": 0, "n": 1}
    assert list(store.sizes("nothing/")) == []


def test_children(store: ObjectStore) -> None:
    """The parts below a prefix come once each, in byte order, and can begin behind any of them."""
    names = ["a", "a-b", "a-b.c", "a.b", "a0", "a_", "ab", "b"]
    for name in names:
        store.create(f"models/{name}/state.json", b"")
        store.create(f"models/{name}/versions/1.json", b"")
    store.create("models/file.json", b"")
    assert list(store.children("models/")) == sorted(names)
    for count, name in enumerate(sorted(names), 1):
        assert list(store.children("models/", start_after=name)) == sorted(names)[count:]
    assert list(store.children("models/", start_after="a-z")) == [name for name in sorted(names) if name > "a-z"]


def test_pages(store: ObjectStore) -> None:
    """More keys than fit one page of a listing are all listed, and the first come without the rest."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.create(f"models/m{number:04d}/x", b""), range(1100)))
    names = [f"m{number:04d}" for number in range(1100)]
    assert list(store.children("models/")) == names
    assert list(itertools.islice(store.keys("models/"), 3)) == [f"models/{name}/x" for name in names[:3]]
    assert list(store.children("models/", start_after="m0997")) == names[998:]


@pytest.mark.parametrize("key", ["", "/", "a//b", "../a", "a/../b", "a/.b"])
def test_bad_keys(store: ObjectStore, key: str) -> None:
    """Keys that could leave the store or hide in it are a programming error, and write nothing."""
    with pytest.raises(ValueError, match="not an object key"):
        store.create(key, b"")


def test_turn(store: ObjectStore) -> None:
    """Turns at a key come one after another."""
    inside = 0
    most = 0

    def one(_: int) -> None:
        nonlocal inside, most
        with store.advisory_lock("a/b"):
            inside += 1
            most = max(most, inside)
            inside -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, range(50)))
    assert most == 1


def test_probe(store: ObjectStore) -> None:
    """A store whose conditions hold passes the probe, which leaves nothing behind."""
    probe(store)
    assert list(store.keys("probes/")) == []


def test_sweep(store: ObjectStore) -> None:
    """What a killed probe left goes when it is old enough, and nothing else does."""
    store.create("probes/left", b"")
    store.create("models/a/x", b"")
    assert store.sweep(older_than_s=3600) == ()
    assert store.sweep(older_than_s=-60, dry_run=True) == ("probes/left",)
    assert store.sweep(older_than_s=-60) == ("probes/left",)
    assert store.sweep(older_than_s=-60) == ()
    assert store.size("models/a/x") == 0
