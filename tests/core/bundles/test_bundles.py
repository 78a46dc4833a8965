"""Bundles that may be anybody's: read and unpacked whole, or refused in one sentence with nothing written."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marway.archives.entries import from_bytes
from marway.archives.zipformat import write_archive
from marway.bundles import BundleManifest, is_bundle, read_bundle, unpack_bundle
from marway.errors import InvalidArchive, LoadFailed

MANIFEST = {"format": 1, "name": "intent", "version": "1.0", "backend": "open-inference", "root": "model"}
NAME = "MARWAY-INF/bundle.json"
FILES = {"model/config.pbtxt": b'backend: "python"\n', "model/1/model.py": b"x = 1\n", "model/2/.marway-empty": b""}


def canonical(files: dict[str, bytes], manifest: object = MANIFEST) -> bytes:
    """Return an archive of files as Marway writes it, its manifest as given."""
    out = io.BytesIO()
    raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    write_archive(out, [from_bytes(NAME, raw), *(from_bytes(*each) for each in files.items())], lambda _: None)
    return out.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED, mode: int = 0o644, **info: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as target:
        for name, data in {NAME: json.dumps(MANIFEST).encode(), **files}.items():
            each = zipfile.ZipInfo(name)
            each.external_attr, each.compress_type = mode << 16, method
            target.writestr(each, data)
    return out.getvalue()


def changed(**fields: Any) -> bytes:
    return canonical(FILES, {name: value for name, value in (MANIFEST | fields).items() if value is not None})


def patched(find: bytes, replace: bytes) -> bytes:
    data = canonical(FILES)
    assert find in data
    return data.replace(find, replace)


def doubled() -> bytes:
    """Two entries of one name, both in the directory."""
    out = io.BytesIO()
    entries = [from_bytes(NAME, json.dumps(MANIFEST).encode()), *[from_bytes("model/a", b"1")] * 2]
    write_archive(out, entries, lambda _: None)
    return out.getvalue()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "climbs": (lambda: canonical({"model/../../evil": b"x"}), "leaves the archive's directory"),
    "absolute": (lambda: canonical({"/etc/evil": b"x"}), "is an absolute path"),
    "drive": (lambda: canonical({"C:evil": b"x"}), "is an absolute path"),
    "backslash": (lambda: canonical({"model/..\\evil": b"x"}), "has a backslash"),
    "control": (lambda: canonical({"model/a\nb": b"x"}), "has a control character"),
    "outside of its root": (lambda: canonical({"other/a": b"x"}), "lies outside of its root 'model'"),
    "beside its manifest": (lambda: canonical({"MARWAY-INF/x": b"x"}), "lies outside of its root"),
    "differ in case": (lambda: canonical({"model/a": b"x", "model/A": b"y"}), "differ only in case"),
    "a file and a directory": (lambda: canonical({"model/a": b"x", "model/a/b": b"y"}), "is a file, and a directory"),
    "twice": (doubled, "is there twice"),
    "a link": (lambda: zipped({"model/a": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777), "not as Marway writes bundles"),
    "deflated": (lambda: zipped({"model/a": bytes(10**6)}, zipfile.ZIP_DEFLATED), "not stored as Marway writes"),
    "of another tool": (lambda: zipped(FILES), "marway pack --backend NAME --directory DIR"),
    "no manifest": (lambda: canonical({}).replace(b"bundle.json", b"mundle.json"), f"has no {NAME}"),
    "bytes at its end": (lambda: canonical(FILES) + b"x", "is damaged, or not as Marway writes bundles"),
    "bytes before it": (lambda: b"x" + canonical(FILES), "is damaged, or not as Marway writes bundles"),
    "empty": (lambda: b"", "is damaged, or not as Marway writes bundles"),
    "cut": (lambda: canonical(FILES)[:300], "cut short"),
    "its end is cut": (lambda: canonical(FILES)[:-1], "is damaged, or not as Marway writes bundles"),
    "no JSON": (lambda: canonical(FILES, b"{"), f"{NAME} is not JSON"),
    "a field twice": (lambda: canonical(FILES, b'{"name": "a", "name": "b"}'), "names a field twice"),
    "deep": (lambda: canonical(FILES, b"[" * 50_000), f"{NAME} is not JSON"),
    "large": (lambda: canonical(FILES, b" " * 70_000), f"{NAME} has more than 65536 bytes"),
    "no name": (lambda: changed(name=None), f"{NAME}: name: Field required"),
    "a bad name": (lambda: changed(name="a/b"), f"{NAME}: 'a/b' cannot be a model name"),
    "a label as version": (lambda: changed(version="PROD"), "looks like a label"),
    "a bad backend": (lambda: changed(backend="Triton"), f"{NAME}: 'Triton' cannot be a backend"),
    "its root climbs": (lambda: changed(root=".."), f"{NAME}: '..' leaves the archive's directory"),
    "its root is kept": (lambda: changed(root="marway-inf"), f"{NAME}: root 'marway-inf' is kept"),
    "of the future": (lambda: changed(format=2), "is of format 2: a newer Marway made it"),
    "a bad server_model": (lambda: changed(server_model="a\x00b"), f"{NAME}: server_model"),
}


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "x.bundle"
    path.write_bytes(data)
    return path


def test_a_bundle_is_unpacked_for_another_user_to_read(tmp_path: Path) -> None:
    """All files below the root are there, with modes that any server can read, and directories without files too."""
    path = written(tmp_path, changed(server_model="intent-en", later="unknown"))
    target = tmp_path / "models/mv_1"
    target.parent.mkdir()
    found = unpack_bundle(path, target)
    assert found == read_bundle(path)
    assert found == BundleManifest(
        name="intent", version="1.0", backend="open-inference", root="model", server_model="intent-en"
    )
    assert {str(each.relative_to(target)) for each in target.rglob("*")} == {"1", "1/model.py", "2", "config.pbtxt"}
    assert (target / "1/model.py").read_bytes() == b"x = 1\n"
    modes = {stat.S_IMODE(each.stat().st_mode) for each in target.rglob("*") if each.is_file()}
    assert modes == {0o644}
    assert {stat.S_IMODE(each.stat().st_mode) for each in [target, target / "1", target / "2"]} == {0o755}
    assert [each.name for each in target.parent.iterdir()] == ["mv_1"]


def test_a_bundle_may_hold_nothing(tmp_path: Path) -> None:
    """One for a server that has the model already is unpacked to an empty directory."""
    path = written(tmp_path, canonical({}))
    unpack_bundle(path, tmp_path / "out")
    assert is_bundle(path)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("what", HOSTILE)
def test_it_is_refused_whole(tmp_path: Path, what: str) -> None:
    """A hostile or damaged bundle is refused in one line that names it, and nothing of it is written."""
    make, message = HOSTILE[what]
    path = written(tmp_path, make())
    with pytest.raises(InvalidArchive) as caught:
        unpack_bundle(path, tmp_path / "out")
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{path}: ")
    assert "\n" not in caught.value.message
    assert [each.name for each in tmp_path.iterdir()] == ["x.bundle"]


def test_damaged_content_leaves_nothing(tmp_path: Path) -> None:
    """Content that does not have its CRC is found while it is unpacked, and what was unpacked goes."""
    path = written(tmp_path, patched(b"x = 1", b"x = 2"))
    assert read_bundle(path).name == "intent"
    with pytest.raises(InvalidArchive, match=r"'model/1/model\.py' is damaged"):
        unpack_bundle(path, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["x.bundle"]


def test_a_target_is_never_written_over(tmp_path: Path) -> None:
    """What is there stays, and a directory that cannot be written is named."""
    path = written(tmp_path, canonical(FILES))
    (tmp_path / "out").mkdir()
    with pytest.raises(LoadFailed, match="out is there"):
        unpack_bundle(path, tmp_path / "out")
    with pytest.raises(LoadFailed, match="no such file or directory"):
        unpack_bundle(path, tmp_path / "none/out")


def test_what_is_no_bundle_is_told_without_reading_it(tmp_path: Path) -> None:
    """A `.mar` and any other file are no bundles; a file that is not there is said to be missing."""
    assert not is_bundle(written(tmp_path, b"PK\3\4 but too short"))
    assert is_bundle(written(tmp_path, canonical(FILES)))
    with pytest.raises(InvalidArchive, match="does not exist"):
        is_bundle(tmp_path / "gone.bundle")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A bundle with bytes changed, cut out or put in is refused or unpacks to the very same files."""
    whole = canonical(FILES)
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.integers(0, 3))
    bad = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + cut :]
    directory = tmp_path_factory.mktemp("fuzz")
    try:
        found = unpack_bundle(written(directory, bad), directory / "out")
    except InvalidArchive:
        assert not (directory / "out").exists()
        return
    assert bad == whole
    assert found.name == "intent"
