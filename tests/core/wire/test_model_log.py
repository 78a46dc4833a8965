"""Reading what handlers print."""

from __future__ import annotations

import json
from pathlib import Path

from marway.wire import model_log

LOG = """\
2026-11-21T10:18:50.401Z INFO W-9000-mv_A_1.0-stdout | [PID]8471
2026-11-21T10:18:50.404Z INFO W-9000-mv_A_1.0-stdout | Torch worker started.
2026-11-21T10:18:50.539Z INFO W-9000-mv_A_1.0-stdout | loading with care | and pipes
2026-11-21T10:18:51.000+02:00 WARN W-9001-mv_B_2-rc.1-stderr | Traceback (most recent call last):
2026-11-21T10:18:51.000+02:00 WARN W-9001-mv_B_2-rc.1-stderr |   File "x.py", line 1, in <module>
2026-11-21T10:18:51.000+02:00 WARN W-9001-mv_B_2-rc.1-stderr | KeyError: 'weights'
no line of ours
"""


def test_lines_are_told_by_their_worker(tmp_path: Path) -> None:
    """Each version's lines are found, without what the worker code says about its own start."""
    (tmp_path / "models.log").write_text(LOG)
    lines = model_log.read(tmp_path, ["mv_A_1.0"])
    assert [line.text for line in lines] == ["loading with care | and pipes"]
    assert lines[0].port == 9000
    assert {line.worker for line in model_log.read(tmp_path)} == {"mv_A_1.0", "mv_B_2-rc.1"}


def test_the_older_file_comes_first(tmp_path: Path) -> None:
    """A log that was rolled over is read whole, oldest line first."""
    for name, text in (("models.log", "new"), ("models.1.log", "old")):
        (tmp_path / name).write_text(f"2026-11-21T10:00:00.000Z INFO W-1-a_1-stdout | {text}\n")
    assert [line.text for line in model_log.read(tmp_path)] == ["old", "new"]
    assert model_log.read(tmp_path / "missing") == []


def test_only_the_end_is_read(tmp_path: Path) -> None:
    """With a bound only the last lines are read, and half a line is none."""
    lines = [f"2026-11-21T10:00:00.000Z INFO W-1-a_1-stdout | {number}\n" for number in range(100)]
    (tmp_path / "models.log").write_text("".join(lines))
    found = model_log.read(tmp_path, last_bytes=len("".join(lines[-3:])) - 1)
    assert [line.text for line in found] == ["98", "99"]


def test_a_record_says_more_than_the_line_that_holds_it() -> None:
    """Time, level, model, requests and traceback are the worker's own; what only looks like a record is text."""
    record = {
        "time": "2026-11-21T10:18:50.500+00:00",
        "level": "error",
        "message": "it failed",
        "model": "some",
        "version": "1.0",
        "request_ids": ["r-1", "r-2", 3],
        "traceback": "Traceback\nValueError: x",
        "reason": "ValueError: x (handler.py line 1)",
    }
    start = "2026-11-21T10:18:51.000Z INFO W-9000-mv_A_1.0-stdout | "
    (line,) = model_log.parse([start + json.dumps(record)])
    assert (line.level, line.text, line.model, line.version) == ("error", "it failed", "some", "1.0")
    assert (line.request_ids, line.at.isoformat()) == (("r-1", "r-2"), "2026-11-21T10:18:50.500000+00:00")
    assert line.record() == {**record, "worker": 9000, "request_ids": ["r-1", "r-2"]}
    assert model_log.last_error([line]) == record["reason"]
    for text in ('{"time": 1, "level": "x", "message": "y"}', '{"time": "half'):
        (line,) = model_log.parse([start + text])
        assert (line.text, line.level, line.request_ids) == (text, "info", ())


def test_the_reason_of_a_failure_is_its_tracebacks_last_line() -> None:
    """The newest traceback's last line says why; without one there is no reason."""
    assert model_log.last_error(model_log.parse(LOG.splitlines())) == "KeyError: 'weights'"
    assert model_log.last_error(model_log.parse(LOG.splitlines()[:3])) is None


def test_a_worker_that_ends_in_argparse_says_why() -> None:
    """argparse prints a usage and one line, with no traceback; what Marway raises after it says less."""
    said = """\
usage: serve.py [-h] [--depth DEPTH]
serve.py: error: unrecognized arguments: --sock-type unix
Traceback (most recent call last):
  File "h.py", line 1, in <module>
SystemExit: 2

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "bootstrap.py", line 1, in load
RuntimeError: the handler ended its process while it was loaded, with status 2
"""
    lines = [f"2026-11-21T10:18:51.000Z WARN W-9001-mv_B_2-stderr | {line}" for line in said.splitlines()]
    error = model_log.last_error(model_log.parse(lines))
    assert error == "the handler parses the worker's command line: unrecognized arguments: --sock-type unix"
    ended = model_log.last_error(model_log.parse(lines[2:]))
    assert ended == "SystemExit: 2"
