"""The files of a handler that is being written, as its worker is given them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marway.errors import InvalidArchive, InvalidInput, InvalidReference
from marway_dev.files import HandlerFiles

HANDLER = "def handle(data, context):\n    return data\n"
TRACE = """\
Traceback (most recent call last):
  File "/lib/marway/worker/calls.py", line 5, in call
    outputs = entry_point(data)
              ^^^^^^^^^^^^^^^^^
  File "{directory}/handler.py", line 2, in handle
    return 1 / 0
           ~~^~~
ZeroDivisionError: division by zero"""


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "handler.py").write_text(HANDLER)
    return source / "handler.py"


def test_alone_its_directory_stands_for_the_archive(handler: Path, tmp_path: Path) -> None:
    """What lies beside the handler is linked with it, hidden and generated things are not."""
    (handler.parent / "words.txt").write_text("a b")
    (handler.parent / "model-config.yaml").write_text("responseTimeout: 7\nasyncCommunication: true\n")
    for name in (".git", "__pycache__", "data"):
        (handler.parent / name).mkdir()
    files = HandlerFiles(str(handler), "m")
    laid = files.lay(tmp_path / "laid")
    assert sorted(each.name for each in laid.directory.iterdir()) == [
        "MAR-INF", "data", "handler.py", "model-config.yaml", "words.txt",
    ]  # fmt: skip
    assert (laid.directory / "words.txt").read_text() == "a b"
    assert (laid.handler, laid.calling.way, laid.timeouts_s[1]) == ("handler.py", "async", 7)
    manifest = json.loads((laid.directory / "MAR-INF/MANIFEST.json").read_text())
    assert manifest["model"]["modelVersion"] == "dev"
    assert files.watched() == {handler.parent, handler.parent / "data"}


def test_with_files_named_it_has_those_alone(handler: Path, tmp_path: Path) -> None:
    """With pack's flags it has what an archive of theirs would have, and pack's refusals."""
    (handler.parent / "words.txt").write_text("a b")
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"w")
    files = HandlerFiles(str(handler), "m", serialized_file=weights)
    laid = files.lay(tmp_path / "laid")
    assert sorted(each.name for each in laid.directory.iterdir()) == ["MAR-INF", "handler.py", "weights.pt"]
    assert files.watched() == {handler.parent, tmp_path}
    with pytest.raises(InvalidArchive, match=r"no\.pt"):
        HandlerFiles(str(handler), "m", serialized_file=tmp_path / "no.pt").lay(tmp_path / "other")


def test_what_is_no_handler_is_refused_at_once(handler: Path) -> None:
    """A file that is not there, one that is no Python and a name that no model can have are told before all else."""
    HandlerFiles(f"{handler}:handle", "m").check()
    for wrong in (handler.with_name("other.py"), handler.parent):
        with pytest.raises(InvalidInput, match="marway new"):
            HandlerFiles(str(wrong), "m").check()
    with pytest.raises(InvalidReference):
        HandlerFiles(str(handler), "a/b").check()


def test_a_traceback_is_the_authors_own(handler: Path, tmp_path: Path) -> None:
    """Frames of libraries go, paths are those of the author's files; a traceback of libraries alone stays whole."""
    files = HandlerFiles(str(handler), "m")
    directory = tmp_path / "laid"
    shown = files.trimmed(TRACE.format(directory=directory), directory)
    assert shown.splitlines() == [
        "Traceback (most recent call last):",
        f'  File "{handler}", line 2, in handle',
        "    return 1 / 0",
        "           ~~^~~",
        "ZeroDivisionError: division by zero",
        "(1 frame of libraries left out)",
    ]
    whole = TRACE.format(directory="/lib/other")
    assert files.trimmed(whole, directory) == whole
