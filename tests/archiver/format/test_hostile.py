"""Archives that nobody may open: each is refused by `check_archive` and `repack`, which write nothing."""

from __future__ import annotations

import io
import json
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidArchive
from marway_archiver import check_archive, inspect_archive, repack

HANDLER = b"def handle(data, context):\n    return data\n"
MODEL = {"modelName": "m", "handler": "handler.py", "modelVersion": "1.0"}
MANIFEST = {"createdOn": "02/03/2024 10:00:00", "runtime": "python", "model": MODEL, "archiverVersion": "0.12.0"}
FILES = {"handler.py": HANDLER, "w.pt": b"weights" * 100, "MAR-INF/MANIFEST.json": json.dumps(MANIFEST).encode()}


def archive(files: dict[str, bytes] | None = None, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an archive as torch-model-archiver writes it, of `FILES` unless others are given."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as target:
        for name, data in (files or FILES).items():
            target.writestr(name, data)
    return out.getvalue()


def with_manifest(model: dict[str, Any] | None = None, **fields: Any) -> bytes:
    document = {**MANIFEST, "model": {**MODEL, **(model or {})}, **fields}
    return archive({**FILES, "MAR-INF/MANIFEST.json": json.dumps(document).encode()})


def with_info(name: str, data: bytes = b"x", **attributes: Any) -> bytes:
    out = io.BytesIO(archive())
    with zipfile.ZipFile(out, "a") as target:
        info = zipfile.ZipInfo(name)
        for key, value in attributes.items():
            setattr(info, key, value)
        target.writestr(info, data)
    return out.getvalue()


def local(name: bytes, data: bytes, flags: int = 0) -> bytes:
    crc = zlib.crc32(data)
    return (
        struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, 0, 0, 33, crc, len(data), len(data), len(name), 0) + name + data
    )


def directory_at(data: bytes) -> int:
    return int(struct.unpack_from("<I", data, len(data) - 6)[0])


def shifted(data: bytes, at: int, inserted: bytes, *, entries_shift: bool = False) -> bytes:
    """Insert bytes and repair the end record, and with `entries_shift` the offsets in the directory."""
    start = directory_at(data)
    changed = bytearray(data[:at] + inserted + data[at:])
    struct.pack_into("<I", changed, len(changed) - 6, start + len(inserted))
    if entries_shift:
        position = start + len(inserted)
        while changed[position : position + 4] == b"PK\1\2":
            offset = struct.unpack_from("<I", changed, position + 42)[0]
            struct.pack_into("<I", changed, position + 42, offset + len(inserted))
            position += 46 + sum(struct.unpack_from("<3H", changed, position + 28))
    return bytes(changed)


def hidden_local() -> bytes:
    """An entry between the others and the directory: Java unpacks it, Python never sees it."""
    data = archive()
    return shifted(data, directory_at(data), local(b"evil.py", b"import os"))


def hidden_first() -> bytes:
    return shifted(archive(), 0, local(b"handler.py", b"import os"), entries_shift=True)


def hidden_central() -> bytes:
    """An entry in the directory that no local header leads to: Python sees it, Java never does."""
    data = archive()
    start = directory_at(data)
    extra = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0) + b"evil"
    changed = bytearray(data[:-22] + extra + data[-22:])
    count, size = 4, len(data) - 22 - start + len(extra)
    struct.pack_into("<2H2I", changed, len(changed) - 14, count, count, size, start)
    return bytes(changed)


def renamed() -> bytes:
    """The directory calls an entry otherwise than its local header does."""
    data = archive()
    start = directory_at(data)
    return data[:start] + data[start:].replace(b"w.pt", b"v.pt")


def patched(find: bytes, replace: bytes, base: bytes | None = None) -> bytes:
    return (base or archive()).replace(find, replace)


def flipped(offset: int, value: int, *, both: bool = True) -> bytes:
    """Set a 16-bit field at `offset` of the first local header and, 2 bytes later, of the first directory entry."""
    data = bytearray(archive())
    struct.pack_into("<H", data, offset, value)
    if both:
        struct.pack_into("<H", data, directory_at(bytes(data)) + offset + 2, value)
    return bytes(data)


def sizes_lie(value: int) -> bytes:
    data = bytearray(archive())
    struct.pack_into("<I", data, 22, value)
    struct.pack_into("<I", data, directory_at(bytes(data)) + 24, value)
    return bytes(data)


def swapped() -> bytes:
    """The directory lists the entries in another order than they stand."""
    data = archive()
    start = directory_at(data)
    first = 46 + sum(struct.unpack_from("<3H", data, start + 28))
    second = 46 + sum(struct.unpack_from("<3H", data, start + first + 28))
    middle = data[start + first : start + first + second] + data[start : start + first]
    return data[:start] + middle + data[start + first + second :]


def trailing_in_entry() -> bytes:
    """Compressed data with bytes after its end, inside the entry."""
    data = archive()
    compressed, _, name_len = struct.unpack_from("<2IH", data, 18)
    out = bytearray(shifted(data, 30 + name_len + compressed, b"evil"))
    start = directory_at(bytes(out))
    struct.pack_into("<I", out, 18, compressed + 4)
    struct.pack_into("<I", out, start + 20, compressed + 4)
    position = start + 46 + sum(struct.unpack_from("<3H", out, start + 28))
    while out[position : position + 4] == b"PK\1\2":
        struct.pack_into("<I", out, position + 42, struct.unpack_from("<I", out, position + 42)[0] + 4)
        position += 46 + sum(struct.unpack_from("<3H", out, position + 28))
    return bytes(out)


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return with_info("w.pt")


def bomb() -> bytes:
    """2 GiB of zeros in 2 MiB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target, target.open("big", "w") as big:
        for _ in range(8):
            big.write(bytes(1 << 20))
    data = bytearray(out.getvalue())
    for position in (22, directory_at(bytes(data)) + 24):
        struct.pack_into("<I", data, position, 2 << 30)
    return bytes(data)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no zip": (lambda: b"not a zip" * 10, "is no archive: it does not begin as"),
    "empty file": (lambda: b"", "is no archive: it does not begin as"),
    "empty zip": (lambda: b"PK\5\6" + bytes(18), "is no archive: it does not begin as"),
    "data before": (lambda: b"#!/bin/sh\n" + archive(), "is no archive: it does not begin as"),
    "cut in the directory": (lambda: archive()[:-30], "cut short"),
    "cut in an entry": (lambda: archive()[:60], "cut short"),
    "trailing data": (lambda: archive() + b"x", "after its end"),
    "second archive behind": (lambda: archive() + archive(), "after its end"),
    "comment": (lambda: archive()[:-2] + b"\1\0x", "after its end"),
    "zip slip": (lambda: with_info("../evil.py"), "leaves the archive's directory"),
    "zip slip below": (lambda: with_info("a/../../evil.py"), "leaves the archive's directory"),
    "absolute": (lambda: with_info("/etc/evil"), "is an absolute path"),
    "drive": (lambda: with_info("C:/evil"), "is an absolute path"),
    "backslash": (lambda: patched(b"w.pt", b"w\\pt"), "has a backslash"),
    "control character": (lambda: with_info("a\x1b[2J"), "has a control character"),
    "empty component": (lambda: with_info("a//b"), "an empty component"),
    "symbolic link": (
        lambda: with_info("l", b"/etc/passwd", external_attr=(stat.S_IFLNK | 0o777) << 16), "symbolic link"),
    "device": (lambda: with_info("d", external_attr=(stat.S_IFCHR | 0o666) << 16), "not a regular file"),
    "directory with content": (lambda: with_info("d/", b"x"), "has content"),
    "same name twice": (twice, "'w.pt' is there twice"),
    "same name but for case": (lambda: with_info("W.PT"), "differ only in case"),
    "same manifest but for case": (lambda: with_info("mar-inf/manifest.JSON"), "differ only in case"),
    "file and directory": (lambda: with_info("w.pt/x"), "is a file, and a directory of"),
    "hidden before the directory": (hidden_local, "is hidden"),
    "hidden in front": (hidden_first, "'handler.py' is there twice"),
    "hidden in the directory": (hidden_central, "is hidden from whoever reads it forward"),
    "two names": (renamed, "is hidden or forged"),
    "another order": (swapped, "is hidden or forged"),
    "bytes between": (lambda: shifted(archive(), directory_at(archive()), b"\0" * 8), "is hidden"),
    "bytes in an entry": (trailing_in_entry, "after its compressed data"),
    "encrypted": (lambda: flipped(6, 1), "is encrypted"),
    "data descriptor": (lambda: flipped(6, 8), "tells its size only after its data"),
    "strong encryption": (lambda: flipped(6, 1 << 6), "a zip feature"),
    "unknown method": (lambda: flipped(8, 14), "compressed by method 14"),
    "stored, really deflated": (lambda: flipped(8, 0), "has two sizes"),
    "CRC": (lambda: patched(b"weights", b"Weights", archive(method=zipfile.ZIP_STORED)), "its CRC does not match"),
    "larger than it says": (lambda: sizes_lie(10), "unpacks to another size"),
    "smaller than it says": (lambda: sizes_lie(10_000), "unpacks to another size"),
    "bomb": (bomb, "is a bomb"),
    "unmarked UTF-8": (lambda: patched(b"w.pt", b"\xc3\xbc.t"), "an encoding that it does not tell"),
    "wrong UTF-8": (lambda: with_info("\u00fc").replace(b"\xc3\xbc", b"\xff\xfe"), "is not UTF-8"),
    "second name": (lambda: with_info("x", extra=struct.pack("<2HBI", 0x7075, 5, 1, 0)), "has a second name"),
    "broken extra": (lambda: with_info("x", extra=struct.pack("<2H", 9, 50)), "a broken extra field"),
    "no manifest": (lambda: archive({"handler.py": HANDLER}), "has no MAR-INF/MANIFEST.json"),
    "manifest no JSON": (lambda: archive({**FILES, "MAR-INF/MANIFEST.json": b"{'a': 1}"}), "is not JSON"),
    "manifest deep": (lambda: archive({**FILES, "MAR-INF/MANIFEST.json": b"[" * 100_000}), "is not JSON"),
    "manifest a list": (lambda: archive({**FILES, "MAR-INF/MANIFEST.json": b"[]"}), "MANIFEST.json: document"),
    "manifest large": (lambda: archive({**FILES, "MAR-INF/MANIFEST.json": b" " * (2 << 20)}), "at most 1048576"),
    "manifest doubled": (
        lambda: archive({**FILES, "MAR-INF/MANIFEST.json": b'{"model": 1, "model": 2}'}), "names a field twice"),
    "no model": (
        lambda: archive({**FILES, "MAR-INF/MANIFEST.json": b'{"runtime": "python"}'}), "model: Field required"),
    "no version": (lambda: with_manifest({"modelVersion": None}), "model.modelVersion"),
    "version a number": (lambda: with_manifest({"modelVersion": 1.0}), "model.modelVersion"),
    "version a label": (lambda: with_manifest({"modelVersion": "PROD"}), "looks like a label"),
    "name invalid": (lambda: with_manifest({"modelName": "../x"}), "cannot be a model name"),
    "no handler": (lambda: with_manifest({"handler": ""}), "model.handler"),
    "runtime": (lambda: with_manifest(runtime="python2"), "MANIFEST.json: runtime"),
    "handler missing": (lambda: with_manifest({"handler": "other.py"}), "handler file 'other.py' is missing"),
    "handler with two classes": (
        lambda: archive({**FILES, "handler.py": b"class A: ...\nclass B: ...\n"}), "defines 2 classes"),
    "weights elsewhere": (lambda: with_manifest({"serializedFile": "../w.pt"}), "is not at the archive's root"),
    "configuration": (
        lambda: with_manifest({"configFile": "c.yaml"}), "configFile 'c.yaml' is not at"),
    "package torch": (lambda: archive({**FILES, "torch/__init__.py": b""}), "the place of the package 'torch'"),
}  # fmt: skip


def test_a_small_archive_of_many_zeros_is_a_bomb(tmp_path: Path) -> None:
    """100 MiB of zeros in 100 KiB are refused; 60 MiB, which any machine holds, are not."""
    for mib, refused in ((100, True), (60, False)):
        path = tmp_path / "x.mar"
        path.write_bytes(archive({**FILES, "zeros.bin": bytes(mib * 1024**2)}))
        assert any("is a bomb" in problem for problem in inspect_archive(path).problems) == refused


@pytest.mark.parametrize(("make", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_archives_are_refused(make: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    """An archive that its readers would read differently, or that is a trap, is refused with one line."""
    path = tmp_path / "x.mar"
    path.write_bytes(make())
    with pytest.raises(InvalidArchive) as caught:
        check_archive(path)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message
    with pytest.raises(InvalidArchive):
        repack(path, tmp_path / "y.mar")
    assert [file.name for file in tmp_path.iterdir()] == ["x.mar"]
    assert inspect_archive(path).problems


def test_yaml_tags_in_an_archive_are_refused(tmp_path: Path) -> None:
    """The model configuration of anybody's archive is held to the rules of packing."""
    document = {**MANIFEST, "model": {**MODEL, "configFile": "c.yaml"}}
    files = {**FILES, "MAR-INF/MANIFEST.json": json.dumps(document).encode()}
    path = tmp_path / "x.mar"
    path.write_bytes(archive({**files, "c.yaml": b"handler: !!python/object/apply:os.system [id]\n"}))
    with pytest.raises(InvalidArchive, match=r"c.yaml:1: the tag"):
        check_archive(path)


def test_70_000_entries_are_refused_quickly(tmp_path: Path) -> None:
    """An archive with far too many entries costs a fraction of a second."""
    path = tmp_path / "x.mar"
    with zipfile.ZipFile(path, "w") as target:
        for number in range(70_000):
            target.writestr(f"{number}", b"")
    start = time.perf_counter()
    with pytest.raises(InvalidArchive, match="more than 10000 entries"):
        check_archive(path)
    assert time.perf_counter() - start < 2


def test_what_torch_model_archiver_makes_is_accepted(tmp_path: Path) -> None:
    """A deflated, unsorted archive with directories and the usual extra fields is accepted and re-packed."""
    path = tmp_path / "x.mar"
    data = io.BytesIO(archive())
    with zipfile.ZipFile(data, "a") as target:
        target.mkdir("empty")
        target.writestr("dir/\u00fc.txt", b"x")
    path.write_bytes(data.getvalue())
    info = check_archive(path)
    assert not info.canonical
    assert [file.name for file in info.files] == [*FILES, "dir/\u00fc.txt"]
    again = repack(path, tmp_path)
    assert again.path == tmp_path / "m.mar"
    assert check_archive(again.path).canonical
    with zipfile.ZipFile(again.path) as result:
        assert result.read("w.pt") == FILES["w.pt"]


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    """No byte of a canonical archive can change and leave it canonical with the same files."""
    path = tmp_path / "x.mar"
    path.write_bytes(archive({**FILES, "w.pt": b"w"}))
    data = repack(path, tmp_path / "y.mar").path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x21]) + data[position + 1 :])
        assert not inspect_archive(path).canonical, position


def test_a_manifest_keeps_what_it_says(tmp_path: Path) -> None:
    """Fields of other archiver versions survive re-packing; only `createdOn` is replaced."""
    path = tmp_path / "x.mar"
    path.write_bytes(with_manifest({"description": "d"}, zeta={"b": 1, "a": 2}))
    again = repack(path, tmp_path / "y.mar")
    with zipfile.ZipFile(again.path) as result:
        document = json.loads(result.read("MAR-INF/MANIFEST.json"))
    assert document.pop("createdOn") == "01/01/1980 00:00:00"
    assert document == {
        "runtime": "python", "model": {**MODEL, "description": "d"}, "archiverVersion": "0.12.0",
        "zeta": {"b": 1, "a": 2},
    }  # fmt: skip
