"""The runtime's own stdout has all that its model server writes: one JSON object a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marway.telemetry import JsonFormatter, plain_text
from marway_runtime.log_output import LogOutput
from support.up import wait_until

WORKER = "2026-11-21T10:18:51.000Z INFO W-9000-mv_A_1.0-stdout | "
RECORD = (
    '{"time": "2026-11-21T10:18:50.999+00:00", "level": "error", "message": "x", "model": "some", "version": "1.0"}'
)


@pytest.fixture
def records() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def logs(tmp_path: Path, records: list[dict[str, Any]]) -> Iterator[Path]:
    """A directory of logs that is followed; what was there before is not said again."""
    (tmp_path / "models.log").write_text(f"{WORKER}before\n")
    with LogOutput(tmp_path, write=records.append):
        yield tmp_path


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def until(records: list[dict[str, Any]], count: int) -> None:
    wait_until(lambda: len(records) >= count, timeout_s=10, what=f"{count} records")


def test_a_workers_records_and_its_plain_lines(logs: Path, records: list[dict[str, Any]]) -> None:
    """A record is not wrapped in another; a plain line has the model's name once it is known."""
    append(logs / "models.log", f"{WORKER}plain\n{WORKER}[PID]12\n{WORKER}{RECORD}\n{WORKER}plain again\n")
    until(records, 3)
    first, second, third = records
    assert (first["message"], first["server_name"], first["worker"]) == ("plain", "mv_A_1.0", 9000)
    assert second == {**json.loads(RECORD), "worker": 9000}
    assert (third["message"], third["model"], third["version"]) == ("plain again", "some", "1.0")


def test_a_log_that_is_rolled_over_or_emptied(logs: Path, records: list[dict[str, Any]]) -> None:
    """Nothing is lost when a file gets another name, or is begun again, and a half line waits for its rest."""
    models, output = logs / "models.log", logs / "stdout.log"
    append(models, f"{WORKER}one\n{WORKER}tw")
    until(records, 1)
    append(models, "o\n")
    models.rename(logs / "models.1.log")
    models.write_text(f"{WORKER}three\n")
    output.write_text("a long line of Java's\n")
    until(records, 4)
    output.write_text("short\n")
    until(records, 5)
    assert [each["message"] for each in records if "worker" in each] == ["one", "two", "three"]
    assert [each["message"] for each in records if "worker" not in each] == ["a long line of Java's", "short"]


def test_torchserves_stack_traces(logs: Path, records: list[dict[str, Any]]) -> None:
    """A stack trace of TorchServe's own belongs to its line."""
    text = "2026-11-21T10:18:51.000Z WARN main Server | it failed\njava.lang.Error: x\n\tat a.b(C.java:1)\n"
    append(logs / "torchserve.log", text + "2026-11-21T10:18:52.000Z ERROR main Other | again\n")
    until(records, 2)
    assert records[0] == {
        "time": "2026-11-21T10:18:51.000+00:00",
        "level": "warning",
        "logger": "torchserve.Server",
        "message": "it failed",
        "traceback": "java.lang.Error: x\n\tat a.b(C.java:1)",
    }
    assert (records[1]["level"], records[1]["message"]) == ("error", "again")


def test_a_record_is_written_as_it_is() -> None:
    """The formatter writes a record that was made elsewhere unchanged; to a person its message is shown."""
    made = logging.LogRecord("x", logging.INFO, "", 0, "", (), None)
    made.line = json.loads(RECORD)
    assert json.loads(JsonFormatter().format(made)) == json.loads(RECORD)
    assert plain_text(RECORD) == "error: x"
    assert plain_text("marway: no") == "marway: no"
