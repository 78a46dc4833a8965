"""Events: what is raised is kept once, and is to be sent until it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marway.errors import InvalidInput, RegistryUnavailable
from marway.objects import DirectoryStore, ObjectStore, open_store
from marway.registry import Registry
from marway_observations.events import Event, EventLog
from marway_observations.events.outbox import Attempts, Outbox

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = DirectoryStore(tmp_path)
    Registry(store).create()
    return store


def event(event_id: str = "intent-1", **facts: object) -> Event:
    known = {"type": "dev.marway.model.released", "subject": "intent", "time": AT, "data": {"version": "2.0"}}
    return Event.model_validate({"id": event_id, **known, **facts})


def test_event_is_kept_once_however_many_raise_it(store: ObjectStore) -> None:
    """The first that raises an event keeps it as a CloudEvent under its day, with the registry as its source."""
    log = EventLog(store)
    assert log.raise_(event())
    assert not log.raise_(event(data={"version": "other"}))
    found = log.get("events/date=2026-11-30/intent-1.json")
    assert found is not None
    assert (found.specversion, found.data, found.time) == ("1.0", {"version": "2.0"}, AT)
    identity = Registry(store).identity()
    assert identity is not None
    assert found.source == f"/marway/registries/{identity.id}"
    assert list(Outbox(store).pending()) == ["intent-1"]


def test_event_whose_raising_was_interrupted_is_finished(store: ObjectStore) -> None:
    """One that was put down to be sent, and not kept, is kept by whoever raises it next."""
    log = EventLog(store)
    Outbox(store).put(event(source=log.source()))
    assert log.raise_(event())
    assert len(list(log.keys())) == 1


def test_events_are_refused_where_no_registry_is(tmp_path: Path) -> None:
    """A directory that holds no registry, such as a mount point, is given no events."""
    with pytest.raises(RegistryUnavailable):
        EventLog(DirectoryStore(tmp_path)).raise_(event())
    assert list(tmp_path.rglob("*.json")) == []


def test_events_are_bounded(store: ObjectStore) -> None:
    """An event is no larger than everybody lets through, and its id is a part of a key."""
    with pytest.raises(InvalidInput, match="65536"):
        EventLog(store).raise_(event(data={"text": "x" * 70_000}))
    with pytest.raises(InvalidInput, match="id of an event"):
        event("../state")


def test_events_are_read_newest_first(store: ObjectStore) -> None:
    """They are found by time, model and type, the newest first."""
    log = EventLog(store)
    for number in range(4):
        subject = "intent" if number % 2 else "digits"
        log.raise_(event(f"{subject}-{number}", subject=subject, time=AT + timedelta(hours=10 * number)))
    log.raise_(event("digits-x-drift", subject="digits", type="dev.marway.model.drifted"))
    later = AT + timedelta(days=2)

    def ids(**facts: object) -> list[str]:
        return [each.id for each in log.newest_first(**{"since": AT, "until": later, **facts})]  # type: ignore[arg-type]

    assert ids() == ["intent-3", "digits-2", "intent-1", "digits-x-drift", "digits-0"]
    assert ids(model="intent") == ["intent-3", "intent-1"]
    assert ids(types=["dev.marway.model.drift*"]) == ["digits-x-drift"]
    assert ids(since=AT + timedelta(hours=10), until=AT + timedelta(hours=20)) == ["digits-2", "intent-1"]


def test_dead_event_is_sent_again(store: ObjectStore) -> None:
    """What was given up is listed until it is sent again, then to that webhook alone."""
    outbox = Outbox(store)
    outbox.bury(event(), "chat", Attempts(done=True, count=9, error="503"))
    (dead,) = outbox.dead()
    assert (dead.webhook, dead.attempts.count) == ("chat", 9)
    outbox.retry(dead)
    assert list(outbox.dead()) == []
    found = outbox.get("intent-1")
    assert found is not None
    assert found[0].only == ("chat",)


def test_event_under_way_is_sent_again_to_one_more(store: ObjectStore) -> None:
    """Where others still wait for an event that is sent again, they go on waiting."""
    outbox = Outbox(store)
    outbox.put(event())
    outbox.attempted("intent-1", {"chat": Attempts(done=True, count=9), "ci": Attempts(count=1)})
    outbox.bury(event(), "chat", Attempts(done=True, count=9))
    for dead in outbox.dead():
        outbox.retry(dead)
    found = outbox.get("intent-1")
    assert found is not None
    assert found[0].only == ()
    assert found[0].webhooks == {"ci": Attempts(count=1)}


def test_event_that_changed_meanwhile_is_not_forgotten(store: ObjectStore) -> None:
    """Whoever has sent an event everywhere forgets it only if nobody wants it sent again."""
    outbox = Outbox(store)
    outbox.put(event())
    found = outbox.get("intent-1")
    assert found is not None
    outbox.attempted("intent-1", {"ci": Attempts(count=1)})
    outbox.finish("intent-1", etag=found[1])
    found = outbox.get("intent-1")
    assert found is not None
    outbox.finish("intent-1", etag=found[1])
    assert outbox.get("intent-1") is None


@pytest.mark.extended  # the tests above, in a directory
def test_events_in_s3(s3_url: str) -> None:
    """Raised once, read, sent in part, given up and retried: in S3 as in a directory."""
    store = open_store(s3_url)
    Registry(store).create()
    log, outbox = EventLog(store), Outbox(store)
    version = "1.0+cpu"
    assert log.raise_(event(f"intent-{version}"))
    assert not log.raise_(event(f"intent-{version}"))
    assert [each.id for each in log.newest_first(since=AT, until=AT)] == [f"intent-{version}"]
    (event_id,) = outbox.pending()
    outbox.attempted(event_id, {"chat": Attempts(done=True, count=9)})
    outbox.bury(event(event_id), "chat", Attempts(done=True, count=9))
    for dead in list(outbox.dead()):
        outbox.retry(dead)
    found = outbox.get(event_id)
    assert found is not None
    assert found[0].webhooks == {}
    outbox.finish(event_id, etag=found[1])
    assert list(outbox.pending()) == list(outbox.dead()) == []
