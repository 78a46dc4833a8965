"""`marway compare` and `marway verify --engine` with real pods of both engines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from marway_archiver import pack
from support.cli import marway
from support.up import processes_of, wait_until

# Each starts a TorchServe. tests/archiver/test_engines_cli.py has the verbs, tests/ops/engines what they do with pods.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.extended]

ALIKE = "def handle(data, context):\n    return [{'shout': row['data'].upper()} for row in data or []]\n"
UNLIKE = (
    "import traceback\n\n\ndef handle(data, context):\n"
    "    native = any('engines/native' in frame.filename for frame in traceback.extract_stack())\n"
    "    return [{'score': 0.5 if native else 0.25} for row in data or []]\n"
)


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with a directory for temporary files that is looked at: nothing may be left in it."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    yield {"TMPDIR": str(directory)}
    wait_until(lambda: not processes_of(directory), timeout_s=15, what="every process gone")
    assert [*directory.iterdir()] == []


def archive(tmp_path: Path, source: str) -> Path:
    (tmp_path / "its_handler.py").write_text(source)
    return pack(
        model_name="m", version="1", handler=str(tmp_path / "its_handler.py"), export_path=tmp_path,
        examples=["wake me up", "play", "no"], golden_file=tmp_path / "m.golden.json",
    ).path  # fmt: skip


def ran(*words: object, **env: str) -> tuple[int, dict[str, Any], str]:
    done = marway(*map(str, words), "--json", **env)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def test_a_version_is_the_same_on_both(tmp_path: Path, temporary: dict[str, str]) -> None:
    """Golden answers and answers under load are equal; the report has figures and memory of both pods."""
    words = ("--engine", "torchserve", "native", archive(tmp_path, ALIKE), "--seconds", "1", "--clients", "1,4")
    code, found, err = ran("compare", *words, **temporary)
    assert (code, found["equal"]) == (0, True), err
    assert [*found["engines"]] == ["torchserve", "native"]
    for name, engine in found["engines"].items():
        assert engine["versions"][name]
        assert [each["ok"] for each in engine["examples"]] == [True, True, True]
    assert [(each["clients"], each["engine"]) for each in found["load"]] == [
        (1, "torchserve"), (1, "native"), (4, "torchserve"), (4, "native"),
    ]  # fmt: skip
    for each in found["load"]:
        assert each["requests"] > 1
        assert 0 < each["p50_ms"] <= each["p99_ms"]
    memory = {name: each["mib"] for name, each in found["memory"].items()}
    assert 0 < memory["native"] < memory["torchserve"]
    assert "java" in found["engines"]["torchserve"]["versions"]


def test_a_version_that_is_not_is_told_by_example(tmp_path: Path, temporary: dict[str, str]) -> None:
    """`marway verify --engine both` shows what each engine says to each example, and ends with 1."""
    code, found, _ = ran("verify", archive(tmp_path, UNLIKE), "--engine", "both", **temporary)
    assert (code, found["ok"]) == (1, False)
    assert found["engines"]["torchserve"]["ok"]
    native = found["engines"]["native"]
    assert [each["problem"] for each in native["examples"]] == ["at score: 0.25 was expected, 0.5 came"] * 3
    assert found["differences"] == [
        {"number": number, "difference": "at score: 0.25 was expected, 0.5 came"} for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_takes_everything_away(tmp_path: Path, temporary: dict[str, str], number: int) -> None:
    """A signal while pods run ends all of them, and no file is left."""
    path = archive(tmp_path, ALIKE)
    home = Path(temporary["TMPDIR"])
    command = [sys.executable, "-m", "marway", "compare", str(path), "--seconds", "60"]
    process = subprocess.Popen(command, env={**os.environ, **temporary}, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: _workers(home), timeout_s=120, what="a worker of the pods")
        process.send_signal(number)
        started = time.monotonic()
        process.communicate(timeout=30)
        assert process.returncode == 130
        assert time.monotonic() - started < 20
    finally:
        process.kill()


def _workers(home: Path) -> list[psutil.Process]:
    return [each for each in processes_of(home) if "runtime" in each.info["cmdline"]]
