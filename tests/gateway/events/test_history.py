"""What histories tell becomes events, whoever changed them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marway.errors import RegistryUnavailable
from marway.objects import DirectoryStore
from marway.records import HistoryEntry
from marway.registry import Registry
from marway_gateway.events.history import HistoryScan
from marway_observations.events import Event, EventLog
from support.registry import publisher

NOW = datetime.now(UTC)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    registry.create()
    return registry


def events(registry: Registry) -> list[Event]:
    since, until = NOW - timedelta(days=1), NOW + timedelta(days=1)
    return list(EventLog(registry.store).newest_first(since=since, until=until))[::-1]


async def scanned(registry: Registry) -> list[Event]:
    """Return all events after a look by a gateway that has just started."""
    scan = HistoryScan(registry, pace_s=0)
    await scan.run()
    scan.close()
    return events(registry)


async def test_a_rollout_raises_an_event_for_each_turn(registry: Registry, tmp_path: Path) -> None:
    """Each turn of a rollout is told with its step and why; a promotion is a release as well, each once."""
    publish = publisher(registry, tmp_path)
    for version in ("1.0", "2.0"):
        publish("intent", version)
    registry.release("intent", "1.0", by="ann")
    await scanned(registry)
    here: dict[str, Any] = {"label": "PROD", "by": "gateway"}
    rollout = registry.start_rollout("intent", "2.0", steps=(1, 50), **here).entry.rollout
    assert rollout is not None
    registry.advance_rollout("intent", rollout=str(rollout.id), step=0, reason="no guard found it worse", **here)
    registry.pause_rollout("intent", **here)
    registry.resume_rollout("intent", **here)
    registry.roll_back_rollout("intent", guard="errors", reason="errors is worse", **here)
    registry.start_rollout("intent", "2.0", **here)
    registry.abort_rollout("intent", **here)
    registry.start_shadow("intent", "2.0", **here)
    registry.start_rollout("intent", "2.0", **here)
    registry.promote_rollout("intent", **here)
    await scanned(registry)
    found = [each for each in await scanned(registry) if each.data["generation"] > 1]
    assert [(each.type.removeprefix("dev.marway."), each.id) for each in found] == [
        ("rollout.started", "intent-2"),
        ("rollout.step", "intent-3"),
        ("rollout.paused", "intent-4"),
        ("rollout.resumed", "intent-5"),
        ("rollout.rolled_back", "intent-6"),
        ("rollout.started", "intent-7"),
        ("rollout.aborted", "intent-8"),
        ("rollout.started", "intent-10"),
        ("model.released", "intent-11"),
        ("rollout.promoted", "intent-11-promoted"),
    ]
    told = found[4].data
    assert (told["version"], told["base"], told["label"], told["rollout"]) == ("2.0", "1.0", "PROD", rollout.id)
    assert (told["step"], told["percent"], told["guard"], told["reason"]) == (1, 0, "errors", "errors is worse")


async def test_changes_that_no_gateway_made_raise_events(registry: Registry, tmp_path: Path) -> None:
    """Releases, rollbacks and deletions are told with what was and who did it; serving settings are not."""
    await scanned(registry)
    publish = publisher(registry, tmp_path)
    for version in ("1.0", "2.0"):
        publish("intent", version)
        registry.release("intent", version, by="ann", note="better")
    registry.set_serving("intent", set_fields={"max_workers": 1}, by="ann")
    registry.rollback("intent", by="bob")
    registry.delete("intent", "2.0", by="ann")
    found = await scanned(registry)
    assert [(each.type.rpartition(".")[2], each.id) for each in found] == [
        ("released", "intent-1"),
        ("released", "intent-2"),
        ("rolled_back", "intent-4"),
        ("deleted", "intent-5"),
    ]
    assert found[1].data == {
        "model": "intent",
        "version": "2.0",
        "label": "PROD",
        "previous_version": "1.0",
        "generation": 2,
        "by": "ann",
        "note": "better",
        "forced": False,
    }
    assert found[1].subject == "intent"
    assert (found[2].data["version"], found[2].data["previous_version"]) == ("1.0", "2.0")
    assert found[3].data["version"] == "2.0"
    assert await scanned(registry) == found


async def test_history_of_before_raises_nothing(registry: Registry, tmp_path: Path) -> None:
    """Models that were there before the first gateway looked begin then; later ones at their beginning."""
    publish = publisher(registry, tmp_path)
    publish("old", "1.0")
    registry.release("old", "1.0", by="ann")
    assert await scanned(registry) == []
    publish("new", "1.0")
    registry.release("new", "1.0", by="ann")
    registry.release("old", "1.0", by="ann")
    assert {each.id for each in await scanned(registry)} == {"new-1", "old-2"}


async def test_look_that_was_interrupted_misses_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that dies between two events leaves the rest to the next, which raises none twice."""
    await scanned(registry)
    publish = publisher(registry, tmp_path)
    publish("intent", "1.0")
    for _ in range(3):
        registry.release("intent", "1.0", by="ann")
    raise_, left = EventLog.raise_, [2]

    def dying(log: EventLog, event: Event) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise RegistryUnavailable("killed")
        return raise_(log, event)

    with monkeypatch.context() as patched:
        patched.setattr(EventLog, "raise_", dying)
        with pytest.raises(RegistryUnavailable):
            await scanned(registry)
    assert [each.id for each in events(registry)] == ["intent-1", "intent-2"]
    assert [each.id for each in await scanned(registry)] == ["intent-1", "intent-2", "intent-3"]


async def test_long_histories_are_read_whole(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes that the state no longer holds are found in the chunks of the history."""
    monkeypatch.setattr("marway.registry.history.CHUNK", 3)
    await scanned(registry)
    publisher(registry, tmp_path)("intent", "1.0")
    for _ in range(10):
        registry.release("intent", "1.0", by="ann")
    assert len(registry.state("intent").history) < 10
    assert len(await scanned(registry)) == 10


async def test_model_that_is_damaged_is_told_once(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A state that cannot be read keeps no other model from its events."""
    scan = HistoryScan(registry, pace_s=0)
    await scan.run()
    publish = publisher(registry, tmp_path)
    publish("bad", "1.0")
    publish("good", "1.0")
    registry.store.create("models/bad/state.json", b"{")
    registry.release("good", "1.0", by="ann")
    await scan.run()
    await scan.run()
    assert [each.id for each in events(registry)] == ["good-1"]
    assert len([each for each in caplog.records if "'bad' raises no events" in each.message]) == 1
    scan.close()


async def test_old_state_that_was_put_back(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a history is shorter than it was, a warning says so, and what comes next raises events again."""
    await scanned(registry)
    publisher(registry, tmp_path)("intent", "1.0")
    registry.release("intent", "1.0", by="ann")
    path = tmp_path / "registry/models/intent/state.json"
    old = path.read_bytes()
    registry.release("intent", "1.0", by="ann")
    registry.release("intent", "1.0", by="ann")
    await scanned(registry)
    path.write_bytes(old)
    again = Registry(registry.store, must_exist=True)
    await scanned(again)
    assert "an old state was put back" in caplog.text


async def test_change_made_here_is_told_at_once(registry: Registry) -> None:
    """A gateway raises the event of its own change without a look; the look then raises none twice."""
    scan = HistoryScan(registry)
    entry = HistoryEntry(generation=1, op_id="x", at=NOW, by="ann", kind="label", label="PROD", to_version="1.0")
    scan.changed("intent", entry)
    scan.changed("intent", entry.model_copy(update={"kind": "serving", "generation": 2}))
    scan._thread.shutdown(wait=True)
    scan.changed("intent", entry)  # of a gateway that has ended: nothing, and no error
    assert [each.id for each in events(registry)] == ["intent-1"]
