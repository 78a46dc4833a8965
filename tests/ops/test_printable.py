"""What the command shows of text that others wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marway.refs import server_name
from marway.text import printable
from marway.wire.runtime import LOGS
from marway_ops.cli.output import print_json, print_table
from support.cli import marway
from support.registry import Publish

HOSTILE = "\x1b]0;owned\x07 \x9b31m red \x1b[2J\r \u202egnp.exe"
SHOWN = r"\x1b]0;owned\x07 \x9b31m red \x1b[2J\x0d \u202egnp.exe"


def test_control_characters_are_shown_and_not_obeyed() -> None:
    """Each is written as its escape; tabs, line ends and every other script stay."""
    assert printable(HOSTILE) == SHOWN
    assert printable("a\tb\nfür 東京 ✓") == "a\tb\nfür 東京 ✓"


def test_tables_and_documents(capsys: pytest.CaptureFixture[str]) -> None:
    """A table shows them, and a JSON document means the same as before without one of them in it."""
    print_table(("note",), [(HOSTILE,)])
    assert SHOWN in capsys.readouterr().out
    print_json({"note": HOSTILE})
    out = capsys.readouterr().out
    assert json.loads(out) == {"note": HOSTILE}
    assert not set(out) & set(HOSTILE) - set(SHOWN)


def test_fault_terminal_escapes_in_a_log(publish: Publish, tmp_path: Path) -> None:
    """`marway logs` neutralises what a handler prints for whoever reads it; `--json` keeps every character."""
    record = publish()
    logs = tmp_path / "pods" / "pod-0" / LOGS
    logs.mkdir(parents=True)
    text = HOSTILE.replace("\r", "")
    line = f"2026-11-21T10:18:50.404Z INFO W-9000-{server_name(record.id)}_{record.version}-stdout | {text}\n"
    (logs / "models.log").write_text(line)
    url = f"file://{tmp_path}/registry"
    shown = marway("logs", record.name, "--home", str(tmp_path), "--registry", url)
    assert (shown.returncode, SHOWN.replace(r"\x0d", "") in shown.stdout) == (0, True), shown
    document = marway("logs", record.name, "--home", str(tmp_path), "--registry", url, "--json")
    assert json.loads(document.stdout)["message"] == text
