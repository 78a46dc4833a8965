"""`marway logs`: lines of all components, merged, for one request, one model, a level, a time."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from marway_ops.cli.logs import logs
from marway_ops.logs.sources import HomeLogs
from support.kubectl import StandInKubectl
from support.registry import Publish

app = typer.Typer()
app.command()(logs)

NOW = datetime.now(UTC).replace(microsecond=0)
TRACE = 'Traceback (most recent call last):\n  File "handler.py", line 3, in handle\nValueError: two'


def at(seconds: float) -> str:
    return (NOW - timedelta(minutes=30) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def line(seconds: float, message: str, level: str = "info", **fields: object) -> str:
    return json.dumps({"time": at(seconds), "level": level, "message": message, **fields})


def access(seconds: float, request: str, outcome: str = "ok", **fields: object) -> str:
    said = {"method": "POST", "path": "/predict/some", "outcome": outcome, "status": 200, "duration_ms": 1.5}
    fields = {**said, "model": "some", "version": "1.0", "request_id": request, "retries": 0, "pod": "pod-0", **fields}
    return line(seconds, "request", logger="marway_gateway.access", **fields)


SOME = {"model": "some", "version": "1.0"}
GATEWAY = [
    line(0, "ready"),
    access(4, "r-1", "model_error", status=500, error="model_error"),
    access(5, "r-2"),
    access(9, "r-3", "unavailable", version="2.0", error="load_failed"),
]
SIDECAR = [
    line(3.5, "prediction failed: ValueError: two", "error", **SOME, request_id="r-1", error="model_error"),
    line(8, "some 2.0 cannot be loaded", "error", model="some", version="2.0", request_id="r-3", error="load_failed"),
]
WORKER = [
    (3, "INFO", {"message": "asked for two", **SOME, "request_id": "r-1", "level": "info"}),
    (
        3.2,
        "ERROR",
        {"message": "raised", **SOME, "request_id": "r-1", "level": "error", "traceback": TRACE},
    ),
    (7, "ERROR", {"message": "cannot", "model": "some", "version": "2.0", "level": "error", "reason": "no weights"}),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as a `marway up` leaves it."""
    pod = tmp_path / "pods" / "pod-0" / "logs"
    for directory in (tmp_path / "logs", pod):
        directory.mkdir(parents=True)
    workers = [json.dumps({"time": at(when), **record}) for when, _, record in WORKER]
    texts = [
        f"{at(when)} {level} W-9000-id_1.0-stdout | {text}"
        for (when, level, _), text in zip(WORKER, workers, strict=True)
    ]
    (pod / "models.log").write_text("\n".join(texts) + "\n")
    again = [json.dumps({**json.loads(text), "worker": 9000}) for text in workers]
    for name, lines in (
        ("gateway", GATEWAY),
        ("sidecar-pod-0", SIDECAR),
        ("runtime-pod-0", [line(1, "TorchServe answers"), "from something else", *again]),
    ):
        (tmp_path / "logs" / f"{name}.log").write_text("\n".join(lines) + "\n")
    return tmp_path


def shown(home: Path, *arguments: str) -> list[str]:
    done = CliRunner().invoke(app, ["--home", str(home), *arguments])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_one_request_through_every_log(home: Path) -> None:
    """Its lines of all components come in the order of time, each once, with the handler's traceback."""
    found = [json.loads(each) for each in shown(home, "--request", "r-1", "--json")]
    assert [(each["component"], each["message"]) for each in found] == [
        ("worker", "asked for two"),
        ("worker", "raised"),
        ("sidecar", "prediction failed: ValueError: two"),
        ("gateway", "request"),
    ]
    assert found[1]["traceback"] == TRACE
    assert {each["pod"] for each in found} == {"pod-0"}
    text = "\n".join(shown(home, "--request", "r-1"))
    assert "gateway some 1.0 r-1 | POST /predict/some: 500 model_error (model_error) in 1.5 ms by pod-0" in text
    assert "worker pod-0 some 1.0 r-1 | ValueError: two" in text


def test_why_a_load_failed_comes_first(home: Path) -> None:
    """A request that waited for a load that failed is told the worker's own reason, which knows of no request."""
    first, second, third, *_ = shown(home, "--request", "r-3")
    assert first == "why some 2.0 could not be loaded:"
    assert second.endswith("| cannot")
    assert third.endswith("| no weights")
    found = [json.loads(each) for each in shown(home, "--request", "r-3", "--json")]
    assert [each["component"] for each in found] == ["worker", "sidecar", "gateway"]


def test_lines_leave_the_terminal_alone(home: Path) -> None:
    """Levels and names that a handler makes up are shown escaped, and a record that nests without end is a text."""
    made_up = {"model": "some\x1b[2J", "version": "2.0", "error": "load_failed", "worker": 9000, "reason": "gone"}
    with (home / "pods/pod-0/logs/models.log").open("a") as log:
        record = json.dumps({"time": at(20), "level": "error\x1b[31m", "message": "x", **made_up})
        log.write(f"{at(20)} ERROR W-9000-id_1.0-stdout | {record}\n")
        log.write(f'{at(21)} INFO W-9000-id_1.0-stdout | {{"time": {"[" * 100_000}\n')
    text = "\n".join(shown(home))
    assert "\x1b" not in text
    assert "why some\\x1b[2J 2.0 could not be loaded" in text
    assert "error\\x1b[31m" in text


def test_what_is_wanted(home: Path) -> None:
    """Levels, times, components and the number of lines choose; requests that went well are left out unasked."""
    everything = [json.loads(each) for each in shown(home, "--json")]
    assert "r-2" not in {each.get("request_id") for each in everything}
    assert [each["message"] for each in everything if each["component"] == "runtime"] == [
        "TorchServe answers",
        "from something else",
    ]
    assert "r-2" in "\n".join(shown(home, "--component", "gateway"))
    assert {json.loads(each)["level"] for each in shown(home, "--level", "error", "--json")} == {"error"}
    assert len(shown(home, "--json", "--component", "sidecar", "-n", "1")) == 1
    assert [json.loads(each)["message"] for each in shown(home, "--json", "--since", at(8.5))] == ["request"]
    early = [json.loads(each)["message"] for each in shown(home, "--json", "--until", at(0.5))]
    assert early == ["ready"]
    assert shown(home, "--since", "10m") == ["nothing was printed yet"]


def test_a_models_lines(home: Path, publish: Publish) -> None:
    """A model's lines are those of its versions, whoever wrote them."""
    publish("some", "1.0")
    found = [json.loads(each) for each in shown(home, "some/1.0", "--json", "--registry", f"file://{home}/registry")]
    assert {each["version"] for each in found} == {"1.0"}
    assert {each["component"] for each in found} == {"gateway", "sidecar", "worker"}


def test_lines_are_followed(home: Path) -> None:
    """What is written later comes once, also to a log that is begun anew, and of a pod that came later."""
    with closing(HomeLogs(home, {})) as source:
        assert len(list(source.new())) == len(GATEWAY) + len(SIDECAR) + len(WORKER) + 2
        assert list(source.new()) == []
        with (home / "logs" / "gateway.log").open("a") as file:
            file.write(line(20, "later") + "\n" + '{"time": ')
        (home / "logs" / "sidecar-pod-1.log").write_text(line(21, "new pod") + "\n")
        assert [each.record["message"] for each in source.new()] == ["later", "new pod"]
        (home / "logs" / "gateway.log").rename(home / "gateway.old")
        (home / "logs" / "gateway.log").write_text(line(22, "anew") + "\n")
        assert [each.record["message"] for each in source.new()] == ["anew"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--level", "loud"], "is no level"),
        (["--component", "kernel"], "is no component"),
        (["--since", "yesterday-ish"], "is no time"),
        (["--context", "x"], "it goes with --cluster"),
        (["--until", "1m", "--follow"], "has no end"),
    ],
)
def test_what_cannot_be_is_refused(home: Path, arguments: list[str], said: str) -> None:
    """A word that is none of those that there are is refused, not ignored."""
    done = CliRunner().invoke(app, ["--home", str(home), *arguments])
    assert done.exit_code != 0
    assert said in f"{done.output}{done.exception}"


def test_a_cluster_is_read_through_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of the containers of a cluster, in one order, workers by their runtime's log."""
    kubectl = StandInKubectl(tmp_path / "kubectl", {}, secrets=())
    raised = json.dumps({"time": at(3.2), **WORKER[1][2], "worker": 9000})
    texts = [f"[pod/marway-gateway-x/gateway] {GATEWAY[1]}", f"[pod/marway-pod-y/sidecar] {SIDECAR[0]}"]
    (tmp_path / "kubectl" / "--selector").write_text("\n".join([*texts, f"[pod/marway-pod-y/runtime] {raised}"]) + "\n")
    monkeypatch.setenv("PATH", f"{kubectl.bin}:/usr/bin:/bin")
    done = CliRunner().invoke(app, ["--cluster", "--request", "r-1", "--json"])
    assert done.exit_code == 0, done.output
    found = [json.loads(each) for each in done.output.splitlines()]
    assert [each["component"] for each in found] == ["worker", "sidecar", "gateway"]
    (tmp_path / "kubectl" / "error").write_text("error: no cluster\n")
    failed = CliRunner().invoke(app, ["--cluster"])
    assert "kubectl cannot read the logs: error: no cluster" in f"{failed.output}{failed.exception}"
    (kubectl.bin / "kubectl").write_text("#!/bin/sh\nhead -c 200000 /dev/zero | tr '\\0' x >&2\nexit 1\n")
    failed = CliRunner().invoke(app, ["--cluster"])
    assert "kubectl cannot read the logs: xxx" in f"{failed.output}{failed.exception}"
