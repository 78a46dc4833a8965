"""How much of ours a newcomer opens to follow one small prediction."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.way import ROOT, lines_of, traced_up, ways

# It counts; tests/e2e/test_frames.py and others make predictions.
pytestmark = [pytest.mark.e2e, pytest.mark.extended]
PAGE = ROOT / "docs" / "architecture.md"
MOST_FILES = 40
MOST_LINES = 7_000
# Of 30 that a quick load needs; a slow machine lets the autoscaler and the memory's measuring look in meanwhile.
MOST_FILES_OF_A_LOAD = 36


def test_a_small_prediction_goes_through_the_files_that_the_architecture_page_lists(tmp_path: Path) -> None:
    """A small prediction, asked of a running `marway up`, runs the listed files alone: 40 at most, 7,000 lines at most;
    loading its model adds 36 at most."""
    with traced_up(tmp_path, "--demo") as traced:
        warm, cold = ways(traced)
    listed = listed_files()
    assert set(warm.files) <= listed, warm.text(functions=True)
    assert len(listed) <= MOST_FILES, warm.text()
    assert sum(map(lines_of, listed)) <= MOST_LINES, warm.text()
    assert len(cold.files) <= MOST_FILES_OF_A_LOAD, cold.text(functions=True)


def listed_files() -> set[Path]:
    """Return the files in the page's list, which begins with its heading."""
    section = PAGE.read_text().split("## The files of a small prediction\n")[1].split("\n## ")[0]
    return {Path(each) for each in re.findall(r"\(\.\./((?:core|gateway|sidecar)/[^)]+\.py)\)", section)}
