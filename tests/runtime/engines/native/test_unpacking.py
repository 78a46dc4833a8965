from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from marway.archives.rules import NOT_SERVED
from marway.errors import LoadFailed, Unavailable
from marway_runtime.engines.native.unpacking import unpack

MANIFEST = {"model": {"modelName": "m", "modelVersion": "1.0", "handler": "h.py", "configFile": "c.yaml"}}


def write(path: Path, *, manifest: Any = MANIFEST, config: str = "", files: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("c.yaml", config)
        for name, data in (files or {}).items():
            archive.writestr(name, data)
    return path


def test_an_archive_becomes_a_directory(tmp_path: Path) -> None:
    """Its files lie in a directory of its own, and its time-outs win over those of the call."""
    path = write(tmp_path / "a.mar", config="responseTimeout: 7\nstartupTimeout: x\n", files={"sub/w.pt": b"weights"})
    found = unpack(path, tmp_path, "m 1.0")
    assert (found.version, found.handler) == ("1.0", "h.py")
    assert (found.model_dir / "sub" / "w.pt").read_bytes() == b"weights"
    assert found.seconds("responseTimeout", 30.0) == 7.0
    assert found.seconds("startupTimeout", 30.0) == 30.0
    assert unpack(path, tmp_path, "m 1.0").directory != found.directory


@pytest.mark.parametrize("key", sorted(NOT_SERVED))
def test_fault_a_setting_that_is_not_served(tmp_path: Path, key: str) -> None:
    """Each setting that no engine serves is named in the refusal; switched off it is no matter."""
    with pytest.raises(LoadFailed, match=key):
        unpack(write(tmp_path / "a.mar", config=f"{key}: true\n"), tmp_path, "m 1.0")
    path = write(tmp_path / "b.mar", config=f"{key}: false\n")
    if NOT_SERVED[key].off:
        unpack(path, tmp_path, "m 1.0")
    else:
        with pytest.raises(LoadFailed, match=key):
            unpack(path, tmp_path, "m 1.0")


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        ({"config": "a: ["}, "no YAML"),
        ({"manifest": {}}, "KeyError"),
        ({"manifest": []}, "TypeError"),
        ({"manifest": {"model": {"modelVersion": "1.0"}}}, "no handler"),
        ({"manifest": {"model": {"handler": "h.py", "configFile": "none.yaml"}}}, "KeyError"),
    ],
)
def test_what_cannot_be_loaded_is_refused(tmp_path: Path, archive: dict[str, Any], why: str) -> None:
    """Manifests and configurations that are none are refused before anything is unpacked."""
    with pytest.raises(LoadFailed, match=why):
        unpack(write(tmp_path / "a.mar", **archive), tmp_path, "m 1.0")
    assert not list(tmp_path.glob("native-*"))


def test_fault_a_bomb(tmp_path: Path) -> None:
    """What unpacks to very much more than it is is not unpacked."""
    with pytest.raises(LoadFailed, match="bomb"):
        unpack(write(tmp_path / "a.mar", files={"zeros": bytes(65 * 1024 * 1024)}), tmp_path, "m 1.0")
    assert not list(tmp_path.glob("native-*"))


def test_no_entry_leaves_the_directory(tmp_path: Path) -> None:
    """Paths that lead out lead nowhere."""
    path = write(tmp_path / "a.mar", files={"../../out": b"x", "/abs": b"y"})
    found = unpack(path, tmp_path, "m 1.0")
    assert not (tmp_path / "out").exists()
    assert (found.model_dir / "abs").read_bytes() == b"y"


def test_a_full_disk_is_no_fault_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room the pod is not available, so that another may take the version."""
    path = write(tmp_path / "a.mar", files={"w": b"x" * 100})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(Unavailable, match="0 MiB free and it needs 1 MiB"):
        unpack(path, tmp_path, "m 1.0")


def test_no_archive_is_refused(tmp_path: Path) -> None:
    """A file that is no zip, and one that is not there, are told apart."""
    (tmp_path / "a.mar").write_bytes(b"no zip")
    with pytest.raises(LoadFailed, match="cannot be read"):
        unpack(tmp_path / "a.mar", tmp_path, "m 1.0")
    with pytest.raises(LoadFailed, match="not in the model store"):
        unpack(tmp_path / "b.mar", tmp_path, "m 1.0")
