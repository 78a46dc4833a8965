"""The directory store when the power goes at any moment of a publish or a release."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from marway.errors import MarwayError
from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.refs import Reference
from marway.registry import Registry
from support.invariants import assert_sound
from support.power import Cut, ForgetsDirectories, ForgetsFiles, RecordingFiles, after_cut
from support.registry import record_of

GOLDEN = b'{"answers": ["yes"]}'
FIRST, SECOND = b"first archive" * 100, b"second archive" * 100_000


@dataclass
class Recorded:
    """What two publishes, two releases and a rollback did to a disk, and after how many changes each was done."""

    files: RecordingFiles
    root: Path
    done: dict[str, int]
    records: tuple[VersionRecord, VersionRecord]
    archives: tuple[Path, Path]


def record(files: RecordingFiles, tmp_path: Path) -> Recorded:
    root = tmp_path / "registry"
    registry = Registry(DirectoryStore(root, files=files))
    archives = tmp_path / "1.mar", tmp_path / "2.mar"
    records = (
        record_of(FIRST, version="1"),
        record_of(SECOND, version="2", id="Run-2", golden_sha256=hashlib.sha256(GOLDEN).hexdigest()),
    )
    done = {}
    for path, data in zip(archives, (FIRST, SECOND), strict=True):
        path.write_bytes(data)
    registry.publish(records[0], archives[0])
    done["published 1"] = len(files.changes)
    registry.release("intent", "1", by="test")
    done["released 1"] = len(files.changes)
    registry.publish(records[1], archives[1], golden=GOLDEN)
    done["published 2"] = len(files.changes)
    registry.release("intent", "2", by="test")
    done["released 2"] = len(files.changes)
    registry.rollback("intent", by="test")
    done["rolled back"] = len(files.changes)
    return Recorded(files, root, done, records, archives)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(RecordingFiles(), tmp_path_factory.mktemp("recorded"))


def check(recorded: Recorded, count: int, cut: Cut, into: Path) -> None:
    """Assert all that must hold of a registry whose power went after ``count`` changes."""
    root = after_cut(recorded.files.changes, recorded.root, count=count, cut=cut, seed=count, into=into)
    store = DirectoryStore(root)
    registry = Registry(store)
    assert_sound(store)
    for number in (1, 2):
        if count >= recorded.done[f"published {number}"]:
            assert registry.resolve(Reference("intent", str(number))) == recorded.records[number - 1]
    acknowledged = sum(count >= recorded.done[step] for step in ("released 1", "released 2", "rolled back"))
    assert registry.state("intent").generation >= acknowledged
    for version, archive in zip(recorded.records, recorded.archives, strict=True):
        registry.publish(version, archive, golden=GOLDEN if version.golden_sha256 else None)
        registry.release("intent", version.version, by="again")
    assert assert_sound(store)["intent"]["PROD"] == recorded.records[1]


@pytest.mark.parametrize("cut", ["nothing", "names", "some"])
def test_power_cuts(recorded: Recorded, tmp_path: Path, cut: Cut) -> None:
    """Whenever the power goes, nothing partial is visible, nothing acknowledged is lost, publishing again succeeds."""
    for count in range(len(recorded.files.changes) + 1):
        check(recorded, count, cut, tmp_path / str(count))


@pytest.mark.parametrize(("files", "cut"), [(ForgetsFiles, "names"), (ForgetsDirectories, "nothing")])
def test_the_cuts_would_find_a_mistake(tmp_path: Path, files: type[RecordingFiles], cut: Cut) -> None:
    """The same cuts find what is lost by a store that does not fsync its files, or its directories."""
    forgetful = record(files(), tmp_path)
    broken = 0
    for count in range(0, len(forgetful.files.changes), 5):
        try:
            check(forgetful, count, cut, tmp_path / str(count))
        except (AssertionError, MarwayError):
            broken += 1
    assert broken > 5
