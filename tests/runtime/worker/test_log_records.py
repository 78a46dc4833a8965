"""What a worker prints and logs becomes records, each one line, whatever it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PREPARE = """
import logging, os, subprocess, sys, threading
from marway_runtime.worker import log_records
log_records.install()
logging.info("Torch worker started.")
log_records.about("some", "1.0")
"""


def written(code: str) -> tuple[list[str], list[str]]:
    """Return the lines on stdout and stderr of a process that does this as a worker."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + code], capture_output=True, text=True, timeout=60, check=True
    )
    first, *lines = done.stdout.split("\n")[:-1]
    assert first == "Torch worker started.", "the front end waits for this very line"
    return lines, done.stderr.split("\n")[:-1]


def records(code: str) -> list[dict[str, Any]]:
    """Return the records on stdout, which has nothing else."""
    return [json.loads(line) for line in written(code)[0]]


def test_prints_and_logs_are_records() -> None:
    """Each line says what was written, its level, and whose it is; stderr's are warnings."""
    out, err = written(
        "print('one', 2)\nsys.stderr.write('care\\n')\nlogging.getLogger('mine').warning('a %s', 'word')\n"
        "sys.stdout.buffer.write(b'bytes\\n')\nprint('no end', end='')\n"
    )
    said = [(each["level"], each.get("logger"), each["message"]) for each in map(json.loads, out)]
    assert said == [
        ("info", None, "one 2"),
        ("warning", "mine", "a word"),
        ("info", None, "bytes"),
        ("info", None, "no end"),
    ]
    (warned,) = map(json.loads, err)
    assert {name: warned[name] for name in ("level", "message", "model", "version")} == {
        "level": "warning",
        "message": "care",
        "model": "some",
        "version": "1.0",
    }
    assert all(each["time"].endswith("+00:00") for each in map(json.loads, out))


def test_requests_are_named_while_they_are_answered() -> None:
    """One request is `request_id`, several are `request_ids`, and between calls there is neither."""
    found = records(
        "log_records.answering({0: 'a'})\nprint('one')\nlog_records.answering({0: 'a', 1: 'b'})\nprint('two')\n"
        "log_records.answering(lambda: {0: 'c'})\nprint('asked')\nlog_records.answering(None)\nprint('none')\n"
    )
    assert [(each.get("request_id"), each.get("request_ids")) for each in found] == [
        ("a", None),
        (None, ["a", "b"]),
        ("c", None),
        (None, None),
    ]


def test_whatever_is_written_stays_one_line() -> None:
    """Characters that end a line for somebody, control characters and half characters are escapes."""
    text = "\x1b[31m \u2028 \u2029 \x85 \r \ud800 ü"
    found = written(f"print({text!r})\nsys.stdout.buffer.write(b'\\xff\\n')\n")[0]
    assert len(found) == 2
    assert all(line.isascii() and line.isprintable() for line in found)
    assert json.loads(found[0])["message"].startswith("\x1b[31m \u2028 \u2029 \x85")


def test_what_looks_like_a_record_is_text() -> None:
    """A handler cannot write a record of another request by printing one."""
    forged = '{"time": "2026-01-01T00:00:00+00:00", "level": "info", "message": "x", "request_id": "other"}'
    (found,) = records(f"log_records.answering({{0: 'mine'}})\nprint({forged!r})\n")
    assert (found["message"], found["request_id"]) == (forged, "mine")


def test_a_traceback_is_part_of_its_record() -> None:
    """A logged exception is one line with its traceback; one that was marked as logged has none again."""
    first, again = records(
        "try:\n    raise ValueError('two\\nlines')\n"
        "except ValueError as exc:\n    logging.exception('it failed')\n"
        "    setattr(exc, log_records.LOGGED, True)\n    logging.exception('it failed')\n"
    )
    assert first["traceback"].endswith("ValueError: two\nlines")
    assert "traceback" not in again


def test_lines_are_bounded() -> None:
    """A line without an end, a long message and a long traceback are cut."""
    found = records(
        "sys.stdout.write('x' * 100_000)\nlogging.warning('y' * 100_000)\n"
        "try:\n    raise ValueError('z' * 100_000)\nexcept ValueError:\n    logging.exception('it failed')\n"
    )
    assert sum(each["message"].count("x") for each in found) == 100_000
    assert all(len(each["message"]) <= 32_768 for each in found)
    assert max(len(each.get("traceback", "")) for each in found) == 32_768


def test_threads_do_not_mix_their_lines() -> None:
    """Lines of several threads are all there, whole, also longer than a pipe takes at once."""
    found = records(
        "def say(number):\n    for _ in range(20):\n        print(str(number) * 20_000)\n"
        "threads = [threading.Thread(target=say, args=(n,)) for n in range(4)]\n"
        "[each.start() for each in threads]\n[each.join() for each in threads]\n"
    )
    assert sorted(each["message"] for each in found) == sorted(str(n) * 20_000 for n in range(4) for _ in range(20))


def test_a_process_of_the_handlers_writes_as_ever() -> None:
    """What is started with the worker's streams writes plain lines, and a fork writes records."""
    lines, _ = written(
        "sys.stdout.flush()\nsubprocess.run(['echo', 'plain'], stdout=sys.stdout)\n"
        "if os.fork() == 0:\n    print('forked')\n    sys.stdout.flush()\n    os._exit(0)\nos.wait()\n"
    )
    assert lines[0] == "plain"
    assert json.loads(lines[1])["message"] == "forked"
