from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import marway_archiver
from marway.errors import InvalidArchive
from marway_archiver import check_archive, inspect_archive, pack, repack

# After ours, which imports it without the warning that it gives.
from model_archiver.model_archiver_config import ModelArchiverConfig  # isort: skip
from model_archiver.model_packaging import generate_model_archive  # isort: skip

Arguments = Callable[..., dict[str, Any]]
Child = Callable[..., "subprocess.Popen[str]"]

GOLDEN_SHA256 = "3349dc9d262f702eddb293a1a6c0d6aa1bd2a3367933983230448935549b4568"

PACK = """
import json, sys
from marway_archiver import pack
print(pack(**json.loads(sys.argv[1])).sha256)
"""


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_exported_members() -> None:
    """The package exports what it lists, in order."""
    assert marway_archiver.__all__ == sorted(marway_archiver.__all__)
    assert all(hasattr(marway_archiver, name) for name in marway_archiver.__all__)


def test_a_tiny_pack_has_the_bytes_it_always_had(tmp_path: Path) -> None:
    """The digest of a fixed pack never changes: it is the same on every machine and in every release."""
    handler = tmp_path / "handler.py"
    handler.write_bytes(b"def handle(data, context):\n    return data\n")
    packed = pack(
        model_name="tiny", version="1.0", handler=str(handler), export_path=tmp_path, add_files={"dir/\u00fc": b"x"}
    )
    assert packed.sha256 == GOLDEN_SHA256
    assert packed.sha256 == hashlib.sha256(packed.path.read_bytes()).hexdigest()
    assert packed.size_bytes == packed.path.stat().st_size


def test_same_bytes_wherever_and_whenever_packed(
    tmp_path: Path, child: Child, fresh_inputs: Callable[[Path], Path]
) -> None:
    """Other paths, times, modes, umask, time zone, locale and working directory give the same digest."""
    digests = set()
    surroundings = [
        ({"TZ": "UTC", "LANG": "C", "LC_ALL": "C"}, 0o022, 1_000_000_000),
        ({"TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8", "PYTHONHASHSEED": "7"}, 0o077, 1_700_000_000),
    ]
    for number, (env, umask, mtime) in enumerate(surroundings):
        root = fresh_inputs(tmp_path / str(number) / ("x" * (number + 1)))
        for file in root.rglob("*"):
            os.utime(file, (mtime, mtime))
            file.chmod(0o755 if file.is_dir() else 0o644 - number * 0o044)
        given = {
            "model_name": "digits",
            "version": "1.0",
            "handler": "handler.py",
            "serialized_file": "weights.pt",
            "extra_files": "extra,labels.json" if number else f"labels.json,{root / 'extra'}",
            "export_path": str(tmp_path / str(number)),
        }
        process = child(PACK, json.dumps(given), cwd=root, env=env, umask=umask)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        digests.add(out)
    assert len(digests) == 1


def test_holds_the_files_that_torch_model_archiver_packs(arguments: Arguments, inputs: Path, tmp_path: Path) -> None:
    """Our archive and torch-model-archiver's hold the same files with equal contents, but for `createdOn`."""
    packed = pack(**arguments())
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    given = {key: str(value) for key, value in arguments().items()}
    generate_model_archive(ModelArchiverConfig(**given | {"export_path": str(theirs)}))
    ours, reference = contents(packed.path), contents(theirs / "digits.mar")
    manifests = [json.loads(files.pop("MAR-INF/MANIFEST.json")) for files in (ours, reference)]
    assert manifests[0].pop("createdOn") == "01/01/1980 00:00:00"
    assert manifests[1].pop("createdOn")
    assert manifests[0] == manifests[1]
    assert ours == reference
    assert "sub/deep/ü.txt" in ours


@pytest.mark.parametrize("archive_format", ["default", "zip-store"])
def test_repack_of_their_archive_gives_our_bytes(arguments: Arguments, tmp_path: Path, archive_format: str) -> None:
    """What torch-model-archiver made, deflated or stored, re-packs to what packing the inputs gives."""
    packed = pack(**arguments())
    given = {key: str(value) for key, value in arguments().items()}
    generate_model_archive(
        ModelArchiverConfig(**given | {"export_path": str(tmp_path), "archive_format": archive_format})
    )
    assert not inspect_archive(tmp_path / "digits.mar").canonical
    again = repack(tmp_path / "digits.mar", tmp_path / "again.mar")
    assert again.sha256 == packed.sha256
    assert repack(again.path, tmp_path / "thrice.mar").sha256 == packed.sha256


def test_is_stored_sorted_and_fixed(arguments: Arguments) -> None:
    """Every entry is stored, of 1980 and mode 0644; the manifest is first, the others sorted; no flags."""
    packed = pack(**arguments())
    with zipfile.ZipFile(packed.path) as archive:
        infos = archive.infolist()
    names = [info.filename for info in infos]
    assert names == ["MAR-INF/MANIFEST.json", *sorted(names[1:])]
    for info in infos:
        assert info.compress_type == zipfile.ZIP_STORED
        assert info.date_time == (1980, 1, 1, 0, 0, 0)
        assert (info.external_attr >> 16, info.create_system) == (0o100644, 3)
        assert not info.flag_bits & ~0x800
        assert not info.extra
    checked = check_archive(packed.path)
    assert checked.canonical
    assert checked.sha256 == packed.sha256
    assert checked.manifest == packed.manifest


def test_handler_with_function(inputs: Path, tmp_path: Path) -> None:
    """`FILE:FUNCTION` and `FILE.py:FUNCTION` pack the file and keep the function in the manifest."""
    (inputs / "handler.py").write_text("def answer(data, context):\n    return data\n")
    for number, handler in enumerate(("handler:answer", "handler.py:answer")):
        packed = pack(model_name=f"m{number}", version="1", handler=str(inputs / handler), export_path=tmp_path)
        assert packed.manifest.model.handler == handler
        assert "handler.py" in contents(packed.path)


def test_builtin_handler(inputs: Path, tmp_path: Path) -> None:
    """The name of one of TorchServe's own handlers packs no handler file."""
    packed = pack(
        model_name="m", version="1", handler="image_classifier", serialized_file=inputs / "weights.pt",
        export_path=tmp_path,
    )  # fmt: skip
    assert sorted(contents(packed.path)) == ["MAR-INF/MANIFEST.json", "weights.pt"]


def test_extra_files_take_wildcards_and_sequences(arguments: Arguments, inputs: Path) -> None:
    """Wildcards, blanks after commas and sequences of paths work; a wildcard without a match is a warning."""
    packed = pack(**arguments(extra_files=f"{inputs}/*.json, {inputs}/extra/v*, {inputs}/nothing*"))
    assert {"labels.json", "vocab.txt"} <= set(contents(packed.path))
    assert "matches no file" in packed.warnings[0]
    same = pack(**arguments(extra_files=[inputs / "labels.json", f"{inputs}/extra/v*"], force=True))
    assert same.sha256 == packed.sha256


def test_links_within_an_extra_directory_are_followed(arguments: Arguments, inputs: Path) -> None:
    """A symbolic link that stays in its directory is stored as what it points at."""
    (inputs / "extra" / "again.txt").symlink_to("vocab.txt")
    (inputs / "extra" / "more").symlink_to("sub")
    found = contents(pack(**arguments()).path)
    assert found["again.txt"] == found["vocab.txt"]
    assert "more/deep/ü.txt" in found


def test_the_same_file_given_twice_is_packed_once(arguments: Arguments, inputs: Path) -> None:
    """Two inputs with one name and equal contents are one file."""
    copy = inputs / "copy"
    copy.mkdir()
    (copy / "labels.json").write_bytes((inputs / "labels.json").read_bytes())
    pack(**arguments(extra_files=f"{copy},{inputs / 'labels.json'},{inputs / 'handler.py'}"))


def test_force_replaces(arguments: Arguments, inputs: Path) -> None:
    """Without `force` an existing archive stays as it is; with it, it is replaced."""
    first = pack(**arguments())
    (inputs / "weights.pt").write_bytes(b"other")
    with pytest.raises(InvalidArchive, match="--force"):
        pack(**arguments())
    assert check_archive(first.path).sha256 == first.sha256
    assert pack(**arguments(force=True)).sha256 != first.sha256


def test_tgz_is_deterministic_and_whole(arguments: Arguments) -> None:
    """`tgz` gives a tar whose times, owners and order are fixed, below the model's name."""
    packed = pack(**arguments(archive_format="tgz"))
    assert packed.path.name == "digits.tar.gz"
    with tarfile.open(packed.path) as archive:
        members = archive.getmembers()
        weights = archive.extractfile("digits/weights.pt")
        assert weights is not None
        assert weights.read() == bytes(range(256)) * 8
    assert members[0].name == "digits/MAR-INF/MANIFEST.json"
    assert {(each.uid, each.gid, each.mtime, each.mode) for each in members} == {(0, 0, 315_532_800, 0o644)}
    assert pack(**arguments(archive_format="tgz", force=True)).sha256 == packed.sha256


def test_no_archive_is_a_directory(arguments: Arguments, inputs: Path) -> None:
    """`no-archive` gives the same files as a directory, and replaces all of one with force."""
    packed = pack(**arguments(archive_format="no-archive"))
    mar = pack(**arguments())
    found = {str(file.relative_to(packed.path)): file.read_bytes() for file in packed.path.rglob("*") if file.is_file()}
    assert found == contents(mar.path)
    (packed.path / "stray").touch()
    again = pack(**arguments(archive_format="no-archive", force=True))
    assert again.sha256 == packed.sha256
    assert not (packed.path / "stray").exists()
    assert sorted(file.name for file in packed.path.parent.iterdir()) == ["digits", "digits.mar"]


def test_lsp_runtime_packs_a_library(inputs: Path, tmp_path: Path) -> None:
    """`--runtime LSP` takes a shared library named without its ending, or the C++ backend's own handlers."""
    (inputs / "libh.so").write_bytes(b"\x7fELF")
    packed = pack(model_name="m", version="1", handler=f"{inputs}/libh:Handler", runtime="LSP", export_path=tmp_path)
    assert packed.manifest.runtime == "LSP"
    assert "libh.so" in contents(packed.path)
    check_archive(packed.path)
    own = pack(
        model_name="own", version="1", handler="TorchScriptHandler", runtime="LSP", export_path=tmp_path,
        serialized_file=inputs / "weights.pt",
    )  # fmt: skip
    check_archive(own.path)


def test_imports_left_behind_are_a_warning(arguments: Arguments, inputs: Path) -> None:
    """An import of a file that lies beside the handler and is not packed is told, with its line."""
    (inputs / "helper.py").write_text("x = 1\n")
    text = (inputs / "handler.py").read_text()
    (inputs / "handler.py").write_text(f"import json\nfrom helper import x\n{text}")
    packed = pack(**arguments())
    assert len(packed.warnings) == 1
    assert "handler.py:2: imports 'helper'" in packed.warnings[0]
    both = f"{inputs / 'extra'},{inputs / 'labels.json'},{inputs / 'helper.py'}"
    assert not pack(**arguments(extra_files=both, force=True)).warnings


def test_progress_ends_at_its_total(arguments: Arguments, inputs: Path) -> None:
    """Progress never falls, and ends with all bytes done."""
    (inputs / "weights.pt").write_bytes(bytes(5 * 1024 * 1024))
    seen: list[tuple[int, int]] = []
    pack(**arguments(progress=lambda done, total: seen.append((done, total))))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 5 * 1024 * 1024


def test_files_can_be_added_from_memory(arguments: Arguments, tmp_path: Path) -> None:
    """`add_files` puts bytes into the archive, also in MAR-INF, and repack can add them later."""
    added = {"MAR-INF/examples.jsonl": b"{}\n"}
    packed = pack(**arguments(add_files=added))
    assert check_archive(packed.path).canonical
    plain = pack(**arguments(force=True))
    assert repack(plain.path, tmp_path / "added.mar", add_files=added).sha256 == packed.sha256
    with pytest.raises(InvalidArchive, match="the manifest's place"):
        pack(**arguments(add_files={"MAR-INF/manifest.JSON": b""}, force=True))


def test_the_base_of_a_shipped_handler_comes_with_it(tmp_path: Path) -> None:
    """What Marway's handlers share is packed with one that imports it and lies beside it, and with no other."""
    (tmp_path / "marway_handler_base.py").write_text("class Base:\n    def handle(self, data, context): ...\n")
    importing = "from marway_handler_base import Base\n\n\nclass Handler(Base): ...\n"
    (tmp_path / "importing.py").write_text(importing)
    (tmp_path / "other.py").write_text("def handle(data, context): ...\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "importing.py").write_text(importing)
    for handler, files in (
        ("importing.py", ["importing.py", "marway_handler_base.py"]),
        ("other.py", ["other.py"]),
        ("elsewhere/importing.py", ["importing.py"]),
    ):
        packed = pack(
            model_name="m", version="1", handler=str(tmp_path / handler), export_path=tmp_path, force=True
        )  # fmt: skip
        held = [each.name for each in inspect_archive(packed.path).files]
        assert held == ["MAR-INF/MANIFEST.json", *files]
