"""`marway events`: what happened, what webhooks were not sent, and sending it again."""

from __future__ import annotations

import json
from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from marway.objects import DirectoryStore
from marway.records import utc_now
from marway.registry import Registry
from marway_observations.events import Event, EventLog
from marway_observations.events.outbox import Attempts, Outbox
from support.in_process import Marway
from support.registry import publisher


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    registry.create()
    publish = publisher(registry, tmp_path)
    publish("intent", "1.0")
    publish("digits", "1.0")
    return registry


@pytest.fixture
def marway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], registry: Registry) -> Marway:
    observations = EntryPoint("observations", "marway_observations.cli:register", "marway.verbs")
    monkeypatch.setattr("marway_ops.cli.main.entry_points", lambda group: [observations])
    monkeypatch.setenv("MARWAY_REGISTRY", registry.url)
    monkeypatch.setenv("COLUMNS", "200")
    return Marway(monkeypatch, capsys)


@pytest.fixture
def happened(registry: Registry) -> EventLog:
    """A release of intent 3 days ago, one of an hour ago, and drift of digits."""
    log = EventLog(registry.store)
    released = {"label": "PROD", "version": "1.0", "previous_version": None, "generation": 1, "by": "ann", "note": "go"}
    for number, ago in enumerate((timedelta(days=3), timedelta(hours=1))):
        log.raise_(
            Event(
                id=f"intent-{number}",
                type="dev.marway.model.released",
                subject="intent",
                time=utc_now() - ago,
                data=released,
            )
        )
    moved = {"version": "1.0", "fields": [{"field": "length", "psi": 0.4}, {"field": "text", "psi": 0.3}]}
    log.raise_(
        Event(id="digits-d", type="dev.marway.model.drifted", subject="digits", time=utc_now(), data=moved),
    )
    return log


def test_events_are_shown_newest_first(marway: Marway, happened: EventLog) -> None:
    """A row says when, of which model, what, and what people ask next; `--json` is CloudEvents."""
    said = marway("events")
    assert said.code == 0
    _, *rows = said.out.splitlines()
    assert [row.split()[-1] for row in rows] == ["digits-d", "intent-1", "intent-0"]
    assert "label PROD, version 1.0, by ann, note go" in rows[1]
    assert "fields length, text" in rows[0]
    documents = json.loads(marway("events", "--json").out)
    assert [each["id"] for each in documents] == ["digits-d", "intent-1", "intent-0"]
    assert {each["specversion"] for each in documents} == {"1.0"}


def test_events_are_filtered(marway: Marway, happened: EventLog) -> None:
    """By model, in any case; by time; and by type, whole, by its last word, or by its beginning."""

    def ids(*words: str) -> list[str]:
        return [each["id"] for each in json.loads(marway("events", *words, "--json").out)]

    assert ids("Intent") == ["intent-1", "intent-0"]
    assert ids("intent", "--since", "24h") == ["intent-1"]
    assert ids("--since", (utc_now() - timedelta(days=2)).isoformat()) == ["digits-d", "intent-1"]
    assert ids("--type", "drifted", "--type", "released", "--limit", "2") == ["digits-d", "intent-1"]
    assert ids("--type", "dev.marway.model.drift*") == ["digits-d"]
    assert "--limit shows more than 1" in marway("events", "--limit", "1").err
    assert "nothing happened since" in marway("events", "digits", "--type", "deleted").out


def test_dead_events_are_shown_and_sent_again(marway: Marway, happened: EventLog, registry: Registry) -> None:
    """A dead event is listed with its webhook and the last error until it is sent again, by its id or with all."""
    outbox = Outbox(registry.store)
    found = {event.id: event for key in happened.keys() if (event := happened.get(key))}  # noqa: SIM118
    one, other = found["intent-1"], found["digits-d"]
    for event in (one, other):
        outbox.bury(event, "chat", Attempts(done=True, count=9, error="answered 503"))
    said = marway("events", "--dead")
    assert said.out.count("answered 503") == 2
    assert [each["webhook"] for each in json.loads(marway("events", "--dead", "--json").out)] == ["chat", "chat"]
    assert len(json.loads(marway("events", one.subject, "--dead", "--json").out)) == 1
    said = marway("events", "retry", "intent-7")
    assert (said.code, "did you mean 'intent-" in said.err) == (1, True)
    said = marway("events", "retry", one.id)
    assert said.out == f"sent again by the gateways within seconds: {one.id} to chat\n"
    assert json.loads(marway("events", "retry", "--all", "--json").out) == [{"id": other.id, "webhook": "chat"}]
    assert "nothing, as none is dead" in marway("events", "retry", "--all").out
    assert "no event was given up" in marway("events", "--dead").out


def test_events_that_wait_are_shown(marway: Marway, happened: EventLog, registry: Registry) -> None:
    """What a webhook does not have yet is listed with what the last attempt came to and when the next is."""
    Outbox(registry.store).attempted(
        "intent-1",
        {
            "chat": Attempts(count=2, next_at=utc_now(), error="answered 500: oops"),
            "ci": Attempts(done=True, count=1),
        },
    )
    said = marway("events", "--pending")
    rows = [line.split() for line in said.out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["digits-d", "intent-1", "intent-0"]
    assert rows[1][:3] == ["intent-1", "chat", "2"]
    assert "answered 500: oops" in said.out
    documents = json.loads(marway("events", "intent", "--pending", "--since", "24h", "--json").out)
    assert [each["event"]["id"] for each in documents] == ["intent-1"]
    assert marway("events", "digits", "--type", "deleted", "--pending").out == "every webhook has its events\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("events", "absent"), 1, "there is no model 'absent'"),
        (("events", "retry"), 1, "give its ID"),
        (("events", "intent", "x"), 2, "`marway events retry ID`"),
        (("events", "--all"), 2, "`marway events retry ID`"),
        (("events", "retry", "x", "--all"), 2, "not both"),
        (("events", "--dead", "--follow"), 2, "give one of --dead, --pending and --follow"),
        (("events", "--since", "yesterday"), 1, "such as 24h or 7d"),
        (("events", "--type", "relased"), 1, "there are released, rolled_back"),
    ],
)
def test_what_cannot_be_meant_is_refused(marway: Marway, words: tuple[str, ...], code: int, says: str) -> None:
    """Each wrong use gets one line that says what is right."""
    said = marway(*words)
    assert said.code == code
    assert says in said.err


def test_events_are_followed(
    marway: Marway, happened: EventLog, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of before are shown oldest first, then those that come, also such as happened days ago, until Ctrl-C."""
    waits = iter(range(3))

    def wait(seconds: float) -> None:
        number = next(waits)
        if number == 2:
            raise KeyboardInterrupt
        ago = timedelta(days=20 * number)
        late = Event(
            id=f"digits-{number}", type="dev.marway.model.deleted", subject="digits", time=utc_now() - ago, data={}
        )
        happened.raise_(late)

    monkeypatch.setattr("time.sleep", wait)
    said = marway("events", "--follow", "--json", "--since", "1d")
    assert said.code == 130
    ids = [json.loads(line)["id"] for line in said.out.splitlines()]
    assert ids == ["intent-1", "digits-d", "digits-0", "digits-1"]
