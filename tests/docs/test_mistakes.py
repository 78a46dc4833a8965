"""The tables of mistakes in the documents: each command prints what its row says, with its exit status."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import marway

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| `marway ([^`]*)` \| (.*?) \| (\d) \|$", re.MULTILINE)


def rows() -> Iterator[tuple[str, str, int]]:
    for command, said, status in _ROW.findall((ROOT / "docs" / "cli.md").read_text()):
        yield command, said, int(status)


def test_the_table_is_found() -> None:
    """The table in docs/cli.md is read, with all its rows."""
    assert len(list(rows())) == (ROOT / "docs" / "cli.md").read_text().count("| `marway ") - 0


@pytest.mark.parametrize(("command", "said", "status"), list(rows()))
def test_mistakes_print_one_clear_line(tmp_path: Path, command: str, said: str, status: int) -> None:
    """A mistake prints the line of the table, without a traceback, and ends with the status of the table."""
    (tmp_path / "README.md").symlink_to(ROOT / "README.md")
    words = [word.replace("/tmp/none", str(tmp_path / "none")) for word in shlex.split(command)]
    done = marway(*words, cwd=tmp_path)
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if status == 1:
        assert done.stderr.startswith("marway: ")
        assert len(done.stderr.strip().splitlines()) == 1
