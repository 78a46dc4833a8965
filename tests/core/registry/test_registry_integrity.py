"""What is stored is believed only as it was written, where it was written, and never older than it was seen."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marway.errors import InvalidRecord, RegistryUnavailable
from marway.objects import DirectoryStore, open_store
from marway.records import ArchiveRef, Proof, utc_now
from marway.refs import Reference
from marway.registry import Damage, Registry
from marway.registry.encoding import encode, sealed, unsealed
from support.registry import Publish, publisher, record_of

GOLDEN = b'{"golden": "answers"}'
KEY = "models/intent/state.json"
DOCUMENT = sealed(b'{\n "format": 1,\n "labels": {\n  "PROD": "1.0"\n }\n}', key=KEY)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DOCUMENT) * 8 - 1))
def test_no_flipped_bit_changes_what_is_read(bit: int) -> None:
    """With any one bit of a document flipped it is refused, or read as it was written."""
    damaged = bytearray(DOCUMENT)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        data = unsealed(bytes(damaged), key=KEY)
    except InvalidRecord:
        return
    try:
        found = json.loads(data)
    except ValueError:
        return  # which `decode` refuses
    assert {name: found.get(name) for name in ("format", "labels")} == {"format": 1, "labels": {"PROD": "1.0"}}


def test_a_document_of_before_is_read() -> None:
    """A document without a digest is read as it is."""
    assert unsealed(b'{\n "format": 1\n}', key=KEY) == b'{\n "format": 1\n}'


def test_every_document_carries_its_digest_and_key(registry: Registry, publish: Publish, root: Path) -> None:
    """Each JSON object that the registry writes is sealed; archives and golden answers are named by their digest."""
    record = publish(golden=GOLDEN)
    registry.create()
    for number in range(205):
        registry.release("intent", "1.0", note=str(number), by="test")
    registry.prove(
        Proof(kind="pod", archive_sha256=record.archive.sha256, server="x", duration_s=1, at=utc_now(), by="test")
    )
    registry._store.create(f"archives/sha256/{'0' * 64}.mar", b"orphan")
    registry.gc()
    kinds = set()
    for key in registry._store.keys(""):
        if not key.startswith(("archives/", "golden/")):
            assert json.loads((root / key).read_text())["integrity"]["key"] == key
            kinds.add(key.split("/")[0] if not key.startswith("models/") else key.split("/")[2])
    assert kinds == {"registry.json", "versions", "state.json", "history", "ids", "proofs", "gc"}


def test_a_changed_document_is_refused(registry: Registry, publish: Publish, root: Path) -> None:
    """A state and a record whose meaning was changed by hand or by a disk are refused, with the object's name."""
    publish()
    registry.release("intent", "1.0", by="test")
    for key, old, new in ((KEY, b'"PROD"', b'"PROE"'), ("models/intent/versions/1.0.json", b'"pods": 1', b'"pods": 9')):
        path = root / key
        good = path.read_bytes()
        assert old in good
        path.write_bytes(good.replace(old, new, 1))
        with pytest.raises(InvalidRecord, match=f"{key} is damaged"):
            Registry(DirectoryStore(root)).resolve(Reference("intent", "PROD"))
        path.write_bytes(good)
    assert registry.resolve(Reference("intent")).version == "1.0"


@pytest.mark.parametrize("old", [False, True], ids=["sealed", "of before"])
def test_a_document_under_another_key_is_refused(registry: Registry, publish: Publish, root: Path, old: bool) -> None:
    """A record in another version's place, or a name's pointer in another's, is refused, also one of before."""
    for version in ("1.0", "2.0"):
        record = publish(version=version)
        if old:
            (root / f"models/intent/versions/{version}.json").write_bytes(encode(record))
    (root / "models/intent/versions/1.0.json").write_bytes((root / "models/intent/versions/2.0.json").read_bytes())
    with pytest.raises(InvalidRecord, match=r"versions/1\.0\.json is damaged: it holds"):
        registry.record("intent", "1.0")
    publish("other")
    other = (root / "ids/other.json").read_bytes()
    (root / "ids/intent.json").write_bytes(unsealed(other, key="ids/other.json") if old else other)
    with pytest.raises(InvalidRecord, match=r"ids/intent\.json is damaged"):
        registry.pointer("intent")


def test_an_old_state_is_refused(registry: Registry, publish: Publish, root: Path) -> None:
    """An old state that is put back, also one that was changed since, is refused by every reader that knows better."""
    for version in ("1.0", "2.0"):
        publish(version=version)
    registry.release("intent", "1.0", by="test")
    old = (root / KEY).read_bytes()
    registry.release("intent", "2.0", by="test")
    new = (root / KEY).read_bytes()
    assert registry.state("intent").generation == 2
    (root / KEY).write_bytes(old)
    for call in (lambda: registry.state("intent"), lambda: registry.release("intent", "2.0", by="test")):
        with pytest.raises(InvalidRecord, match="is of generation 1, and 2 was read before: an old state was put back"):
            call()
    Registry(DirectoryStore(root)).release("intent", "1.0", by="somebody who has not seen the newer one")
    with pytest.raises(InvalidRecord, match="has another change 2 than was read before"):
        registry.state("intent")
    (root / KEY).write_bytes(new)
    assert registry.state("intent").labels == {"PROD": "2.0"}
    (root / KEY).unlink()
    with pytest.raises(RegistryUnavailable, match="vanished"):
        registry.state("intent")


def test_a_slow_read_is_no_old_state(registry: Registry, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that others overtake while it waits returns what it read, and is not taken for a state put back."""
    publish()
    registry.release("intent", "1.0", by="test")
    get = registry._store.get
    begun, go_on = threading.Event(), threading.Event()

    def slow(key: str) -> object:
        stored = get(key)
        if key == KEY and threading.current_thread() is thread:
            begun.set()
            go_on.wait(30)
        return stored

    read: list[int] = []
    thread = threading.Thread(target=lambda: read.append(registry.state("intent").generation))
    monkeypatch.setattr(registry._store, "get", slow)
    thread.start()
    assert begun.wait(30)
    registry.release("intent", "1.0", by="test")
    assert registry.state("intent").generation == 2
    go_on.set()
    thread.join(30)
    assert read == [1]


def test_a_damaged_state_fails_no_list(registry: Registry, publish: Publish, root: Path) -> None:
    """One damaged state is said in the list of models, and the others are listed."""
    for name in ("a", "b", "c"):
        publish(name)
        registry.release(name, "1.0", by="test")
    (root / "models/b/state.json").write_bytes(b"{")
    found = list(registry.summaries())
    assert [(each.name, dict(each.state.labels), each.damage is None) for each in found] == [
        ("a", {"PROD": "1.0"}, True),
        ("b", {}, False),
        ("c", {"PROD": "1.0"}, True),
    ]


def test_a_damaged_proof_proves_nothing(registry: Registry, publish: Publish, root: Path) -> None:
    """A proof that cannot be believed does not count, and does not stand in the way of one that does."""
    record = publish()
    proof = Proof(kind="pod", archive_sha256=record.archive.sha256, server="x", duration_s=1, at=utc_now(), by="test")
    registry.prove(proof)
    (path,) = (root / "proofs" / record.archive.sha256).iterdir()
    path.write_bytes(path.read_bytes().replace(b'"pod"', b'"pud"'))
    assert not registry.is_proved(record)
    registry.prove(proof)
    assert registry.is_proved(record)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path, str, str], Path], str]] = {
    "archive": (lambda root, sha, _golden: root / f"archives/sha256/{sha}.mar", "publish the version again"),
    "golden": (lambda root, _sha, golden: root / f"golden/{golden}.json", "and golden answers"),
    "record": (lambda root, *_: root / "models/intent/versions/1.0.json", "from a backup"),
    "state": (lambda root, *_: root / KEY, "from a backup"),
    "history": (lambda root, *_: next((root / "models/intent/history").iterdir()), "from a backup"),
    "name": (lambda root, *_: root / "ids/intent.json", "delete it, then publish"),
    "proof": (lambda root, sha, _golden: next((root / "proofs" / sha).iterdir()), "proves the version again"),
    "identity": (lambda root, *_: root / "registry.json", "from a backup"),
}


@pytest.mark.parametrize("gone", [False, True], ids=["changed", "gone"])
@pytest.mark.parametrize("what", DAMAGES)
def test_scrub(registry: Registry, publish: Publish, root: Path, what: str, gone: bool) -> None:
    """A scrub reads every object, names what is damaged, or missing where it is needed, and says what to do."""
    registry.create()
    record = publish(golden=GOLDEN)
    registry.prove(
        Proof(kind="pod", archive_sha256=record.archive.sha256, server="x", duration_s=1, at=utc_now(), by="test")
    )
    for _ in range(205):
        registry.release("intent", "1.0", by="test")
    fresh = Registry(DirectoryStore(root), must_exist=True)
    assert list(fresh.scrub()) == []
    find, mend = DAMAGES[what]
    path = find(root, record.archive.sha256, record.golden_sha256 or "")
    if gone:
        path.unlink()
    else:
        _flip(path)
    found = list(Registry(DirectoryStore(root), must_exist=True).scrub())
    if gone and what in ("name", "proof", "identity", "state", "record"):
        assert all(isinstance(each, Damage) for each in found)  # nothing says that there was one, or others do
        return
    named = root / KEY if gone and what == "history" else path
    assert [each.key for each in found if root / each.key == named], found
    assert mend in next(each.mend for each in found if root / each.key == named)


def test_scrub_finds_an_old_state(registry: Registry, publish: Publish, root: Path) -> None:
    """A scrub finds a state that was put back, where a chunk of history tells of later changes."""
    publish()
    registry.release("intent", "1.0", by="test")
    old = (root / KEY).read_bytes()
    for _ in range(205):
        registry.release("intent", "1.0", by="test")
    (root / KEY).write_bytes(old)
    (found,) = Registry(DirectoryStore(root)).scrub()
    assert found.key == KEY
    assert "it was put back" in found.what


def test_gc_goes_by_the_stores_clock(store_url: str, tmp_path: Path) -> None:
    """A mark is as old as the store says, whatever the clock of the machine that made it or that looks at it says."""
    publishing, behind, right = (Registry(open_store(store_url)) for _ in range(3))
    publisher(publishing, tmp_path)()
    orphan = f"archives/sha256/{record_of(b'orphan').archive.sha256}.mar"
    publishing._store.create(orphan, b"orphan")
    behind.gc(now=utc_now() - timedelta(hours=25))
    assert right.gc().waiting == [orphan]
    now, written = right._store.now(), right._store.written_at(f"gc/{orphan}")
    assert written is not None
    assert abs(now - written) < timedelta(minutes=5)


def test_gc_looks_again_after_condemning(registry: Registry, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a publish relies on is kept, though gc saw it unused and an old mark says that it may go."""
    data = b"intent 1.0"
    orphan = f"archives/sha256/{record_of(data).archive.sha256}.mar"
    registry._store.create(orphan, data)
    registry.gc()
    scan = registry._scan

    def then_published() -> object:
        monkeypatch.setattr(registry, "_scan", scan)
        stale = scan()
        registry._store.create("models/intent/versions/1.0.json", encode(record_of(data)))  # knows no marks
        return stale

    monkeypatch.setattr(registry, "_scan", then_published)
    report = registry.gc(now=utc_now() + timedelta(hours=25))
    assert (report.deleted, report.kept) == ([], [orphan])
    assert registry._store.size(orphan) == len(data)


def test_a_publish_outlives_a_gc_that_condemned_before(registry: Registry, publish: Publish, tmp_path: Path) -> None:
    """An archive that gc condemned and deleted while it was being published is stored again before the answer."""
    record = record_of(b"bytes")
    orphan = f"archives/sha256/{record.archive.sha256}.mar"
    (tmp_path / "a.mar").write_bytes(b"bytes")
    collecting = Registry(registry._store)
    create = registry._store.create

    def collect_first(key: str, data: bytes) -> str:
        if key.startswith("models/"):  # the archive is there, the record is not yet
            registry._store.create = create  # type: ignore[method-assign]
            collecting.gc()
            assert collecting.gc(now=utc_now() + timedelta(hours=25)).deleted == [orphan]
        return create(key, data)

    registry._store.create = collect_first  # type: ignore[method-assign]
    assert registry.publish(record, tmp_path / "a.mar") == record
    assert registry._store.size(orphan) == ArchiveRef(**record.archive.model_dump()).size_bytes


def test_sweeping_goes_by_the_stores_clock(registry: Registry, publish: Publish, root: Path, monkeypatch) -> None:
    """A machine whose clock is a day ahead sweeps nothing that somebody is writing now."""
    publish()
    left = root / "models" / ".tmp-now"
    left.write_bytes(b"")
    monkeypatch.setattr("time.time", lambda: left.stat().st_mtime + 90_000)
    assert registry.gc().swept == []
    assert left.exists()
