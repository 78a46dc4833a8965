"""Releases over a working version, by the command and over real TorchServe: what is told, what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway.objects import open_store
from marway.registry import Registry
from marway_archiver import publish
from support.cli import marway
from support.up import Up

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HANDLER = """
import time

class Handler:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        BEFORE
        return [{SCORE, "label": "LONG" if len(row["data"]) > 8 else "short"} for row in data]
"""
SCORE = '"score": len(row["data"]) / 10'
EXAMPLES = [b"one", b"one two three", b"one two"]
VERSIONS: dict[str, dict[str, str]] = {
    "2.0-nan": {"SCORE": '"score": float("nan")'},
    "2.0-slow": {"BEFORE": "time.sleep(0.3)"},
    "2.0-schema": {"SCORE": SCORE.replace("score", "confidence")},
    "2.0-raises": {"BEFORE": "raise RuntimeError('oops')"},
    "2.0-other": {"LONG": "LANG"},
}
"""What is other in which version; none has golden examples of its own."""
ECHO = """
def handle(data, context):
    if data is None:
        return None
    rows = [row["data"] for row in data]
    return [row["answer"] if isinstance(row, dict) and "answer" in row else row for row in rows]
"""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def registry(up: Up) -> Registry:
    return Registry(open_store(up.registry))


@pytest.fixture(scope="module")
def command(up: Up) -> Command:
    """The `marway` command, with the admin port of the running gateway in its environment."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return marway(*arguments, MARWAY_GATEWAY_ADMIN_URL=up.ready["admin"])

    return run


def put(up: Up, scratch: Path, name: str, version: str, examples: list[Any], **changes: str) -> None:
    """Publish a version whose handler is HANDLER with changes."""
    text = HANDLER.replace("SCORE", changes.get("SCORE", SCORE)).replace("BEFORE", changes.get("BEFORE", "pass"))
    handler = scratch / f"handler_{version.replace('.', '_').replace('-', '_')}.py"
    handler.write_text(text.replace("LONG", changes.get("LONG", "LONG")))
    publish(model_name=name, version=version, handler=str(handler), registry=up.registry, examples=examples)


@pytest.fixture(scope="module")
def model(up: Up, command: Command, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with 1.0 at PROD, which has golden examples, and versions that differ from it."""
    scratch = tmp_path_factory.mktemp("compared")
    put(up, scratch, "compared", "1.0", EXAMPLES)
    for version, changes in VERSIONS.items():
        put(up, scratch, "compared", version, [], **changes)
    done = command("release", "compared", "1.0")
    assert done.returncode == 0, done.stderr
    assert "looked at 1.0 by pod " in done.stdout
    return "compared"


@pytest.mark.parametrize(
    ("kind", "told", "why"),
    [
        ("nan", "  finite   3 hold NaN or an infinity, before 0", "3 of 3 answers hold NaN or an infinity"),
        ("schema", "  fields   score is now confidence", "its answers have other fields or types: score is now conf"),
        ("raises", "  errors   3, before 0 (example 1: status 500: RuntimeError: oops", "it fails 3 of 3 inputs"),
    ],
)
def test_a_version_that_breaks_callers_needs_force(
    registry: Registry, command: Command, model: str, kind: str, told: str, why: str
) -> None:
    """NaN answers, a renamed field and a handler that always raises are shown and refused; force is in the history."""
    version = f"2.0-{kind}"
    done = command("release", model, version)
    assert (done.returncode, registry.state(model).labels) == (1, {"PROD": "1.0"})
    assert f"compared {version} with 1.0 by pod " in done.stdout
    assert told in done.stdout
    assert done.stderr.startswith(f"marway: compared {version} may not take the place of 1.0: ")
    assert why in done.stderr
    assert done.stderr.endswith("; PROD stays at 1.0; if that is meant, release it with --force\n")
    done = command("release", model, version, "--json")
    assert (done.returncode, len(json.loads(done.stdout)["comparison"]["refused"])) == (1, 1)
    try:
        done = command("release", model, version, "--force")
        assert (done.returncode, done.stdout) == (
            *(0, f"compared PROD → {version} (was 1.0)\nnot compared: the release was forced\n"),
        )
        newest = registry.state(model).history[-1]
        assert (newest.to_version, newest.forced) == (version, True)
    finally:
        assert command("rollback", model).returncode == 0


@pytest.mark.extended  # the tests around it compare over the same gateway
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("slow", ": SLOWER\n"),
        ("other", '  answers  2 of 3 equal (example 2: at label: "LONG" was expected, "LANG" came)\n'),
    ],
)
def test_a_version_that_is_slower_or_answers_otherwise_is_told(
    registry: Registry, command: Command, model: str, kind: str, told: str
) -> None:
    """A slower version, and one with other values, take the place, and the release says what is other."""
    version = f"2.0-{kind}"
    done = command("release", model, version)
    try:
        assert (done.returncode, done.stderr, registry.state(model).labels) == (0, "", {"PROD": version})
        assert done.stdout.startswith(f"compared PROD → {version} (was 1.0)")
        assert told in done.stdout
    finally:
        command("rollback", model)
    done = command("release", model, version, "--json")
    try:
        found = json.loads(done.stdout)["comparison"]
        assert (found["base"], found["inputs_of"], found["compared"], found["refused"]) == ("1.0", "1.0", 3, [])
        assert (found["equal"], found["p50_s"] >= 0.3) == ((3, True) if kind == "slow" else (2, False))
        assert found["base_p50_s"] < 0.3
    finally:
        command("rollback", model)
    assert registry.state(model).labels == {"PROD": "1.0"}


def test_diff_compares_answers(up: Up, registry: Registry, command: Command, model: str) -> None:
    """`marway diff` has a pod compare two versions, and moves nothing; without one it compares published answers."""
    args = ("diff", f"{model}/PROD", f"{model}/2.0-schema", "--registry", up.registry)
    done = command(*args, "--gateway", up.ready["admin"])
    assert done.returncode == 0, done.stderr
    assert "  fields   score is now confidence\n" in done.stdout
    answers = json.loads(command(*args, "--gateway", up.ready["admin"], "--json").stdout)["answers"]
    assert (answers["method"], answers["equal"], answers["fields"][0]["to"]) == ("pod", 0, "confidence")
    done = command(*args)
    assert done.stdout.endswith("not compared: 2.0-schema has no golden answers, and 1.0 has 3\n")
    assert registry.state(model).labels == {"PROD": "1.0"}


def test_a_first_version_that_is_not_finite_needs_force(up: Up, command: Command, tmp_path: Path) -> None:
    """NaN in the answers of a first version is refused, by a pod and without one; the version is published."""
    put(up, tmp_path, "first", "1.0", EXAMPLES, **VERSIONS["2.0-nan"])
    done = command("release", "first", "1.0")
    assert done.returncode == 1
    assert "first 1.0 is not released: 3 of 3 answers hold NaN" in done.stderr
    assert "PROD is not set" in done.stderr
    done = marway("release", "first", "1.0", "--registry", up.registry)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        *(1, "looked at 1.0 by published golden answers, nothing was run, 3 golden inputs of 1.0:"),
    )


def test_other_types_of_answers_and_a_publish_with_a_label(
    up: Up, registry: Registry, client: httpx.Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Text, JSON and bytes that are the same are equal; `publish` with a label warns of what is not."""
    examples = [{"answer": {"a": [1, 2.5]}}, "some text", b"\x00\xff"]
    for version, suffix in (("1.0", ""), ("1.1", "# the same\n"), ("1.2", "")):
        handler = tmp_path / f"echo_{version.replace('.', '_')}.py"
        text = ECHO if version != "1.2" else ECHO.replace('row["answer"]', '{"a": [1, 2.6]}')
        handler.write_text(text + suffix)
        caplog.clear()
        publish(
            model_name="echoed", version=version, handler=str(handler), registry=up.registry, label="PROD",
            gateway=up.ready["admin"], examples=examples,
        )  # fmt: skip
        said = [record.getMessage() for record in caplog.records if "compared" in record.getMessage()]
        assert len(said) == (version == "1.2")
        if said:
            assert said[0].startswith("warning: compared 1.2 with 1.1 by pod ")
            assert "answers 2 of 3 equal (example 1: at a[1]: 2.5 was expected, 2.6 came)" in said[0]
    assert registry.state("echoed").labels == {"PROD": "1.2"}
    answer = client.post("/predict/echoed/1.2", json=examples[0])
    assert answer.json() == {"a": [1, 2.6]}


@pytest.mark.extended  # tests/gateway/admin/test_protection.py has the same over a fake pod
def test_a_contract_of_a_consumer_is_kept(command: Command, model: str, tmp_path: Path) -> None:
    """What a consumer relies on is taken from the label and asked of a pod before a release; the refusal names it."""
    asked = tmp_path / "long.txt"
    asked.write_text("one two three")
    names = "--consumer", "search", "--name", "long"
    done = command("contract", "add", model, *names, "--input", str(asked), "--from-label", "PROD", "--fields", "label")
    assert (done.returncode, done.stdout) == (0, f"{model}: search relies on long: values of label\n"), done.stderr
    try:
        done = command("release", model, "2.0-other")
        assert done.returncode == 1
        assert 'search (contract long: label: "LONG" was expected, "LANG" came); PROD stays at 1.0' in done.stderr
        done = command("contract", "check", model, "PROD")
        assert (done.returncode, "1.0 keeps all contracts on pod " in done.stdout) == (0, True), done.stdout
    finally:
        assert command("contract", "remove", model, *names).returncode == 0
