"""Exported files: the same versions make the same bytes, and nothing else than what `export` writes is read."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from marway.archives.entries import Entry, from_bytes
from marway.archives.zipformat import write_archive
from marway.errors import InvalidArchive, InvalidSettings, MarwayError
from marway.objects import DirectoryStore, ObjectMissing
from marway.proofs.origins import CopyOrigin
from marway.registry import Registry
from marway.storage.copying import Choices, copy_plan
from marway.storage.exported import opened_export
from marway.storage.exporting import ExportReport, export
from marway.storage.planning import plan_of
from support.registry import Publish

Objects = dict[str, bytes]
RECORDS = ("models/intent/versions/1.0.json", "models/intent/versions/1.1.json")


@pytest.fixture
def filled(registry: Registry, publish: Publish) -> Registry:
    """intent 1.0 (PROD) with golden answers, and 1.1."""
    registry.create()
    publish("intent", "1.0", golden=b'{"answers": []}', id="Run-7")
    publish("intent", "1.1")
    registry.release("intent", "1.0", by="test")
    return registry


def exported(source: Registry, path: Path, *wanted: str) -> ExportReport:
    return export(source, plan_of(source, wanted), path)


def imported(path: Path, target: Registry) -> None:
    with opened_export(path) as (source, origin):
        copy_plan(source, target, plan_of(source, ()), origin=origin, choices=Choices(all_labels=True), by="test")


def test_there_and_back(filled: Registry, tmp_path: Path) -> None:
    """A file brings versions with labels, ids and golden answers, and the history says which registry and file."""
    report = exported(filled, tmp_path / "intent.marway", "intent")
    assert hashlib.sha256(report.path.read_bytes()).hexdigest() == report.sha256
    target = Registry(DirectoryStore(tmp_path / "target"))
    imported(report.path, target)
    assert target.state("intent").labels == {"PROD": "1.0"}
    pointer, identity = target.pointer("Run-7"), filled.identity()
    assert pointer is not None
    assert identity is not None
    assert pointer.version == "1.0"
    assert target.golden(target.record("intent", "1.0").golden_sha256 or "") == b'{"answers": []}'
    assert [each.copied for each in target.history("intent") if each.copied] == [
        CopyOrigin(registry=filled.url, registry_id=identity.id, file="intent.marway")
    ] * 2
    assert list(target.scrub()) == []


def test_the_same_bytes(filled: Registry, tmp_path: Path) -> None:
    """The same versions make the same file, in whatever order they are asked for; any zip reader reads it."""
    first = exported(filled, tmp_path / "a", "intent/1.0", "intent/1.1")
    second = exported(filled, tmp_path / "b", "intent@PROD", "intent")
    assert first.sha256 == second.sha256
    with zipfile.ZipFile(tmp_path / "a") as file:
        assert file.testzip() is None
        names = set(file.namelist()) - {"export.json"}
        assert set(json.loads(file.read("export.json"))["objects"]) == names
    assert not list(tmp_path.glob(".a*"))


def test_it_reads_as_a_registry_does(filled: Registry, tmp_path: Path) -> None:
    """An exported file is a store that can be read and not changed."""
    exported(filled, tmp_path / "a", "intent")
    with opened_export(tmp_path / "a") as (source, _):
        record = source.record("intent", "1.0")
        assert [each.name for each in source.summaries()] == ["intent"]
        key = f"archives/sha256/{record.archive.sha256}.mar"
        assert source.store.tag(key) == record.archive.sha256
        assert source.store.size("nothing") is source.store.tag("nothing") is source.store.written_at("nothing") is None
        with source.open_archive(record.archive, start=2, length=3) as handle:
            assert (handle.tell(), handle.read(), handle.tell()) == (2, b"ten", 5)
            assert (handle.seek(0), handle.read(2)) == (0, b"in")
            assert handle.seek(0, os.SEEK_END) == 5
        assert dict(source.store.sizes("archives/"))[key] == record.archive.size_bytes
        with pytest.raises(ObjectMissing):
            source.store.get("nothing")
        with pytest.raises(InvalidSettings, match="which never changes"):
            source.release("intent", "1.1", by="test")
        found = sorted(key for key, _ in source.store.sizes(""))
        for prefix in ("", "models/", "models/intent/versions/1", "zzz"):
            assert [*source.store.keys(prefix)] == [key for key in found if key.startswith(prefix)]
            assert [*source.store.keys(prefix, start_after=found[0])] == [
                key for key in found[1:] if key.startswith(prefix)
            ]


def rewritten(path: Path, change: Callable[[Objects], None], *, told: bool = True) -> Path:
    """Write the file anew with other objects, which its manifest tells of, or does not."""
    with zipfile.ZipFile(path) as file:
        objects = {name: file.read(name) for name in file.namelist()}
    manifest = json.loads(objects.pop("export.json"))
    change(objects)
    if told:
        manifest["objects"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in objects.items()
        }
    out = path.with_name("rewritten")
    with out.open("wb") as written:
        entries = [from_bytes("export.json", json.dumps(manifest).encode())]
        write_archive(written, [*entries, *(from_bytes(*each) for each in objects.items())], lambda _: None)
    return out


@pytest.mark.parametrize(
    ("change", "told", "message"),
    [
        (lambda objects: objects.update({"models/intent/extra.txt": b""}), True, "nothing that an exported file"),
        (lambda objects: objects.update({"../evil": b""}), True, "leaves the archive's directory"),
        (lambda objects: objects.update({"/etc/passwd": b""}), True, "absolute path"),
        (lambda objects: objects.update({"leases/duties.json": b"{}"}), True, "nothing that an exported file"),
        (lambda objects: objects.update({"golden/" + "0" * 64 + ".json": b"{}"}), False, "does not list it"),
        (lambda objects: objects.popitem(), False, "it is not in the file"),
        (lambda objects: objects.update({"models/intent/state.json": b"{}"}), False, "and the manifest says"),
        (lambda objects: objects.update({"models/intent/versions/1.0.json": b"{}"}), True, "1.0.json: id"),
        (lambda objects: objects.update(dict.fromkeys(RECORDS, objects[RECORDS[1]])), True,
         "it holds what was written as models/intent/versions/1.1.json"),
    ],
)  # fmt: skip
def test_hostile_files(
    filled: Registry, tmp_path: Path, change: Callable[[Objects], None], told: bool, message: str
) -> None:
    """Names that lead elsewhere, unknown objects, sizes and names that the manifest does not tell: all is refused."""
    exported(filled, tmp_path / "a", "intent")
    with pytest.raises(MarwayError, match=message):
        imported(rewritten(tmp_path / "a", change, told=told), Registry(DirectoryStore(tmp_path / "target")))
    assert not (tmp_path / "evil").exists()


def test_other_bytes(filled: Registry, tmp_path: Path) -> None:
    """An archive or a document with other bytes than its name or the manifest says is refused, and not published."""
    exported(filled, tmp_path / "a", "intent/1.1")

    def flip(objects: Objects) -> None:
        name = next(each for each in objects if each.startswith("archives/"))
        objects[name] = b"x" * len(objects[name])

    def edit(objects: Objects) -> None:
        objects["ids/intent.json"] = objects["ids/intent.json"].replace(b"name", b"nema", 1)

    for change, told in ((flip, True), (edit, False)):
        target = Registry(DirectoryStore(tmp_path / "target"))
        with pytest.raises(MarwayError, match="damaged"):
            imported(rewritten(tmp_path / "a", change, told=told), target)
        assert target.versions("intent") == ()


def test_other_zips(filled: Registry, tmp_path: Path) -> None:
    """What is there twice, compressed, a link, cut short or longer, no zip at all, or no export is refused."""
    exported(filled, tmp_path / "a", "intent")
    whole = (tmp_path / "a").read_bytes()
    for data in (whole[:-1], whole + b"x", whole[100:], b"", b"PK", b"x" * 500):
        (tmp_path / "b").write_bytes(data)
        with pytest.raises(InvalidArchive), opened_export(tmp_path / "b"):
            pass
    link = zipfile.ZipInfo("registry.json")
    link.external_attr = 0o120777 << 16
    for info in (link, zipfile.ZipInfo("registry.json", (2000, 1, 1, 0, 0, 0))):
        with zipfile.ZipFile(tmp_path / "c", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(info, "/etc/passwd")
        with (
            pytest.raises(InvalidArchive, match=r"not (stored )?as Marway writes exported files"),
            opened_export(tmp_path / "c"),
        ):
            pass
    twice = [Entry("registry.json", 1, "test", lambda: iter((b"x",)))] * 2
    with (tmp_path / "d").open("wb") as out:
        write_archive(out, twice, lambda _: None)
    with pytest.raises(InvalidArchive, match="there twice"), opened_export(tmp_path / "d"):
        pass
    with (tmp_path / "e").open("wb") as out:
        write_archive(out, twice[:1], lambda _: None)
    with pytest.raises(InvalidArchive, match=r"has no export\.json"), opened_export(tmp_path / "e"):
        pass
    with pytest.raises(InvalidArchive), opened_export(tmp_path / "missing"):
        pass
