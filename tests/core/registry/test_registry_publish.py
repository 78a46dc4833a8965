"""Publishing: immutable versions, names and ids that are nobody else's, proofs."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from marway.errors import ArchiveCorrupt, InvalidRecord, ModelNotFound, VersionConflict, VersionNotFound
from marway.objects import DirectoryStore, ObjectStore, open_store
from marway.proofs.replays import Replay, ReplayCounts
from marway.records import Proof, VersionRecord, utc_now
from marway.refs import Reference
from marway.registry import Registry
from marway.registry.encoding import sealed, unsealed
from support.invariants import assert_sound
from support.registry import Publish, publisher, record_of

GOLDEN = b'{"answers": ["yes"]}'


def test_publish(store_url: str, tmp_path: Path) -> None:
    """A published version is found by name and version and by its id, with all its objects, in any store."""
    store = open_store(store_url)
    registry = Registry(store)
    record = publisher(registry, tmp_path)("intent", "1.0", golden=GOLDEN, id="run-7")
    assert registry.resolve(Reference("intent", "1.0")) == record
    assert registry.resolve(Reference("run-7")) == record
    assert registry.versions("intent") == ("1.0",)
    assert record.golden_sha256 is not None
    assert registry.golden(record.golden_sha256) == GOLDEN
    with registry.open_archive(record.archive, start=3) as handle:
        assert handle.read() == b"ent 1.0"
    assert_sound(store)


def test_publish_again(publish: Publish) -> None:
    """Publishing the same bytes again changes nothing and returns the old record."""
    first = publish("intent", "1.0", publisher="somebody")
    assert publish("intent", "1.0", publisher="somebody else") == first


def test_other_bytes(publish: Publish, registry: Registry) -> None:
    """The same version with other bytes is refused and leaves nothing behind."""
    publish("intent", "1.0", data=b"one")
    with pytest.raises(VersionConflict, match="exists with other bytes"):
        publish("intent", "1.0", data=b"two")
    assert len(list(registry._store.keys("archives/"))) == 1


def test_wrong_digest(registry: Registry, tmp_path: Path) -> None:
    """An archive that is not what its record says is refused, and no record is written."""
    path = tmp_path / "x.mar"
    path.write_bytes(b"other")
    with pytest.raises(ArchiveCorrupt):
        registry.publish(record_of(b"bytes"), path)
    assert list(registry.models()) == []


def test_large_record(publish: Publish) -> None:
    """A record of more than 64 KiB is refused."""
    with pytest.raises(InvalidRecord, match="at most 65536 are accepted"):
        publish(algorithm="x" * 70_000)


def test_wrong_golden(registry: Registry, tmp_path: Path) -> None:
    """Golden answers that are not those the record names, or are missing, are refused."""
    path = tmp_path / "x.mar"
    path.write_bytes(b"bytes")
    record = record_of(b"bytes", golden_sha256=hashlib.sha256(GOLDEN).hexdigest())
    with pytest.raises(InvalidRecord, match="another digest"):
        registry.publish(record, path, golden=b"other")
    with pytest.raises(InvalidRecord, match="publish with them"):
        registry.publish(record, path)
    assert list(registry.models()) == []


def test_same_archive_in_two_models(publish: Publish, registry: Registry) -> None:
    """Two models may have the same bytes, which are stored once."""
    publish("one", data=b"same")
    publish("two", data=b"same")
    assert len(list(registry._store.keys("archives/"))) == 1


@pytest.mark.parametrize("other", ["Intent", "INTENT"])
def test_names_in_any_case(publish: Publish, registry: Registry, other: str) -> None:
    """A name that differs from a model's only in case finds that model, and cannot be another's."""
    publish("intent")
    registry.release("intent", "1.0", by="test")
    assert registry.resolve(Reference(other)).name == "intent"
    with pytest.raises(VersionConflict, match=r"differs from .* only in case"):
        publish(other, "2.0")


@pytest.mark.parametrize("own", ["run7", "Run7"])
@pytest.mark.parametrize("name", ["run7", "Run7", "RUN7"])
def test_name_of_an_id(publish: Publish, own: str, name: str) -> None:
    """A model cannot have a name that would match another version's id."""
    publish("intent", id=own)
    with pytest.raises(VersionConflict):
        publish(name)


@pytest.mark.parametrize("own", ["run7", "Run7"])
def test_id_of_a_name(publish: Publish, own: str) -> None:
    """A version cannot have an id that would match a model's name."""
    publish("run7")
    with pytest.raises(VersionConflict, match="taken by the model run7"):
        publish("intent", id=own)


def test_id_taken(publish: Publish, registry: Registry) -> None:
    """Two versions cannot have one id, and the second leaves nothing that shows."""
    publish("intent", "1.0", id="run-7")
    with pytest.raises(VersionConflict, match=r"taken by intent 1\.0"):
        publish("intent", "2.0", id="run-7")
    with pytest.raises(VersionConflict, match=r"taken by intent 1\.0"):
        publish("other", "1.0", id="run-7")
    assert registry.versions("intent") == ("1.0",)


def test_ids_keep_their_case(publish: Publish, registry: Registry) -> None:
    """An id stands for its version as it is written, and for nothing in another case."""
    publish("intent", id="Run-7")
    assert registry.resolve(Reference("Run-7")).version == "1.0"
    for other in ("run-7", "RUN-7"):
        with pytest.raises(ModelNotFound):
            registry.resolve(Reference(other))


def race(
    store: ObjectStore, tmp_path: Path, records: list[VersionRecord]
) -> tuple[list[VersionRecord], list[Exception]]:
    """Publish all records at the same moment, past the checks that come first; return who won and who lost."""
    barrier = threading.Barrier(len(records))

    class Racing(Registry):
        def _publishable(self, record: VersionRecord) -> VersionRecord:
            record = super()._publishable(record)
            barrier.wait(30)
            return record

    def one(record: VersionRecord) -> VersionRecord | Exception:
        try:
            return Racing(store).publish(record, tmp_path / "x.mar")
        except VersionConflict as exc:
            return exc

    (tmp_path / "x.mar").write_bytes(b"bytes")
    with ThreadPoolExecutor(len(records)) as threads:
        done = list(threads.map(one, records))
    return [each for each in done if not isinstance(each, Exception)], [
        each for each in done if isinstance(each, Exception)
    ]


def test_race_for_an_id(store_url: str, tmp_path: Path) -> None:
    """Of two models that claim one id at once one gets it, and the other can be published under another."""
    store = open_store(store_url)
    records = [record_of(b"bytes", name=name, id="Run-7") for name in ("one", "two")]
    won, lost = race(store, tmp_path, records)
    assert (len(won), len(lost)) == (1, 1)
    assert Registry(store).resolve(Reference("Run-7")) == won[0]
    loser = next(record for record in records if record != won[0])
    assert Registry(store).versions(loser.name) == ()
    Registry(store).publish(record_of(b"bytes", name=loser.name, id="Run-8"), tmp_path / "x.mar")
    assert_sound(store)


def test_race_for_a_name(store_url: str, tmp_path: Path) -> None:
    """Of models whose names differ only in case and that are published at the same moment, one remains."""
    store = open_store(store_url)
    won, lost = race(store, tmp_path, [record_of(b"bytes", name=name) for name in ("intent", "Intent", "INTENT")])
    assert (len(won), len(lost)) == (1, 2)
    registry = Registry(store)
    assert registry.find("iNTENT") == won[0].name
    assert [name for name in registry.models() if registry.versions(name)] == [won[0].name]


def test_race_for_a_version(store_url: str, tmp_path: Path) -> None:
    """Publishers of one version with the same bytes at the same moment all get the one record that is stored."""
    store = open_store(store_url)
    won, lost = race(store, tmp_path, [record_of(b"bytes") for _ in range(3)])
    assert lost == []
    assert {record.id for record in won} == {Registry(store).record("intent", "1.0").id}


class StopsBefore(DirectoryStore):
    """A store whose writer is gone before the first key that has something in it."""

    part = ""

    def create(self, key: str, data: bytes) -> str:
        if self.part and self.part in key:
            raise KeyboardInterrupt
        return super().create(key, data)


@pytest.mark.parametrize("part", ["golden/", "versions/", "ids/intent", "ids/run-7", "ids/Run-7"])
def test_interrupted(tmp_path: Path, part: str) -> None:
    """An interrupted publish shows nothing that could be released, and publishing again finishes it."""
    store = StopsBefore(tmp_path / "registry")
    registry = Registry(store)
    publish = publisher(registry, tmp_path)
    store.part = part
    with pytest.raises(KeyboardInterrupt):
        publish(golden=GOLDEN, id="Run-7")
    with pytest.raises((ModelNotFound, VersionNotFound)):
        registry.release("intent", "1.0", by="test")
    with pytest.raises((ModelNotFound, VersionNotFound)):
        registry.resolve(Reference("intent", "1.0"))
    store.part = ""
    record = publish(golden=GOLDEN, id="Run-7")
    assert registry.resolve(Reference("Run-7")) == record
    assert registry.release("intent", "1.0", by="test").state.labels == {"PROD": "1.0"}
    assert_sound(store)


def test_damaged_archive(publish: Publish, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Publishing again replaces an archive whose bytes are not its own, of its length or another, and says so."""
    record = publish()
    path = tmp_path / "registry" / "archives" / "sha256" / f"{record.archive.sha256}.mar"
    good = path.read_bytes()
    for damaged in (b"short", bytes([good[0] ^ 1]) + good[1:], good + b"more"):
        path.write_bytes(damaged)
        caplog.clear()
        assert publish() == record
        assert path.read_bytes() == good
        assert "was damaged: it is stored again" in caplog.text
    caplog.clear()
    publish()
    assert not caplog.records


def test_damaged_golden_answers(publish: Publish, registry: Registry, tmp_path: Path) -> None:
    """Golden answers with another digest are refused to a reader, and replaced by publishing with the right ones."""
    record = publish(golden=GOLDEN)
    assert record.golden_sha256 is not None
    path = tmp_path / "registry" / "golden" / f"{record.golden_sha256}.json"
    path.write_bytes(GOLDEN + b" ")
    with pytest.raises(InvalidRecord, match="is damaged: its bytes have another digest"):
        registry.golden(record.golden_sha256)
    publish(golden=GOLDEN)
    assert registry.golden(record.golden_sha256) == GOLDEN


def test_lost_archive_is_repaired(publish: Publish, registry: Registry) -> None:
    """Publishing again brings back an archive that the store lost."""
    record = publish()
    registry._store.delete(f"archives/sha256/{record.archive.sha256}.mar")
    publish()
    with registry.open_archive(record.archive) as handle:
        assert handle.read() == b"intent 1.0"


def test_proofs(publish: Publish, registry: Registry) -> None:
    """Proofs of an archive are kept and read in the order in which they came."""
    record = publish(golden=GOLDEN)
    proofs = [
        Proof(
            kind=kind,
            archive_sha256=record.archive.sha256,
            server="torchserve",
            server_versions={"torchserve": "0.12.0", "torch": "2.13.0"},
            golden_sha256=record.golden_sha256,
            duration_s=1.5,
            at=utc_now(),
            by="test",
        )
        for kind in ("pack", "pod")
    ]
    for proof in proofs:
        registry.prove(proof)
    assert list(registry.proofs(record.archive.sha256)) == proofs
    with pytest.raises(ArchiveCorrupt, match="no archive"):
        registry.prove(proofs[0].model_copy(update={"archive_sha256": "0" * 64}))


def test_other_proofs(publish: Publish, registry: Registry, tmp_path: Path) -> None:
    """A replay, and a kind of the future, are kept where readers from before do not look, and prove no load."""
    record = publish(golden=GOLDEN)
    facts = {"archive_sha256": record.archive.sha256, "golden_sha256": record.golden_sha256, "duration_s": 1.5}
    facts |= {"server": "gateway", "at": utc_now(), "by": "test"}
    since = utc_now()
    counts = ReplayCounts(compared=10, agree=9, failed=1)
    replay = Replay(
        model="intent", base="0.9", candidate="1.0", since=since, until=since, inputs=10, counts=counts,
        breaches=("errors: 1 of 10 inputs, more than 1%",),
    )  # fmt: skip
    proofs = [Proof(kind="replay", replay=replay, **facts), Proof(kind="later", **facts)]
    for proof in proofs:
        registry.prove(proof)
    assert list(registry.proofs(record.archive.sha256)) == proofs
    assert not registry.is_proved(record)
    assert list(registry._store.keys("proofs/")) == []
    assert "9 of 10 inputs decided as by 0.9, 1 failed; errors: 1 of 10" in proofs[0].finding
    assert "does not know" in proofs[1].finding
    assert list(registry.scrub()) == []
    (path, _) = sorted((tmp_path / "registry" / "checks" / record.archive.sha256).iterdir())
    path.write_bytes(path.read_bytes().replace(b'"agree": 9', b'"agree": 8'))
    assert [damage.mend for damage in registry.scrub()] == [
        "delete it, and check the version again, as with marway replay"
    ]


def test_fields_of_the_future(publish: Publish, registry: Registry) -> None:
    """A reader ignores fields it does not know, and a writer keeps those of a state that it writes again."""
    publish()
    registry.release("intent", "1.0", by="test")
    stored = registry._store.get("models/intent/state.json")
    key = "models/intent/state.json"
    body = unsealed(stored.data, key=key).replace(b'"generation": 1,', b'"generation": 1, "later": {"x": 1},')
    data = sealed(body, key=key)
    registry._store.replace("models/intent/state.json", data, etag=stored.etag)
    registry.release("intent", "1.0", by="test")
    after = registry._store.get("models/intent/state.json").data
    assert b'"later": {' in after
    assert after.count(b'"later"') == data.count(b'"later"')


def test_ten_thousand_models(tmp_path: Path) -> None:
    """Of 10,000 models the first are listed without reading the rest, and a list can begin anywhere."""
    reads: list[str] = []

    class Counting(DirectoryStore):
        def get(self, key: str):
            reads.append(key)
            return super().get(key)

    root = tmp_path / "registry"
    for number in range(10_000):
        versions = root / "models" / f"m{number:05d}" / "versions"
        versions.mkdir(parents=True)
        (versions / "1.json").touch()
    registry = Registry(Counting(root))
    found = registry.summaries(start_after="m04999")
    assert [next(found).name for _ in range(3)] == ["m05000", "m05001", "m05002"]
    found.close()
    assert len(reads) < 50
    assert sum(1 for _ in registry.models()) == 10_000
