"""`marway new`: what it writes, and that all of it works."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from marway.errors import InvalidInput
from marway_archiver.proving.examples import encode_all, read_jsonl
from marway_dev.new import KINDS, KindName, commands, write_new
from support.cli import marway
from support.every import usual


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_written_with_examples_a_test_and_a_page(kind: KindName, tmp_path: Path) -> None:
    """Every kind has a handler, examples that can be read, a test, and a page with the commands that come next."""
    directory = tmp_path / "mine"
    written = write_new(kind, directory)
    assert {"README.md", "examples.jsonl", "handler.py", "test_handler.py"} <= set(written)
    assert all((directory / name).is_file() for name in written)
    given, _ = encode_all(read_jsonl(directory / "examples.jsonl"))
    assert any(example.status == 400 for example in given)
    page = (directory / "README.md").read_text()
    assert all(command in page for command in commands(kind, directory))
    assert ("train.py" in written) == KINDS[kind].trained


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    """An existing directory is written to only while it is empty."""
    (tmp_path / "empty").mkdir()
    write_new(KindName.text, tmp_path / "empty")
    with pytest.raises(InvalidInput, match="not empty"):
        write_new(KindName.text, tmp_path / "empty")


@pytest.mark.extended  # trains and imports torch; each handler's own rules are those of the kit, tests/archiver/testing
def test_the_tests_that_are_written_pass(tmp_path: Path) -> None:
    """Each kind's own test passes, once its model is trained."""
    for kind in KINDS:
        directory = tmp_path / f"{kind.value}-model"
        write_new(kind, directory)
        if KINDS[kind].trained:
            run([sys.executable, "train.py"], directory)
    tests = [str(tmp_path / f"{kind.value}-model" / "test_handler.py") for kind in KINDS]
    options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
    out = run([sys.executable, "-m", "pytest", *options, *tests], tmp_path)
    assert f"{len(KINDS)} passed" in out


@pytest.mark.extended  # one kind's each time: test_docs_dev.py
@pytest.mark.parametrize("kind", usual(more=KINDS))
def test_what_the_page_says_comes_next_works(kind: KindName, tmp_path: Path) -> None:
    """Served, packed and verified, the handler answers its examples as they say."""
    done = marway("new", kind.value, "mine", "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    directory = tmp_path / "mine"
    for command in said["commands"]:
        words = shlex.split(command)
        if words[0] == "python":
            run([sys.executable, *words[1:]], directory)
        elif words[1] == "dev":
            served = marway(*words[1:], "--once", "--json", cwd=directory)
            assert served.returncode == 0, served.stdout + served.stderr
            events = [json.loads(line) for line in served.stdout.splitlines()]
            assert [each["event"] for each in events].count("answer") == len(read_jsonl(directory / "examples.jsonl"))
        elif words[1] == "pack":
            packed = marway(*words[1:], cwd=directory)
            assert packed.returncode == 0, packed.stderr
            verified = marway("verify", "mine.mar", cwd=directory)
            assert verified.returncode == 0, verified.stdout + verified.stderr


def run(command: list[str], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
