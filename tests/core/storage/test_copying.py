"""Copying versions between registries: whole, once, with what is proved of them, and what they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marway.errors import (
    ArchiveCorrupt,
    InvalidGraph,
    InvalidInput,
    LabelProtected,
    NotFound,
    ProofMissing,
    VersionConflict,
)
from marway.objects import DirectoryStore, open_store
from marway.protection.contracts import Contract
from marway.records import Proof, VersionRecord, utc_now
from marway.refs import Reference
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.storage.copying import Choices, CopyReport, copy_plan, origin_of
from marway.storage.planning import plan_of
from support.graphs import publish_graph
from support.registry import Publish, publisher


@pytest.fixture
def target(tmp_path: Path) -> Registry:
    """Another registry, which is empty."""
    made = Registry(DirectoryStore(tmp_path / "target"))
    made.create()
    return made


@pytest.fixture
def filled(registry: Registry, publish: Publish) -> Registry:
    """intent 1.0 (PROD, with golden answers and a pod's proof), 1.1 (STG), and a deleted 1.2."""
    registry.create()
    prove(registry, publish("intent", "1.0", golden=b'{"answers": []}'))
    publish("intent", "1.1")
    publish("intent", "1.2")
    registry.release("intent", "1.0", by="test")
    registry.release("intent", "1.1", label="STG", by="test")
    registry.delete("intent", "1.2", by="test")
    return registry


def prove(registry: Registry, record: VersionRecord, kind: str = "pod") -> None:
    registry.prove(
        Proof(
            kind=kind,
            archive_sha256=record.archive.sha256,
            server="torchserve",
            golden_sha256=record.golden_sha256,
            duration_s=0.1,
            at=utc_now(),
            by="pod",
        )
    )


def copied(source: Registry, target: Registry, *wanted: str, along: bool = True, **choices: Any) -> CopyReport:
    plan = plan_of(source, wanted, along=along)
    return copy_plan(source, target, plan, origin=origin_of(source), choices=Choices(**choices), by="test")


def test_a_model(filled: Registry, target: Registry) -> None:
    """A model goes with all its versions, golden answers and proofs, and the history says where from; labels stay."""
    prove(filled, filled.record("intent", "1.0"), "replay")
    report = copied(filled, target, "intent")
    assert [(each.version, each.what, each.proofs) for each in report.versions] == [
        ("1.0", "copied", 2),
        ("1.1", "copied", 0),
    ]
    record = target.resolve(Reference("intent", "1.0"))
    assert record == filled.record("intent", "1.0")
    assert target.resolve(Reference(record.id)) == record
    assert target.golden(record.golden_sha256 or "") == b'{"answers": []}'
    assert target.is_proved(record)
    assert list(target.proofs(record.archive.sha256)) == list(filled.proofs(record.archive.sha256))
    assert target.state("intent").labels == {}
    newest, oldest = target.history("intent")
    assert (newest.serving and newest.serving.version, newest.by) == ("1.1", "test")
    assert oldest.copied == origin_of(filled)
    assert list(target.scrub()) == []


def test_again(filled: Registry, target: Registry) -> None:
    """The same again sends nothing and says nothing in the history; a new proof comes along."""
    copied(filled, target, "intent", all_labels=True, force=True)
    generation = target.state("intent").generation
    prove(filled, filled.record("intent", "1.1"))
    report = copied(filled, target, "intent", all_labels=True, force=True)
    assert [(each.version, each.what, each.proofs) for each in report.versions] == [
        ("1.0", "there", 0),
        ("1.1", "there", 1),
    ]
    assert target.state("intent").generation == generation


class Cut(Exception):
    """Stands for a kill."""


class Cutting(DirectoryStore):
    """Is cut off before its nth write."""

    left = 0

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cut

    def create(self, key: str, data: bytes) -> str:
        self._count()
        return super().create(key, data)

    def create_file(self, key: str, path: Path, **more: Any) -> None:
        self._count()
        super().create_file(key, path, **more)

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        self._count()
        return super().replace(key, data, etag=etag)


def test_cut_off(filled: Registry, tmp_path: Path) -> None:
    """Whatever write a copy is cut off before, no version is seen half done, and the same again finishes it."""
    store = Cutting(tmp_path / "target")
    for writes in range(30):
        store.left = writes
        try:
            copied(filled, Registry(store), "intent", all_labels=True, force=True)
        except Cut:
            store.left = 1000
            seen = Registry(store)
            for version in seen.versions("intent"):
                try:
                    record = seen.resolve(Reference("intent", version))
                except NotFound:
                    continue
                assert seen.store.size(f"archives/sha256/{record.archive.sha256}.mar") is not None
        else:
            break
    else:
        pytest.fail("it never came to its end")
    assert writes > 5
    assert Registry(store).state("intent").labels == {"PROD": "1.0", "STG": "1.1"}
    assert [each.what for each in copied(filled, Registry(store), "intent").versions] == ["there", "there"]


def test_one_version_by_label(filled: Registry, target: Registry) -> None:
    """MODEL@LABEL is the version that the label is at; --label sets a label there, by a pod's proof or by force."""
    report = copied(filled, target, "intent@PROD", labels=("LIVE",))
    assert [each.version for each in report.versions] == ["1.0"]
    assert report.labels == ["intent LIVE → 1.0"]
    assert not next(each for each in target.history("intent") if each.kind == "label").forced
    copied(filled, target, "intent/1.1")
    with pytest.raises(ProofMissing):
        copied(filled, target, "intent/1.1", labels=("LIVE",))
    assert copied(filled, target, "intent/1.1", labels=("LIVE",), force=True).labels == ["intent LIVE → 1.1"]
    with pytest.raises(InvalidInput, match=r"2 of intent are copied \(1.0, 1.1\): name one, such as intent/1.0"):
        copied(filled, target, "intent", labels=("LIVE",))


def test_what_is_deleted_there(filled: Registry, target: Registry) -> None:
    """A version that was deleted there stays so: left out of all of a model, refused where it is named."""
    copied(filled, target, "intent")
    target.delete("intent", "1.1", by="test")
    assert [each.what for each in copied(filled, target, "intent").versions] == ["there", "deleted there"]
    with pytest.raises(VersionConflict, match=r"1\.1 was deleted"):
        copied(filled, target, "intent/1.1")


def test_other_bytes_there(filled: Registry, target: Registry, tmp_path: Path) -> None:
    """The same version with other bytes is refused, and stays."""
    theirs = publisher(target, tmp_path)("intent", "1.0", data=b"other")
    with pytest.raises(VersionConflict, match="exists with other bytes"):
        copied(filled, target, "intent/1.0")
    assert target.record("intent", "1.0") == theirs


def test_a_damaged_archive(filled: Registry, target: Registry, directory: DirectoryStore, tmp_path: Path) -> None:
    """Bytes that are not those of the digest are refused, and nothing of the version is there."""
    digest = filled.record("intent", "1.0").archive.sha256
    (tmp_path / "registry/archives/sha256" / f"{digest}.mar").write_bytes(b"flipped")
    with pytest.raises(ArchiveCorrupt, match="is damaged"):
        copied(filled, target, "intent/1.0")
    assert target.versions("intent") == ()


def test_what_goes_with_a_model(filled: Registry, target: Registry) -> None:
    """Contracts, protection and serving overrides go where asked for, once; what is left is named."""
    contract = Contract.made(
        b"hi", consumer="search", name="one", content_type="text/plain", kind="json", value={}, by="ana", at=utc_now()
    )
    filled.add_contract("intent", contract)
    filled.protect("intent", approvals=1, freeze=["Fri 16:00-Mon 08:00 Europe/Berlin"], by="test")
    filled.set_serving("intent", set_fields={"pods": 2}, by="test")
    filled.set_serving("intent", version="1.1", set_fields={"pinned": True}, by="test")
    assert copied(filled, target, "intent@PROD").left == [
        "1 contracts of consumers of intent (--contracts)",
        "what intent PROD asks for before it moves (--protection)",
        "serving settings of intent, all versions (--serving)",
    ]
    everything = {"all_labels": True, "contracts": True, "protection": True, "serving": True, "force": True}
    assert len(copied(filled, target, "intent", **everything).changed) == 4
    state = target.state("intent")
    assert state.labels == {"PROD": "1.0", "STG": "1.1"}
    assert target.contracts("intent") == [contract]
    assert state.protection["PROD"].freeze == ("Fri 16:00-Mon 08:00 Europe/Berlin",)
    assert state.serving == {"*": ServingSettings(pods=2), "1.1": ServingSettings(pinned=True)}
    again = copied(filled, target, "intent", **everything)
    assert (again.changed, again.labels, again.left) == ([], [], [])
    assert target.state("intent").generation == state.generation
    with pytest.raises(LabelProtected):
        copied(filled, target, "intent/1.1", labels=("PROD",), force=True)


def test_what_a_graph_names(filled: Registry, target: Registry, tmp_path: Path) -> None:
    """What a graph names goes along and comes first; a label that it names is set where there is none."""
    document = {"start": "all", "nodes": {
        "all": {"kind": "sequence", "nodes": ["one", "two"]},
        "one": {"kind": "model", "model": "intent", "selector": "PROD"},
        "two": {"kind": "model", "model": "intent", "selector": "1.1"},
    }}  # fmt: skip
    publish_graph(filled, tmp_path, document)
    with pytest.raises(InvalidGraph, match="one"):
        copied(filled, target, "tour", along=False)
    report = copied(filled, target, "tour")
    assert [(each.name, each.version) for each in report.versions] == [
        ("intent", "1.0"),
        ("intent", "1.1"),
        ("tour", "1.0"),
    ]
    assert (report.labels, report.missing) == (["intent PROD → 1.0"], [])
    assert target.state("tour").labels == {}
    target.release("intent", "1.1", by="test")
    assert copied(filled, target, "tour").labels == []
    assert target.state("intent").labels == {"PROD": "1.1"}


def test_fallbacks(filled: Registry, target: Registry, publish: Publish) -> None:
    """What a fallback names goes along, circles too, and is named as missing where it is nowhere."""
    publish("calm", "1", serving=ServingSettings(fallback="intent/1.1"))
    publish("odd", "1", serving=ServingSettings(fallback="nobody/1"))
    report = copied(filled, target, "calm", "odd")
    assert [each.name for each in report.versions] == ["intent", "calm", "odd"]
    assert report.missing == ["nobody/1, which the fallback of odd 1 names"]
    lonely = copied(filled, target, "calm", along=False)
    assert lonely.missing == []


@pytest.mark.extended  # SeaweedFS takes a second to start; from directory to directory above is the same code
def test_to_s3_and_back(filled: Registry, s3_url: str, tmp_path: Path) -> None:
    """Copies between a directory and S3 hold every byte, in both directions."""
    far = Registry(open_store(s3_url))
    far.create()
    copied(filled, far, "intent", all_labels=True, force=True)
    back = Registry(DirectoryStore(tmp_path / "back"))
    report = copied(far, back, "intent", all_labels=True, force=True)
    assert [each.what for each in report.versions] == ["copied", "copied"]
    assert back.resolve(Reference("intent")) == filled.resolve(Reference("intent"))
    assert list(far.scrub()) == list(back.scrub()) == []
    assert [each.what for each in copied(filled, far, "intent").versions] == ["there", "there"]
