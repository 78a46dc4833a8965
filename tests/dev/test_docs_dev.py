"""docs/dev.md and docs/importers.md are true: their commands are run in their order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from marway_archiver.importers.importing import ImportKind
from marway_dev.new import KINDS

ROOT = Path(__file__).parents[2]
DEV, IMPORTERS = ((ROOT / "docs" / name).read_text() for name in ("dev.md", "importers.md"))


def run(command: str, directory: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tables_name_every_kind() -> None:
    """What `marway new` and `marway pack --from` know is what the pages name."""
    assert set(re.findall(r"^\| `(\w+)` \|", DEV[DEV.index("## Kinds") : DEV.index("## What")], re.MULTILINE)) == set(
        KINDS
    )
    assert set(re.findall(r"^\| `(\w+)` \|", IMPORTERS, re.MULTILINE)) == set(ImportKind)


@pytest.mark.extended  # processes with torch; test_new.py and test_handler_files.py have the parts
def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    """From nothing to an archive with golden examples, by the commands as they stand there."""
    (block,) = re.findall(r"^```sh\n(.*?)^```", DEV, re.MULTILINE | re.DOTALL)
    for command in block.splitlines():
        run(command, tmp_path)
    assert (tmp_path / "greet" / "greet.golden.json").is_file()


@pytest.mark.extended  # a process with torch; tests/handlers/test_imported_models.py asks the handlers
def test_an_onnx_model_is_packed_as_shown(tmp_path: Path) -> None:
    """The command of the page on importers packs a real model and has it answer."""
    run(f"{sys.executable} {ROOT / 'handlers/marway_dev/kinds/onnx/train.py'}", tmp_path)
    (block,) = re.findall(r"^```console\n\$ (.*?)\n```", IMPORTERS, re.MULTILINE)
    assert "1 golden example" in run(block, tmp_path)
