"""Archives as `.tar.gz` and as directories: what torch-model-archiver's other formats give is accepted."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from marway.errors import InvalidArchive
from marway.objects import open_store
from marway.registry import Registry
from marway_archiver import check_archive, inspect_archive, pack, publish_archive, repack

# After ours, which imports it without the warning that it gives.
from model_archiver.model_archiver_config import ModelArchiverConfig  # isort: skip
from model_archiver.model_packaging import generate_model_archive  # isort: skip

Make = Callable[[str], Path]


@pytest.fixture
def ours(inputs: Path, tmp_path: Path) -> Make:
    """Packs a model in a format, with our archiver."""

    def make(archive_format: str) -> Path:
        return pack(
            model_name="m", version="1", handler=str(inputs / "handler.py"), serialized_file=inputs / "weights.pt",
            extra_files=str(inputs / "extra"), archive_format=archive_format, export_path=tmp_path,
        ).path  # fmt: skip

    return make


@pytest.fixture
def theirs(inputs: Path, tmp_path: Path) -> Make:
    """Packs the same in a format, with torch-model-archiver."""

    def make(archive_format: str) -> Path:
        (tmp_path / "theirs").mkdir()
        generate_model_archive(
            ModelArchiverConfig(
                model_name="m", version="1", handler=str(inputs / "handler.py"), runtime="python",
                serialized_file=str(inputs / "weights.pt"), archive_format=archive_format,
                export_path=str(tmp_path / "theirs"),
            )
        )  # fmt: skip
        (made,) = (tmp_path / "theirs").iterdir()
        return made

    return make


@pytest.mark.parametrize("archive_format", ["tgz", "no-archive"])
def test_the_same_files_give_the_same_archive(ours: Make, tmp_path: Path, archive_format: str) -> None:
    """Re-packed, both give the bytes that packing as a `.mar` gives."""
    mar, other = ours("default"), ours(archive_format)
    again = repack(other, tmp_path / "again.mar")
    assert again.path.read_bytes() == mar.read_bytes()
    assert not inspect_archive(other).canonical


@pytest.mark.parametrize("archive_format", ["tgz", "no-archive"])
def test_theirs_are_published(theirs: Make, tmp_path: Path, archive_format: str) -> None:
    """What torch-model-archiver makes is re-packed and stored."""
    made = theirs(archive_format)
    registry = Registry(open_store(f"file://{tmp_path / 'registry'}"))
    record, repacked = publish_archive(made, registry=registry)
    assert repacked
    assert (record.name, record.version) == ("m", "1")
    with registry.open_archive(record.archive) as source:
        (tmp_path / "stored.mar").write_bytes(source.read(-1))
    stored = check_archive(tmp_path / "stored.mar")
    assert stored.canonical
    assert [file.name for file in stored.files] == ["MAR-INF/MANIFEST.json", "handler.py", "weights.pt"]


def tgz(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


HOSTILE = {
    "leaves": ((tarfile.TarInfo("m/../../x"), b""), "leaves the archive's directory"),
    "absolute": ((tarfile.TarInfo("/x"), b""), "is an absolute path"),
    "link": ((link("m/x"), b""), "is not a regular file"),
    "bomb": ((tarfile.TarInfo("m/zeros"), bytes(100 * 1024**2)), "is a bomb"),
    "no manifest": ((tarfile.TarInfo("m/x"), b"x"), "has no MAR-INF/MANIFEST.json"),
}


@pytest.mark.parametrize(("member", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_ones_are_refused(tmp_path: Path, member: tuple[tarfile.TarInfo, bytes], message: str) -> None:
    """A tgz that leaves its directory, links, explodes or is no archive is refused, and nothing is left behind."""
    path = tgz(tmp_path / "x.tar.gz", member)
    with pytest.raises(InvalidArchive) as caught:
        check_archive(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message


def test_one_that_is_cut_short_is_refused(ours: Make) -> None:
    """Half a tgz is refused."""
    path = ours("tgz")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InvalidArchive, match=r"cut short|cannot be read"):
        check_archive(path)


def test_a_directory_with_a_link_is_refused(ours: Make) -> None:
    """A link may lead anywhere: it is not followed."""
    path = ours("no-archive")
    (path / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidArchive, match="is a symbolic link"):
        check_archive(path)


def test_empty_weights_are_accepted(inputs: Path, tmp_path: Path) -> None:
    """Most of TorchServe's own test archives have empty weights, and load: packing says that they are empty."""
    (inputs / "weights.pt").write_bytes(b"")
    packed = pack(
        model_name="m", version="1", handler=str(inputs / "handler.py"), serialized_file=inputs / "weights.pt",
        export_path=tmp_path,
    )  # fmt: skip
    assert [warning.partition(" is empty: ")[2] for warning in packed.warnings] == [
        "a handler that reads weights finds none"
    ]
    assert check_archive(packed.path).problems == ()
