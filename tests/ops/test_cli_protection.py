"""`marway protect`, `approve` and `contract` on a registry, without a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marway.records import Proof, utc_now
from marway.registry import Registry
from marway_observations.events.history import events_of
from support.in_process import Marway
from support.registry import Publish


@pytest.fixture
def marway(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], registry: Registry, publish: Publish
) -> Marway:
    """The command with a registry that has intent 1.0, at PROD, and 1.1, which is proved; both are of pub@ci."""
    monkeypatch.setenv("MARWAY_REGISTRY", registry.url)
    monkeypatch.setenv("COLUMNS", "200")
    for version in ("1.0", "1.1"):
        digest = publish("intent", version, publisher="pub@ci").archive.sha256
        registry.prove(Proof(kind="pod", archive_sha256=digest, server="native", duration_s=1, at=utc_now(), by="pod"))
    registry.release("intent", "1.0", by="test")
    return Marway(monkeypatch, capsys)


def by(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make the command's user somebody."""
    monkeypatch.setattr("marway.process.identity.getpass.getuser", lambda: name)
    monkeypatch.setattr("marway.process.identity.socket.gethostname", lambda: "desk")


def test_sign_off(marway: Marway, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label is protected, a release refused with what is missing, agreed to by another and made; all is told."""
    by(monkeypatch, "ana")
    shown = marway("protect", "intent", "--approvals", "1", "--require", "pod", "--note", "customers").out
    assert "approvals  of 1 others" in shown
    assert "by ana@desk: customers" in shown
    refused = marway("release", "intent", "1.1")
    assert refused.code == 1
    assert refused.err == (
        "marway: intent PROD is protected, and 1.1 may not take it yet; missing: (1) 0 of 1 approvals: others than "
        "pub@ci and ana@desk run `marway approve intent 1.1 --label PROD`; PROD stays at 1.0\n"
    )
    by(monkeypatch, "bo")
    assert marway("approve", "intent", "1.1").out == "bo@desk agrees that intent PROD may move to 1.1\n"
    assert "version 1.1  agreed: bo@desk; asked by ana@desk" in marway("protect", "intent").out
    by(monkeypatch, "ana")
    assert marway("release", "intent", "1.1").code == 0
    told = [line.split("test")[-1].strip() for line in marway("history", "intent").out.splitlines()]
    assert any("PROD 1.0 → 1.1 (agreed: bo@desk)" in line for line in told)
    assert any("agreed to 1.1 at PROD" in line for line in told)
    assert any("sign-off asked for 1.1 at PROD" in line for line in told)
    assert any("PROD protected: approvals of 1 others; proofs pod" in line for line in told)
    events = [event for entry in registry.history("intent") for event in events_of("intent", entry)]
    assert [event.type.removeprefix("dev.marway.") for event in events] == [
        *("model.released", "approval.given", "approval.asked", "model.released"),
    ]
    assert events[1].data["version"] == "1.1"
    assert "PROD is protected: `marway protect intent --label PROD` says how" in marway("show", "intent").out


def test_settings(marway: Marway) -> None:
    """What is not named stays; `none` asks for nothing; --off takes it away and goes with nothing else."""
    marway(
        "protect",
        "intent",
        "--approvals",
        "2",
        "--freeze",
        "Sat 00:00-Mon 00:00 UTC",
        "--freeze",
        "Fri 16:00-Fri 17:00 UTC",
    )
    found = json.loads(marway("protect", "intent", "--freeze", "none", "--json").out)
    assert (found["approvals"], found["freeze"], found["require"]) == (2, [], [])
    assert marway("protect", "intent", "--off", "--approvals", "1").code == 2
    assert "no: it moves to any version that is proved" in marway("protect", "intent", "--off").out
    refused = marway("protect", "intent", "--off")
    assert (refused.code, refused.err) == (
        *(1, "marway: PROD of intent is not protected: protected labels are none\n"),
    )
    assert "asks for no approvals" not in marway("approve", "intent", "1.1").out


def test_contracts(marway: Marway, registry: Registry, tmp_path: Path) -> None:
    """A consumer's request and answer are added from files, listed, hold a release, and are removed."""
    for name, text in (("in.txt", "wake me"), ("out.json", '{"label": "alarm", "score": 0.9}')):
        (tmp_path / name).write_text(text)
    names = "--consumer", "search", "--name", "alarm"
    given = "--input", str(tmp_path / "in.txt"), "--expect", str(tmp_path / "out.json"), "--fields", "label"
    added = marway("contract", "add", "intent", *names, *given)
    assert added.out == "intent: search relies on alarm: values of label\n", added.err
    (kept,) = registry.contracts("intent")
    assert (kept.content_type, kept.input, kept.value) == ("text/plain", b"wake me", {"label": "alarm", "score": 0.9})
    assert "search    alarm     values of label  all" in marway("contract", "list", "intent").out
    refused = marway("release", "intent", "1.1")
    assert (refused.code, "what consumers rely on (search/alarm)" in refused.err) == (1, True)
    assert "1 contracts of consumers: search" in marway("show", "intent").out
    assert "only a pod knows" in marway("contract", "add", "intent", *names, *given[:2], "--from-label", "PROD").err
    assert marway("contract", "remove", "intent", *names).out == "intent: search relies on alarm no more\n"
    assert "nobody has said what they rely on" in marway("contract", "list", "intent").out
    assert "search relies no more on alarm" in marway("history", "intent").out
    assert marway("release", "intent", "1.1").code == 0
