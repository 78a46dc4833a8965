"""What the command says of things that may surprise: always one line on stderr with the same beginning."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from marway_ops.cli.output import warn
from marway_ops.up.view import JsonView, TerminalView
from support.cli import marway

BEGINNING = "marway: warning: "
HANDLER = "def handle(data, context):\n    return data\n"


def warnings(*arguments: str) -> list[str]:
    """Run a verb that is done and return its lines on stderr, each of which has to be a warning."""
    done = marway(*arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if not line.startswith(BEGINNING)] == []
    return [line.removeprefix(BEGINNING) for line in lines]


def test_the_verbs_warn_alike(tmp_path: Path) -> None:
    """Pack, inspect, verify, publish and models: of contents, of what was not proved, of what is damaged."""
    (tmp_path / "handler.py").write_text(HANDLER)
    (tmp_path / "weights.pt").touch()
    registry = ("--registry", f"file://{tmp_path}/registry")
    packed = tmp_path / "some.mar"
    pack = ("pack", "--model-name", "some", "--version", "1.0", "--handler", str(tmp_path / "handler.py"))
    weights = ("--serialized-file", str(tmp_path / "weights.pt"), "--export-path", str(tmp_path))
    (empty,) = warnings(*pack, *weights)
    assert "weights.pt is empty" in empty
    assert any("weights.pt is empty" in line for line in warnings("inspect", str(packed)))
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.txt", "x" * 1000)
    said = warnings("publish", str(packed), *registry, "--create-registry", "--label", "PROD")
    assert any("weights.pt is empty" in line for line in said)
    assert any("was re-packed" in line for line in said)
    assert any("no pod has proved" in line for line in said)
    assert not any(line.startswith("warning") for line in said)
    (tmp_path / "registry" / "models" / "some" / "state.json").write_text("{")
    (damage,) = warnings("models", *registry)
    assert damage.startswith("some: ")


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Line ends become spaces, and control characters are escapes."""
    warn("two\nlines \x1b[31m")
    assert capsys.readouterr().err == BEGINNING + "two lines \\x1b[31m\n"


def test_up_warns_of_parts_that_end(capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal it is a warning as any other, and a program gets an event of its own."""
    TerminalView().warned("gateway ended with status 1; starting it again at once")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", BEGINNING + "gateway ended with status 1; starting it again at once\n")
    JsonView().warned("gateway ended")
    assert json.loads(capsys.readouterr().out) == {"event": "warning", "message": "gateway ended"}
