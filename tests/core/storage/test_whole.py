"""Backups: a registry whole, of one moment, with all its histories; and how large it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidInput, RegistryUnavailable
from marway.objects import DirectoryStore, open_store
from marway.records import HistoryEntry, ModelState, utc_now
from marway.refs import Reference
from marway.registry import Registry
from marway.registry.encoding import encode
from marway.storage.usage import usage_of
from marway.storage.whole import copy_whole
from support.registry import Publish


@pytest.fixture
def filled(registry: Registry, publish: Publish) -> Registry:
    """intent 1.0 and 1.1 (PROD, with a history of two chunks), something observed, and what is only here and now."""
    registry.create()
    publish("intent", "1.0", golden=b'{"answers": []}')
    publish("intent", "1.1")
    aged = [
        HistoryEntry.model_validate({"generation": 1 + number, "op_id": f"o{number}", "at": utc_now(), "by": "test",
                                     "kind": "label", "label": "PROD", "from": "1.0", "to": "1.0"})
        for number in range(198)
    ]  # fmt: skip
    state = ModelState(generation=198, labels={"PROD": "1.0"}, history=tuple(aged))
    registry.store.create("models/intent/state.json", encode(state, key="models/intent/state.json"))
    for version in ("1.1", "1.0", "1.1"):
        registry.release("intent", version, by="test")
    for key in ("observations/model=intent/date=1/a.parquet", "leases/duties.json", "gates/intent.json"):
        registry.store.create(key, b"{\n}")
    return registry


def test_backup_and_restore(filled: Registry, tmp_path: Path) -> None:
    """A backup has all but leases; restored into an empty place it answers, with the whole history; nothing twice."""
    backup, restored = DirectoryStore(tmp_path / "backup"), DirectoryStore(tmp_path / "restored")
    first = copy_whole(filled.store, backup)
    assert (first.there, first.damaged) == (0, {})
    again = copy_whole(filled.store, backup)
    assert (again.copied, again.there) == (0, first.copied)
    copy_whole(backup, restored)
    expected = set(filled.store.keys("")) - {"leases/duties.json"}
    assert set(restored.keys("")) == set(backup.keys("")) == expected
    assert all(restored.get(key).data == filled.store.get(key).data for key in expected)
    found = Registry(restored)
    assert found.resolve(Reference("intent")).version == "1.1"
    assert len(list(found.history("intent"))) == 201
    assert list(found.scrub()) == []
    found.release("intent", "1.0", by="test")
    copy_whole(restored, backup)
    assert Registry(backup).state("intent").labels == {"PROD": "1.0"}
    with pytest.raises(InvalidInput, match=r"newer state of intent \(change 202\)"):
        copy_whole(filled.store, backup)


def test_while_others_write(filled: Registry, publish: Publish, tmp_path: Path) -> None:
    """What is published, and spilled from a history, while a backup runs does not make it contradict itself."""

    key = "models/intent/state.json"

    class Meeting(DirectoryStore):
        def sizes(self, prefix: str) -> Any:
            if prefix == "models/" and filled.store.size("models/intent/versions/2.0.json") is None:
                publish("intent", "2.0")
                state = filled.state("intent")
                more = [
                    state.history[-1].model_copy(update={"generation": 202 + number, "op_id": f"m{number}"})
                    for number in range(98)
                ]
                after = state.model_copy(update={"generation": 299, "history": (*state.history, *more)})
                stored = filled.store.get(key)
                filled.store.replace(key, encode(after, key=key), etag=stored.etag)
                filled.release("intent", "2.0", by="test")
                filled.release("intent", "1.0", by="test")
            return super().sizes(prefix)

    backup = DirectoryStore(tmp_path / "backup")
    assert copy_whole(Meeting(tmp_path / "registry"), backup).damaged == {}
    found = Registry(backup)
    assert found.state("intent").labels == {"PROD": "1.1"}
    assert list(found.scrub()) == []
    copy_whole(filled.store, backup)
    again = Registry(backup)
    assert again.state("intent").labels == {"PROD": "1.0"}
    assert list(again.scrub()) == []


def test_cut_off(filled: Registry, tmp_path: Path) -> None:
    """A backup that is cut off shows no label that points at nothing, and goes on."""

    class Cut(Exception): ...

    class Cutting(DirectoryStore):
        left = 4

        def create(self, key: str, data: bytes) -> str:
            self.left -= 1
            if self.left < 0:
                raise Cut
            return super().create(key, data)

    store = Cutting(tmp_path / "backup")
    with pytest.raises(Cut):
        copy_whole(filled.store, store)
    assert Registry(store).state("intent").labels == {}
    store.left = 1000
    assert copy_whole(filled.store, store).there >= 4
    assert Registry(store).resolve(Reference("intent")).version == "1.1"


def test_damage(filled: Registry, publish: Publish, tmp_path: Path) -> None:
    """What is damaged is named and left out, and what a backup has of it stays."""
    backup = DirectoryStore(tmp_path / "backup")
    copy_whole(filled.store, backup)
    before = backup.get("models/intent/state.json").data
    digest = publish("intent", "2.0").archive.sha256
    for key in ("models/intent/state.json", f"archives/sha256/{digest}.mar"):
        path = tmp_path / "registry" / key
        path.write_bytes(path.read_bytes().replace(b"tent", b"Tent", 1).replace(b'"by": "test"', b'"by": "Test"', 1))
    assert set(copy_whole(filled.store, backup).damaged) == {
        "models/intent/state.json",
        f"archives/sha256/{digest}.mar",
    }
    assert backup.get("models/intent/state.json").data == before
    assert [each.key for each in Registry(backup).scrub()] == [f"archives/sha256/{digest}.mar"]


def test_another_registry(filled: Registry, tmp_path: Path) -> None:
    """Neither another registry nor its own place is written over."""
    other = Registry(DirectoryStore(tmp_path / "other"))
    other.create()
    with pytest.raises(InvalidInput, match="holds another registry"):
        copy_whole(filled.store, other.store)
    with pytest.raises(InvalidInput, match="to itself"):
        copy_whole(filled.store, DirectoryStore(tmp_path / "registry"))


@pytest.mark.extended  # SeaweedFS takes a second to start; test_backup_and_restore does the same between directories
def test_to_s3_and_back(filled: Registry, s3_url: str, tmp_path: Path) -> None:
    """A registry goes to S3 and back into an empty directory, where it answers."""
    back = DirectoryStore(tmp_path / "back")
    copy_whole(filled.store, open_store(s3_url))
    assert copy_whole(filled.store, open_store(s3_url)).copied == 0
    copy_whole(open_store(s3_url), back)
    assert list(Registry(back).scrub()) == []
    assert Registry(back).resolve(Reference("intent")).version == "1.1"
    assert usage_of(Registry(open_store(s3_url))).bytes == usage_of(Registry(back)).bytes


def test_usage(filled: Registry, publish: Publish, tmp_path: Path) -> None:
    """Every byte is counted once: what versions share, what no version needs, and everything else by what it is."""
    shared = b"the same bytes"
    publish("one", "1", data=shared)
    publish("two", "1", data=shared)
    publish("two", "2")
    filled.delete("two", "2", by="test")
    usage = usage_of(filled)
    assert usage.bytes == sum(usage.parts.values()) == sum(size for _, size in filled.store.sizes(""))
    assert usage.objects == len(list(filled.store.keys("")))
    assert usage.shared_bytes == len(shared)
    assert usage.parts["unreferenced"] == len(b"two 2")
    assert usage.parts["contents"] == len(b"intent 1.0") + len(b"intent 1.1") + len(shared) + len(b'{"answers": []}')
    models = {each.name: each for each in usage.models}
    assert (models["one"].bytes, models["one"].own_bytes) == (len(shared), 0)
    assert (models["intent"].own_bytes, models["intent"].observed_bytes) == (35, 3)
    assert [(each.version, each.bytes, each.own_bytes) for each in models["intent"].versions] == [
        ("1.0", 25, 25),
        ("1.1", 10, 10),
    ]
    apart = DirectoryStore(tmp_path / "observed")
    apart.create("observations/model=one/date=1/a.parquet", b"12345")
    with_apart = usage_of(filled, observations=apart)
    assert with_apart.bytes == usage.bytes + 5
    assert {each.name: each.observed_bytes for each in with_apart.models} == {"intent": 3, "one": 5, "two": 0}
    with pytest.raises(RegistryUnavailable):
        usage_of(Registry(DirectoryStore(tmp_path / "none"), must_exist=True))
