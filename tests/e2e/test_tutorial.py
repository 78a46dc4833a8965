"""docs/tutorial.md is true: a newcomer's dozen commands run in their order, and the console shows what they did."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.up import Up

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.extended]  # tests of each verb are elsewhere


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory that looks like a checkout with its environment made."""
    for name in ("README.md", "docs", "examples", "Makefile", "config", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


@pytest.fixture
def up(checkout: Path) -> Iterator[Up]:
    """What `make up` starts, without its own examples, which other tests train."""
    with Up(checkout / ".marway") as started:
        yield started


def test_the_page(up: Up, checkout: Path) -> None:
    """With `make up` a dozen commands at most; the bad version is found out, and the console has it all."""
    assert len(COMMANDS) + 1 <= 12
    printed: dict[str, str] = {}
    for line in COMMANDS:
        here = line.replace("http://127.0.0.1:8000", up.gateway)
        done = subprocess.run(
            ["bash", "-c", here],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=300,
            env={name: value for name, value in os.environ.items() if not name.startswith("MARWAY_")},
        )
        expected = 1 if "rollout watch" in line else 0  # as the page says: the rollout went back
        assert done.returncode == expected, f"{line}\n{done.stdout}{done.stderr}"
        printed[line.removeprefix(".venv/bin/")] = done.stdout
    assert "versicolor" in next(text for line, text in printed.items() if line.startswith("marway predict"))
    watched = printed["marway rollout watch flowers"]
    assert "rolled back by gateway: disagreement is worse" in watched
    quality = printed["marway quality flowers"]
    assert re.search(r"1\.0", quality)
    assert re.search(r"2\.0", quality)
    with httpx.Client(base_url=up.ready["admin"], trust_env=False, timeout=60) as client:
        model = client.get("/console/models/flowers", headers={"accept": "text/html"})
    assert model.status_code == 200
    for shown in ("flowers", "1.0", "2.0", "PROD"):
        assert shown in model.text
