"""How long events are kept."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from marway.objects import DirectoryStore
from marway.records import utc_now
from marway.registry import Registry
from marway_observations.events import Event, EventLog
from marway_observations.events.outbox import Attempts, Outbox
from marway_observations.events.retention import collect


def test_old_events_are_deleted(tmp_path: Path) -> None:
    """Events go after a year, dead ones after 90 days, unsent ones after a week; a dry run deletes nothing."""
    store = DirectoryStore(tmp_path)
    registry = Registry(store)
    registry.create()
    log, outbox = EventLog(store), Outbox(store)
    made = {}
    for days in (400, 300, 0):
        event = Event(id=f"intent-{days}", type="t", subject="intent", time=utc_now() - timedelta(days=days))
        log.raise_(event)
        outbox.bury(event, "chat", Attempts(done=True))
        made[days] = event
    aged("pending/intent-400", 8, tmp_path)
    aged("pending/intent-300", 6, tmp_path)
    aged("dead/chat/intent-300", 91, tmp_path)
    gone = [f"events/date={made[400].day}/intent-400.json", "events/dead/chat/intent-300.json"]
    gone.append("events/pending/intent-400.json")
    assert sorted(collect(registry, dry_run=True)["expired"]) == sorted(gone)
    assert len(list(log.keys())) == 3
    assert sorted(collect(registry)["expired"]) == sorted(gone)
    assert collect(registry) == {"expired": []}
    assert sorted(outbox.pending()) == ["intent-0", "intent-300"]
    assert [dead.event.id for dead in outbox.dead()] == ["intent-0", "intent-400"]


def aged(name: str, days: float, store: Path) -> None:
    """Let an object have been written days ago."""
    at = time.time() - days * 86_400
    os.utime(store / "events" / f"{name}.json", (at, at))
