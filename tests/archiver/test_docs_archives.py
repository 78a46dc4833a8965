"""docs/archives.md is true: its table of mistakes is run row by row, its commands and lists are held to the code."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from marway_archiver.contents.model_config import _RULES
from marway_ops.cli import main as shell

DOC = Path(__file__).resolve().parents[2] / "docs" / "archives.md"
TEXT = DOC.read_text(encoding="utf-8")
PACK = "pack --model-name m --version 1 --handler"

CLASS = "class {}:\n    def initialize(self, context): ...\n\n    def handle(self, data, context): ...\n\n"
FILES = {
    "two.py": CLASS.format("A") + CLASS.format("B"),
    "broken.py": "def handle(data, context\n",
    "gone.py": "import nothing_there\n\n\ndef handle(data, context): ...\n",
    "fails.py": "def handle(data, context):\n    if data:\n        raise ValueError('no')\n",
    "reversed.py": "def handle(data, context):\n    return [row['data'] for row in data or []][::-1]\n",
    "random_answers.py": (
        "import random\n\n\ndef handle(data, context):\n    return [random.random() for _ in data or []]\n"
    ),
    "sleeps.py": "import signal\n\n\ndef handle(data, context):\n    signal.pause()\n",
    "weights.pt": "",
    "config.yaml": "minWorker: 1\n",
    "wrong.jsonl": '{"input": "wake", "output": {"shout": "whisper"}}\n',
    "typo.jsonl": '{"inptu": 1}\n',
    "not-a.mar": "no archive\n",
    "libh.so": "\x7fELF",
}

Run = Callable[[str], "Outcome"]


@dataclass(frozen=True)
class Row:
    mistake: str
    command: str
    prints: str
    exit: int


@dataclass(frozen=True)
class Outcome:
    exit: int
    out: str
    err: str


def table() -> list[Row]:
    lines = TEXT[TEXT.index("| mistake | command |") :].splitlines()[2:]
    found = []
    for line in lines:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        found.append(Row(cells[0], cells[1].strip("`").replace("PACK", PACK), cells[2].strip("`"), int(cells[3])))
    return found


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def handler_source() -> str:
    return blocks("python")[0]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, handler_source: str) -> Path:
    """The directory of the chapter on packing, with the files that the chapter on mistakes names."""
    root = tmp_path_factory.mktemp("doc")
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "handler.py").write_text(handler_source)
    (root / "empty").mkdir()
    return root


@pytest.fixture
def run(directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
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

    yield command
    for path in directory.glob("m.*"):
        path.unlink()


@pytest.fixture
def packed(directory: Path, run: Run) -> Path:
    """The directory after the first command of the doc."""
    if not (directory / "shout.mar").exists():
        outcome = run(blocks("console")[0].removeprefix("$ marway ").strip())
        assert outcome.exit == 0, outcome.err
        golden = (directory / "shout.golden.json").read_text()
        (directory / "changed.golden.json").write_text(golden.replace("WAKE ME UP", "WHISPER"))
        digest = json.loads(golden)["archive_sha256"]
        (directory / "other.golden.json").write_text(golden.replace(digest, "0" * 64))
        content = (directory / "shout.mar").read_bytes()
        (directory / "cut.mar").write_bytes(content[: len(content) // 2])
    return directory


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row.command.split()[0]}: {row.mistake}")
def test_each_mistake_prints_what_the_table_says(row: Row, run: Run, packed: Path) -> None:
    """A row's command prints the row's words, on one line that begins as said, and ends with the row's exit code."""
    before = {path.name for path in packed.iterdir()}
    outcome = run(row.command)
    printed = " ".join((outcome.err + outcome.out).split())
    assert row.prints.strip() in printed
    assert outcome.exit == row.exit
    if row.exit == 1:
        assert before == {path.name for path in packed.iterdir()}
        assert "Traceback" not in printed
    if row.exit == 1 and not outcome.out:
        assert outcome.err.startswith("marway: ")
        assert len(outcome.err.splitlines()) == 1


@pytest.mark.extended  # tests/docs/test_commands.py runs the commands of all pages
def test_every_command_of_the_doc_succeeds(run: Run, packed: Path) -> None:
    """The commands of the doc, in their order, each end with exit code 0; tests/docs runs the one that starts pods."""
    (packed / "shout.mar").unlink()
    (packed / "shout.golden.json").unlink()
    lines = [line.removeprefix("$ marway ") for block in blocks("console") for line in block.splitlines()]
    lines = [line for line in lines if "--engine" not in line]
    outcomes = [run(line) for line in lines]
    assert [outcome.exit for outcome in outcomes] == [0] * len(lines)
    assert "2 golden examples answered alone and in batches of up to 32" in outcomes[0].out
    assert "as golden" in outcomes[2].out
    document = json.loads(outcomes[-1].out)
    assert document["ok"]
    assert document["batch"] == {"ok": True, "sizes": [2, 3, 4, 8], "reason": None, "problem": None}
    assert [each["content_type"] for each in document["examples"]] == ["text/plain"] * 2


def test_the_docs_golden_document_has_the_shape_of_a_real_one(packed: Path) -> None:
    """The document shown has the keys, and the first answer, of the one that the command writes."""
    shown = json.loads(blocks("json")[1])
    real = json.loads((packed / "shout.golden.json").read_text())
    assert shown.keys() == real.keys()
    assert shown["examples"][0].keys() == real["examples"][0].keys()
    assert shown["examples"][0]["answer"] == real["examples"][0]["answer"]
    assert {**shown, "archive_sha256": "", "examples": []} == {**real, "archive_sha256": "", "examples": []}


def test_the_docs_test_of_the_kit_passes(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the test kit runs as it stands."""
    monkeypatch.chdir(packed)
    names: dict[str, object] = {}
    exec(compile(blocks("python")[2], str(DOC), "exec"), names)
    test = names["test_shout"]
    assert callable(test)
    test()


def test_every_configuration_key_is_in_the_doc() -> None:
    """The table of keys lists those that are allowed, and no other."""
    chapter = TEXT[TEXT.index("### Model configuration") : TEXT.index("## Golden examples\n")]
    listed = {key for line in chapter.splitlines() if line.startswith("| `") for key in re.findall(r"`([A-Za-z_0-9]+)`",
              line.split("|")[1])}  # fmt: skip
    assert listed == set(_RULES)


def test_every_flag_of_pack_is_in_the_doc(run: Run) -> None:
    """The tables of flags list all that `marway pack --help` shows."""
    chapter = TEXT[TEXT.index("### Flags") : TEXT.index("### What makes")]
    flags = set(re.findall(r"--[a-z][a-z-]+", run("pack --help").out)) - {"--help"}
    assert flags <= set(re.findall(r"--[a-z][a-z-]+", chapter))
