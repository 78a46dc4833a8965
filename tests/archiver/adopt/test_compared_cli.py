"""`marway adopt --from …`: what it asks an old server and Marway, prints, writes and ends with.

Both are a few lines of HTTP; test_real_servers.py has the same with real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from marway_ops.cli import main as shell
from support.old_servers.fake import by_body, fakes
from support.old_servers.server import write_requests
from support.torchserve import archive

Run = Callable[..., tuple[int, str, str]]
ECHO = "def handle(data, context):\n    return [{'got': row['data']} for row in data or []]\n"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MARWAY_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)
    archive(tmp_path / "store", "m", ECHO, file="m.mar")

    def once(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["marway", "adopt", "store", "--dry-run", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            shell.main()
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return once


def test_both_servers_are_asked_and_a_report_is_written(run: Run, tmp_path: Path) -> None:
    """Equal answers end with 0; the report has the requests, the times and the lines that a client changes."""
    lines = [{"path": "/predictions/m", "body": number} for number in (1, 2, 3)] + [{"method": "GET", "path": "/ping"}]
    file = write_requests(tmp_path / "requests.jsonl", lines)
    answers = {number: {"got": number} for number in (1, 2, 3)}
    with fakes(by_body(answers), by_body(answers)) as (old, new):
        flags = ("--requests", file, "--from", f"{old.url}/", "--from-header", "Authorization: Bearer KEY", "--once")
        code, out, err = run(*flags, "--compare-with", new.url, "--report", "report.json")
        assert (code, err) == (0, ""), out
        assert "m/1.0" in out
        report = json.loads((tmp_path / "report.json").read_text())
        (model,) = report["comparison"]["models"]
        assert (model["requests"], model["equal"], model["timing"]["pairs"]) == (3, 3, 3)
        assert (report["requests"]["requests"], report["requests"]["golden"]["m/1.0"]["examples"]) == (3, 3)
        assert report["client"][0]["before"] == f"{old.url}/predictions/m"
        assert report["client"][0]["after"] == f"{new.url}/predictions/m"
        assert {each.headers.get("authorization") for each in old.asked} == {"Bearer KEY"}
        assert {each.headers.get("authorization") for each in new.asked} == {None}
        for form in ("md", "html"):
            assert run(*flags, "--compare-with", new.url, "--report", f"report.{form}")[0] == 0
            assert "3 different requests sent to both: 3 answered the same" in (tmp_path / f"report.{form}").read_text()


def test_other_answers_end_with_1_and_are_in_the_report(run: Run, tmp_path: Path) -> None:
    """What differs is said in one line, and all of it in the report."""
    file = write_requests(tmp_path / "requests.jsonl", [{"body": 1}, {"body": 2, "output": {"got": 2}}])
    with fakes(by_body({}), by_body({1: {"got": 1}, 2: {"got": 3}})) as (_, new):
        code, _, err = run("--requests", file, "--compare-with", new.url, "--report", "report.md")
    assert code == 1
    assert "2 of 2 requests are not answered the same" in err
    text = (tmp_path / "report.md").read_text()
    assert "at got: 2 was expected, 3 came" in text
    assert "the file has no answer of it to this request" in text


def test_a_model_that_nobody_can_ask_is_said(run: Run) -> None:
    """Without requests there is nothing to send to TorchServe, whose protocol does not say what a model takes."""
    with fakes(by_body({}), by_body({})) as (old, _):
        code, _, err = run("--from", old.url, "--no-compare")
    assert code == 0
    assert "nothing was asked of m/1.0: its protocol does not say what a model takes: give some with --requests" in err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--compare-with", "http://127.0.0.1:1"), "--compare-with needs --from URL"),
        (("--from", "http://127.0.0.1:9", "--from-header", "x", "--no-compare"), "give a name and a value"),
        (("--from", "http://127.0.0.1:9", "--no-compare"), "no server listens at http://127.0.0.1:9"),
        (("--report", "report.pdf"), "its name must end in .html, .json, .md"),
        (("--from", "http://127.0.0.1:9", "--engine", "java"), "engine says 'java'"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags: tuple[str, ...], said: str, run: Run) -> None:
    """One line says what is wrong, before anything is done."""
    code, _, err = run(*flags)
    assert (code, err.count("\n")) == (1, 1)
    assert said in err
