"""docs/bundles.md is true: its commands run in their order, and its table of mistakes row by row."""

from __future__ import annotations

import json
import re
import shlex
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from marway.registry import open_registry
from marway_archiver import check_bundle
from marway_ops.cli import main as shell

DOC = Path(__file__).resolve().parents[3] / "docs" / "bundles.md"
TEXT = DOC.read_text(encoding="utf-8")
PACK = "pack --model-name m --version 1 --backend open-inference --directory"
TRITON = 'backend: "onnxruntime"\ninput { name: "x" data_type: TYPE_FP32 dims: 4 }\n'
MLSERVER = {"name": "x", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "./model.joblib"}}
FILES = {
    "iris/model-settings.json": json.dumps(MLSERVER),
    "iris/model.joblib": "weights",
    "resnet/config.pbtxt": TRITON,
    "resnet/1/model.onnx": "weights",
    "flowers/1/saved_model.pb": "weights",
    "flowers/1/variables/variables.index": "x",
    "words/words.txt": "a\n",
    "loose/model.onnx": "weights",
    "no-version/config.pbtxt": TRITON,
    "repository/resnet/config.pbtxt": TRITON,
    "repository/resnet/1/model.onnx": "weights",
    "typo/config.pbtxt": 'backend: "onnxruntime"\ninput { name "x" }\n',
    "typo/1/model.onnx": "weights",
    "no-runtime/model-settings.json": '{"name": "x"}',
    "two/1/saved_model.pb": "x",
    "two/2/saved_model.pb": "x",
    "no-output.jsonl": '{"input": [1]}\n',
}

Run = Callable[[str], "Outcome"]


@dataclass(frozen=True)
class Outcome:
    exit: int
    out: str
    err: str


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def table() -> list[tuple[str, str, str, int]]:
    lines = TEXT[TEXT.index("| mistake | command |") :].splitlines()[2:]
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in lines]
    return [(what, command.replace("PACK", PACK), prints, int(code)) for what, command, prints, code in rows]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the page's commands run in."""
    root = tmp_path_factory.mktemp("doc")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "empty").mkdir()
    (root / "iris.jsonl").write_text(blocks("json")[1])
    return root


@pytest.fixture
def run(directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in the directory, as the `marway` command does."""
    archiver = EntryPoint("archiver", "marway_archiver.cli:register", "marway.verbs")
    monkeypatch.setattr(shell, "entry_points", lambda group: [archiver])
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("MARWAY_REGISTRY", raising=False)
    monkeypatch.chdir(directory)

    def command(line: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["marway", *shlex.split(line.replace("$PWD", str(directory)))])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            shell.main()
        printed = capsys.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, printed.out, printed.err)

    return command


@pytest.fixture
def done(directory: Path, run: Run) -> dict[str, Outcome]:
    """What the page's commands gave, in a directory that now has all that it speaks of."""
    lines = [line.removeprefix("$ marway ") for block in blocks("console") for line in block.splitlines()]
    if not (directory / "cut.bundle").exists():
        outcomes = {line: run(line) for line in lines}
        assert {line: each.err for line, each in outcomes.items() if each.exit} == {}
        content = (directory / "iris.bundle").read_bytes()
        (directory / "cut.bundle").write_bytes(content[: len(content) // 2])
        zipped = zipfile.ZipFile(directory / "zipped.bundle", "w")
        with zipfile.ZipFile(directory / "iris.bundle") as source, zipped as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
        assert run("publish resnet.bundle --registry file://$PWD/models").exit == 0
        (directory / "resnet/1/model.onnx").write_text("others")
        assert run(f"{PACK.replace(' m ', ' resnet ').replace(' 1 ', ' 1.0 ')} resnet --force").exit == 0
        return outcomes
    return {}


@pytest.mark.parametrize("row", table(), ids=lambda row: row[0])
def test_each_mistake_prints_what_the_table_says(
    row: tuple[str, str, str, int], run: Run, done: dict[str, Outcome], directory: Path
) -> None:
    """A row's command prints the row's words, on one line that begins as said, and ends with the row's exit code."""
    before = sorted(directory.rglob("*"))
    outcome = run(row[1])
    assert row[2] in " ".join((outcome.err + outcome.out).split())
    assert outcome.exit == row[3]
    assert sorted(directory.rglob("*")) == before
    if not outcome.out:
        assert outcome.err.startswith("marway: ")
        assert len(outcome.err.splitlines()) == 1


def test_the_page_says_what_the_commands_do(run: Run, done: dict[str, Outcome], directory: Path) -> None:
    """Bundles are of the kinds that it says, and what it shows of the manifest is one."""
    manifest = check_bundle(directory / "iris.bundle").manifest
    assert manifest is not None
    assert manifest.model_dump(exclude_none=True) == json.loads(blocks("json")[0])
    chat = check_bundle(directory / "chat.bundle").manifest
    assert chat is not None
    assert chat.server_model == "tiny-llama"
    assert "2 golden answers are stated" in run("verify iris.bundle").out
    record = open_registry((directory / "models").as_uri()).record("iris", "1.0")
    assert (record.backend, record.handler, record.framework) == ("open-inference", "", "scikit-learn")


def test_the_script_of_the_page_publishes(directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The call at the end of a training script, as it stands."""
    monkeypatch.chdir(directory)
    source = blocks("python")[0].replace("file:///tmp/models", tmp_path.as_uri())
    exec(compile(source, str(DOC), "exec"), {})
    assert open_registry(tmp_path.as_uri()).record("iris", "2.0").archive.kind == "bundle"


def test_every_backend_of_bundles_is_on_the_page() -> None:
    """And those of `.mar` archives are said to be none."""
    from marway.bundles import BUNDLE_BACKENDS, MAR_BACKENDS

    chapter = TEXT[TEXT.index("## For each server") : TEXT.index("## What a bundle is")]
    assert all(f"`{name}`" in chapter for name in (*BUNDLE_BACKENDS, *MAR_BACKENDS))
