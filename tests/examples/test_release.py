"""The example of a release that watches itself: one command, a version that takes over and one that leaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]


# Extended: tests/gateway/traffic has rollouts over whole gateways, tests/observations/replay what replays find.
@pytest.mark.extended
@pytest.mark.e2e
def test_one_takes_over_and_one_leaves(tmp_path: Path) -> None:
    """`make example-release` ends with 1.1 promoted and 1.2 rolled back, which touched next to nobody; it is drawn."""
    without = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    record = tmp_path / "run.json"
    done = subprocess.run(
        ["make", "example-release", f"VENV={sys.prefix}", f"EXAMPLE_ARGS=--record {record}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=580,
        env={name: value for name, value in os.environ.items() if name not in without},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"promoted by \S+: no guard found it worse", done.stdout), done.stdout
    assert re.search(r"rolled back by \S+: disagreement is worse", done.stdout), done.stdout
    counted = re.search(
        r"(\d+) requests were answered, (\d+) failed.*answered (\d+) requests, (\d+) of them", done.stdout
    )
    assert counted is not None, done.stdout
    answered, failed, by_bad, wrong = map(int, counted.groups())
    assert failed == 0
    assert wrong <= by_bad <= answered / 100
    assert json.loads(record.read_text())[-1]["rollout"]["state"] == "rolled_back"
    assert draw(record) == ["release-promoted.svg", "release-rolled-back.svg"]


def draw(record: Path) -> list[str]:
    """Have the pictures of a record drawn beside it, and return their names; each is an SVG."""
    script = ROOT / "examples/release/picture.py"
    subprocess.run([sys.executable, str(script), str(record), str(record.parent)], check=True, timeout=60)
    drawn = sorted(record.parent.glob("*.svg"))
    assert all(ElementTree.parse(each).getroot().tag.endswith("}svg") for each in drawn)
    return [each.name for each in drawn]


def test_pictures(tmp_path: Path) -> None:
    """A picture says who answered and how the rollout ended, with the guard that ended it."""
    seconds: list[dict[str, Any]] = [{"at": 0.0, "answered": {"1": 0}, "rollout": None}]
    for second in range(1, 9):
        rolled_back = second > 4
        rollout = {
            "rollout": "R",
            "state": "rolled_back" if rolled_back else "running",
            "base": "1",
            "candidate": "2",
            "percent": 1.0,
            "guard": "errors" if rolled_back else None,
            "evidence": {"errors": {"evidence": 0.3 * second}},
        }
        answered = {"1": 100 * second, "2": 3 * min(second, 4)}
        seconds.append({"at": float(second), "answered": answered, "rollout": rollout})
    (tmp_path / "run.json").write_text(json.dumps(seconds))
    assert draw(tmp_path / "run.json") == ["release-rolled-back.svg"]
    drawn = (tmp_path / "release-rolled-back.svg").read_text()
    for words in ("intent 2 is to take the place of 1: rolled back", "rolled back: errors", "4 %", "verdict"):
        assert words in drawn
    # Who is found out at once may not have been seen running.
    (tmp_path / "run.json").write_text(json.dumps([seconds[0], *seconds[5:]]))
    assert draw(tmp_path / "run.json") == ["release-rolled-back.svg"]
    assert "rolled back: errors" in (tmp_path / "release-rolled-back.svg").read_text()
