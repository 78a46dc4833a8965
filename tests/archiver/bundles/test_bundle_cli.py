"""What the verbs say of bundles, and which flags they refuse for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from marway.errors import MarwayError
from marway_archiver.cli import register

SETTINGS = {
    "name": "x",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
}
EXAMPLES = '{"input": [1, 2], "output": 3}\n{"input": [3, 4], "output": 7}\n'
MAR = ["pack", "--model-name", "m", "--version", "1"]
BUNDLE = [*MAR, "--backend", "open-inference"]

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a verb in a directory with a model of MLServer's in `model`, and examples."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model-settings.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "model/model.joblib").write_bytes(b"weights")
    (tmp_path / "examples.jsonl").write_text(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(pretty_exceptions_enable=False)
    register(app)
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.fixture
def packed(run: Run) -> Run:
    """The same, with the bundle packed."""
    assert run(*BUNDLE, "--directory", "model", "--examples", "examples.jsonl").exit_code == 0
    return run


def test_pack_prints_what_it_made(run: Run) -> None:
    """Path, size and digest, and how many answers are stated; as JSON the backend as well."""
    found = run(*BUNDLE, "--directory", "model", "--examples", "examples.jsonl")
    lines = found.stdout.splitlines()
    assert lines[0].startswith("m.bundle  ")
    assert lines[1].startswith("2 golden examples with stated answers, which pods must give  sha256:")
    found = run(*BUNDLE, "--directory", "model", "--examples", "examples.jsonl", "--force", "--json")
    document = json.loads(found.stdout)
    assert document["backend"] == "open-inference"
    assert document["golden"]["path"] == "m.golden.json"
    assert Path("m.golden.json").is_file()


def test_inspect_shows_it(packed: Run) -> None:
    """What it is for, its tensors and its files; as JSON too."""
    text = packed("inspect", "m.bundle").stdout
    assert "m 1, a bundle for open-inference" in text
    assert "takes x FP32 [-1, 2]" in text
    assert "model/model.joblib" in text
    assert "2 golden examples" in text
    document = json.loads(packed("inspect", "m.bundle", "--json").stdout)
    assert document["accepted"]
    assert document["manifest"]["backend"] == "open-inference"
    assert document["signature"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert document["framework"] == "scikit-learn"


def test_inspect_says_what_is_wrong(packed: Run) -> None:
    """With exit code 1."""
    data = Path("m.bundle").read_bytes()
    Path("m.bundle").write_bytes(data.replace(b"weights", b"wEIGHTS"))
    found = packed("inspect", "m.bundle")
    assert found.exit_code == 1
    assert "entry 'model/model.joblib' is damaged" in found.stderr


def test_verify_checks_what_can_be_told_without_the_server(packed: Run) -> None:
    """The bundle, and that the answers beside it are of it."""
    found = packed("verify", "m.bundle")
    assert found.exit_code == 0
    assert "sound; 2 golden answers are stated; no server was asked: --engine NAME does" in found.stdout
    document = json.loads(packed("verify", "m.bundle", "--json").stdout)
    assert document["ok"]
    assert len(document["examples"]) == 2
    Path("m.golden.json").unlink()
    found = packed("verify", "m.bundle")
    assert "the answers to its golden examples are not here" in found.stderr


def test_verify_compares_with_a_registry(packed: Run, tmp_path: Path) -> None:
    """As of a `.mar`, where nothing is beside it."""
    url = (tmp_path / "registry").as_uri()
    assert packed("publish", "m.bundle", "--registry", url, "--create-registry").exit_code == 0
    Path("m.golden.json").unlink()
    found = packed("verify", "m.bundle", "--registry", url)
    assert "2 golden answers are stated" in found.stdout


def test_diff_tells_two_apart(packed: Run) -> None:
    """Files by size and CRC, and what both say of themselves."""
    Path("model/model.joblib").write_bytes(b"other weights")
    Path("out").mkdir()
    assert packed(*BUNDLE[:-3], "2", "--backend", "http", "--directory", "model", "--export-path", "out").exit_code == 0
    document = json.loads(packed("diff", "m.bundle", "out/m.bundle", "--json").stdout)
    fields = {each["field"]: (each["a"], each["b"]) for each in document["record"]}
    assert fields["version"] == ("1", "2")
    assert fields["backend"] == ("open-inference", "http")
    changed = {each["name"]: each["change"] for each in document["files"]}
    assert changed["model/model.joblib"] == "changed"
    assert changed["MARWAY-INF/examples/index.json"] == "removed"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            [*BUNDLE, "--handler", "h.py"],
            "--handler means nothing for a bundle: a bundle for open-inference is",
        ),
        ([*BUNDLE, "--serialized-file", "w"], "--serialized-file means nothing for a bundle"),
        ([*BUNDLE, "--model-file", "m.py"], "--model-file means nothing for a bundle"),
        ([*BUNDLE, "--extra-files", "x"], "--extra-files means nothing for a bundle"),
        ([*BUNDLE, "--runtime", "python"], "--runtime means nothing for a bundle"),
        ([*BUNDLE, "--archive-format", "tgz"], "--archive-format means nothing for a bundle"),
        ([*BUNDLE, "-r", "r.txt"], "--requirements-file means nothing for a bundle"),
        ([*BUNDLE, "-c", "c.yaml"], "--config-file means nothing for a bundle"),
        ([*BUNDLE, "--example", "x"], "--example means nothing for a bundle: its golden examples are given with their"),
        ([*BUNDLE, "--max-batch", "4"], "--max-batch means nothing for a bundle"),
        ([*BUNDLE, "--timeout", "4"], "--timeout means nothing for a bundle"),
        ([*MAR, "--backend", "torchserve"], "servers of the backend torchserve read a .mar"),
        ([*MAR, "--backend", "native"], "servers of the backend native read a .mar"),
        ([*MAR, "--directory", "model"], "--directory is of bundles: say which kind of model server this one is for"),
        ([*MAR, "--server-model", "x"], "--server-model is of bundles"),
        (MAR, "give --handler to pack a .mar, or --backend and --directory to pack a bundle"),
        (["verify", "m.bundle", "--max-batch", "4"], "--max-batch: no server is asked in batches"),
        (["verify", "m.bundle", "--engine", "native"], "--engine native: its pods serve .mar archives"),
        (["verify", "gone.bundle"], "gone.bundle does not exist"),
        (["inspect", "gone.bundle"], "gone.bundle does not exist"),
        (["diff", "m.bundle", "gone.bundle"], "gone.bundle does not exist"),
        (["publish", "m.bundle", "--backend", "http", "--registry", "file:///none"], "and http is asked for"),
    ],
)
def test_what_means_nothing_is_refused(packed: Run, command: list[str], message: str) -> None:
    """By name, before anything is done."""
    before = sorted(Path().rglob("*"))
    found = packed(*command)
    assert isinstance(found.exception, MarwayError), found.output
    assert message in found.exception.message
    assert sorted(Path().rglob("*")) == before
