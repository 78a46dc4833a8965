"""A worker of TorchServe's finds its version's environment by its archive's manifest, before it imports anything."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from marway_runtime.worker import overlay
from marway_runtime.worker.overlay import OVERLAYS_ENV, find_overlay, plain_command, read_manifest, write_overlay

NEEDS = {"model": {"modelName": "needs", "modelVersion": "1.0", "requirementsFile": "requirements.txt"}}


def test_it_is_found_by_name_and_version(tmp_path: Path) -> None:
    """What was written for a version is found for it alone, until it is taken away."""
    overlays, there = tmp_path / "overlays", tmp_path / "environment"
    assert find_overlay(NEEDS, str(overlays)) is None
    write_overlay(overlays, "needs", "1.0", there)
    assert find_overlay(NEEDS, str(overlays)) == str(there)
    assert find_overlay({"model": {**NEEDS["model"], "modelVersion": "2.0"}}, str(overlays)) is None
    write_overlay(overlays, "needs", "1.0", None)
    write_overlay(overlays, "needs", "1.0", None)
    assert find_overlay(NEEDS, str(overlays)) is None


@pytest.mark.parametrize("manifest", [{}, {"model": None}, {"model": {"modelName": "needs", "modelVersion": "1.0"}}])
def test_nothing_is_looked_for_without_requirements(manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive without a requirements file has no file looked for, nor has one where there are no environments."""
    monkeypatch.setattr(overlay, "Path", None)
    assert find_overlay(manifest, "/somewhere") is None
    assert find_overlay(NEEDS, None) is None


def test_a_manifest_leads_nowhere_else(tmp_path: Path) -> None:
    """A name in a manifest cannot reach a file outside of the directory, and what is no manifest says nothing."""
    (tmp_path / "secret@1").write_text("/somewhere")
    (tmp_path / "overlays").mkdir()
    hostile = {"model": {"modelName": "../secret", "modelVersion": "1", "requirementsFile": "r"}}
    assert find_overlay(hostile, str(tmp_path / "overlays")) is None
    for text in ("[1]", "{", ""):
        (tmp_path / "MAR-INF").mkdir(exist_ok=True)
        (tmp_path / "MAR-INF" / "MANIFEST.json").write_text(text)
        assert read_manifest(tmp_path) == {}


def test_a_plain_worker_has_it_in_front(tmp_path: Path) -> None:
    """A worker that is a Python of its own imports from its environment first, and so do processes that it starts."""
    model, there = tmp_path / "model", tmp_path / "environment"
    there.mkdir()
    (there / "idna.py").write_text("HERE = 'environment'\n")
    (model / "MAR-INF").mkdir(parents=True)
    (model / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(NEEDS))
    write_overlay(tmp_path / "overlays", "needs", "1.0", there)
    script = tmp_path / "script.py"
    script.write_text(
        "import idna, os, subprocess, sys\nprint(idna.HERE, sys.argv[1], os.environ.get('MARWAY_WORKER_OVERLAYS'))\n"
        "print(subprocess.check_output([sys.executable, '-c', 'import idna; print(idna.HERE)'], text=True))\n"
    )
    done = subprocess.run(
        plain_command(tmp_path, "a test", [str(script), "argument"]), cwd=model, capture_output=True, text=True,
        check=True, env={**os.environ, OVERLAYS_ENV: str(tmp_path / "overlays"), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert "environment argument None" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("environment") == 2, done.stdout
