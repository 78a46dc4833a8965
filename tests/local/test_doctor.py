"""`marway doctor` finds what is wrong and says what to do."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from marway.cli.doctor import examine
from support.cli import marway


def test_this_machine_can_run_marway(tmp_path: Path) -> None:
    """Where the tests run, every check is well, and nothing is written by looking."""
    done = marway("doctor", "--port", "0", "--json", cwd=tmp_path)
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert {"Python", "memory", "disk", "Java", "torchserve", "torch", "ports", "registry"} <= set(findings)
    assert all(finding["level"] != "problem" for finding in findings.values())
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path) -> None:
    """A port on which somebody listens is a problem, named, with the flag that avoids it; the exit status is 1."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = marway("doctor", "--port", str(port), "--json", cwd=tmp_path)
    assert done.returncode == 1
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert findings["ports"]["level"] == "problem"
    assert str(port) in findings["ports"]["found"]
    assert "--port 0" in findings["ports"]["advice"]


def test_a_registry_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A registry of no known kind is a problem with its reason."""
    findings = {finding.check: finding for finding in examine(home=tmp_path, port=0, registry="ftp://host/x")}
    assert findings["registry"].level == "problem"
    assert "of no known kind" in findings["registry"].found


@pytest.mark.parametrize("check", ["torchserve", "torch-model-archiver"])
def test_a_version_that_marway_is_not_made_for_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    """A package at another version than the pinned one is a problem with the command that mends it."""
    monkeypatch.setattr("marway.cli.doctor.version", lambda name: "0.1.0")
    findings = {finding.check: finding for finding in examine(home=tmp_path, port=0, registry=None)}
    assert findings[check].level == "problem"
    assert f"pip install {check}==0.12.0" in findings[check].advice
