"""`marway shadow` with a registry and no gateway: what it changes, and what it says where nothing was copied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marway.objects import DirectoryStore
from marway.registry import Registry
from support.in_process import Marway
from support.registry import publish


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, version="1.0")
    publish(registry, tmp_path, version="1.1", label=None)
    return registry


def test_start_report_stop(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copies are in the state while they are made; the report knows of them before anything was counted."""
    marway = Marway(monkeypatch, capsys)
    at = ("--registry", registry.url)
    none = marway("shadow", "report", "intent", *at)
    assert none.code == 1
    assert "no requests of intent PROD were copied: `marway shadow start intent VERSION --label PROD`" in none.err
    started = marway("shadow", "start", "intent", "1.1", "--percent", "10", *at)
    assert (started.code, started.out.strip()) == (0, "10 % of the requests of intent PROD are copied to 1.1")
    (rule,) = registry.state("intent").traffic["PROD"].shadow
    assert (rule.version, rule.percent) == ("1.1", 10)
    found = json.loads(marway("shadow", "report", "intent", "--json", *at).out)
    assert (found["running"], found["base"], found["processes"]) == (True, "1.0", 0)
    assert [(each["version"], each["percent"], each["answered"]) for each in found["versions"]] == [("1.1", 10, 0)]
    shown = marway("shadow", "report", "intent", *at)
    assert "1.1 (10 % of the requests)" in shown.out
    refused = marway("shadow", "start", "intent", "1.1", "--percent", "0", *at)
    assert refused.code == 1
    assert "0 % is no copy at all" in refused.err
    stopped = json.loads(marway("shadow", "stop", "intent", "1.1", "--json", *at).out)
    assert stopped["rollout"]["action"] == "shadow"
    assert registry.state("intent").traffic == {}
    again = marway("shadow", "stop", "intent", *at)
    assert again.code == 1
    assert "no requests of intent PROD are copied" in again.err
