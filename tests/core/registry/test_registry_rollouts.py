"""Rollouts and shadow copies in the registry: each change once, and none that contradicts another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from marway.errors import InvalidInput, MarwayError, ProofMissing, StateConflict, VersionNotFound
from marway.records import HistoryEntry, Proof, utc_now
from marway.refs import new_ulid
from marway.registry import Change, Registry, keys
from marway.registry.traffic.expiring import ROLLOUT_KEPT
from marway.traffic import GUARDS, RolloutChange, Traffic
from support.registry import Publish

HERE: dict[str, Any] = {"label": "PROD", "by": "test"}


@pytest.fixture(autouse=True)
def versions(registry: Registry, publish: Publish) -> None:
    """intent 1, 2 and 3; PROD is at 1."""
    for version in "123":
        publish("intent", version)
    registry.release("intent", "1", by="test")


def traffic(registry: Registry) -> Traffic | None:
    return registry.state("intent").traffic.get("PROD")


def start(registry: Registry, candidate: str = "2", **more: Any) -> str:
    change = registry.start_rollout("intent", candidate, **{**HERE, **more})
    return done(change).id or ""


def done(change: Change) -> RolloutChange:
    assert change.entry.rollout is not None
    return change.entry.rollout


def at(registry: Registry) -> str:
    return registry.state("intent").labels["PROD"]


def newest(registry: Registry) -> HistoryEntry:
    return next(registry.history("intent"))


def test_started(registry: Registry) -> None:
    """A rollout begins at its first step, beside the label, with every guard and copies for the candidate."""
    rollout = start(registry, steps=(2, 10), note="smaller")
    now = traffic(registry)
    assert now is not None
    assert (now.rollout, now.base, now.candidate, now.percent, now.step) == (rollout, "1", "2", 2, 0)
    assert now.steps == (2, 10, 100)
    assert set(now.guards) == set(GUARDS) - {"quality"}  # no rule says what that is
    assert [(rule.version, rule.percent) for rule in now.shadow] == [("2", 100)]
    assert at(registry) == "1"
    entry = newest(registry)
    assert (entry.kind, entry.from_version, entry.to_version, entry.note) == ("label", "1", "1", "smaller")
    assert entry.rollout == RolloutChange(id=rollout, action="start", candidate="2", percent=2)
    assert registry.store.size(keys.rollout_key("intent", rollout)) is not None


def test_steps_to_the_label(registry: Registry) -> None:
    """Step by step, the last of which moves the label and ends the rollout; a rollback then goes back to the base."""
    rollout = start(registry, steps=(1, 50))
    moved = registry.advance_rollout("intent", rollout=rollout, step=0, **HERE)
    assert (done(moved).action, done(moved).step, done(moved).percent, at(registry)) == ("step", 1, 50, "1")
    promoted = registry.advance_rollout("intent", rollout=rollout, step=1, **HERE)
    assert (done(promoted).action, done(promoted).percent) == ("promote", 100)
    assert (promoted.entry.from_version, promoted.entry.to_version, at(registry)) == ("1", "2", "2")
    assert traffic(registry) is None
    registry.rollback("intent", by="test")
    assert at(registry) == "1"


@pytest.mark.parametrize(
    ("operation", "action"),
    [("roll_back_rollout", "roll_back"), ("abort_rollout", "abort"), ("promote_rollout", "promote")],
)
def test_ended(registry: Registry, operation: str, action: str) -> None:
    """Each end leaves one entry and no rollout, after which nothing can be done to it."""
    start(registry)
    before = registry.state("intent").generation
    change = getattr(registry, operation)("intent", reason="seen enough", **HERE)
    assert (done(change).action, done(change).reason) == (action, "seen enough")
    assert registry.state("intent").generation == before + 1
    assert (traffic(registry), at(registry)) == (None, "2" if action == "promote" else "1")
    with pytest.raises(StateConflict, match=r"no rollout of intent to PROD runs"):
        getattr(registry, operation)("intent", **HERE)


def test_paused_and_resumed(registry: Registry) -> None:
    """A paused rollout does not go on by itself; resumed, its step begins again."""
    rollout = start(registry)
    with pytest.raises(StateConflict, match="is running, not paused"):
        registry.resume_rollout("intent", **HERE)
    registry.pause_rollout("intent", rollout=rollout, step=0, guard="errors", reason="unclear", **HERE)
    paused = traffic(registry)
    assert paused is not None
    assert (paused.status, paused.reason, paused.percent) == ("paused", "unclear", 1)
    with pytest.raises(StateConflict, match="is paused, not running: unclear"):
        registry.advance_rollout("intent", rollout=rollout, step=0, **HERE)
    registry.resume_rollout("intent", **HERE)
    resumed = traffic(registry)
    assert resumed is not None
    assert (resumed.status, resumed.reason) == ("running", None)
    assert resumed.step_began > paused.step_began


def test_one_of_many_applies_a_verdict(registry: Registry) -> None:
    """Of many who see one verdict one applies it; the others are told that it is not at that step any more."""
    rollout = start(registry)

    def advance(number: int) -> bool:
        try:
            registry.advance_rollout("intent", label="PROD", rollout=rollout, step=0, by=f"gateway-{number}")
        except StateConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(advance, range(8))) == 1
    now = traffic(registry)
    assert now is not None
    assert (now.step, now.percent) == (1, 5)
    assert [each.rollout.action for each in registry.history("intent") if each.rollout] == ["step", "start"]


def test_made_once_under_its_name(registry: Registry) -> None:
    """A change that is asked for again under its op_id is answered with its entry; another one under it is refused."""
    first = registry.start_rollout("intent", "2", op_id="begin", **HERE)
    again = registry.start_rollout("intent", "2", op_id="begin", **HERE)
    assert again.entry == first.entry
    rollout = done(first).id or ""
    verdict = registry.roll_back_rollout("intent", rollout=rollout, step=0, op_id="verdict", **HERE)
    assert registry.roll_back_rollout("intent", rollout=rollout, step=0, op_id="verdict", **HERE).entry == verdict.entry
    assert registry.rollback("intent", op_id="verdict", by="test").entry == verdict.entry
    for other in (registry.abort_rollout, registry.promote_rollout):
        with pytest.raises(InvalidInput, match="used for another change"):
            other("intent", op_id="verdict", **HERE)
    with pytest.raises(InvalidInput, match="used for another change"):
        registry.start_rollout("intent", "3", op_id="begin", **HERE)
    with pytest.raises(InvalidInput, match="used for another change"):
        registry.release("intent", "1", op_id="verdict", by="test")
    assert len(list(registry.history("intent"))) == 3


def test_another_rollout_is_not_changed(registry: Registry) -> None:
    """A verdict about a rollout that is over does nothing to the one that runs now."""
    old = start(registry)
    registry.abort_rollout("intent", **HERE)
    start(registry, "3")
    with pytest.raises(StateConflict, match="another rollout of intent to PROD runs now, of 3"):
        registry.roll_back_rollout("intent", rollout=old, **HERE)


def test_rollback_of_a_label_that_is_divided(registry: Registry) -> None:
    """`rollback` during a rollout ends it and leaves the label; the next one goes back as if it had never been."""
    registry.release("intent", "3", by="test")
    start(registry)
    change = registry.rollback("intent", note="odd", by="test")
    assert (change.entry.kind, done(change).action, at(registry)) == ("label", "roll_back", "3")
    registry.rollback("intent", by="test")
    assert at(registry) == "1"


def test_what_contradicts_a_rollout_is_refused(registry: Registry) -> None:
    """While a rollout runs the label is not moved by hand, and its versions are not deleted, forced or not."""
    start(registry)
    for forced in (False, True):
        with pytest.raises(StateConflict, match="marway rollout abort intent --label PROD"):
            registry.release("intent", "3", forced=forced, by="test")
        with pytest.raises(StateConflict, match="marway rollout promote intent --label PROD"):
            registry.release("intent", "2", forced=forced, by="test")
        for version in "12":
            with pytest.raises(StateConflict, match="end it first"):
                registry.delete("intent", version, forced=forced, by="test")
    with pytest.raises(StateConflict, match="promote or abort it first"):
        start(registry, "3")
    registry.release("intent", "3", label="BETA", by="test")
    registry.release("intent", "1", by="test")  # where it is


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"candidate": "1"}, "is at 1 already"),
        ({"label": "BETA"}, "BETA is not set"),
        ({"if_currently": "3"}, "is at 1, not at 3"),
        ({"candidate": "9"}, "no version '9'"),
        ({"steps": (5, 1)}, "growing percents"),
        ({"steps": (100,)}, "growing percents"),
        ({"steps": ()}, "growing percents"),
        ({"steps": (0, 50)}, "growing percents"),
        ({"guards": {"error": None}}, "did you mean 'errors'"),
        ({"guards": {"errors": 0.0}}, "a number above 0"),
        ({"guards": {}}, "would promote anything"),
        ({"guards": {"quality": None}}, "intent 2 has no quality rule"),
        ({"sticky": "cookie"}, "that sticky"),
        ({"alpha": 1.0}, "that alpha"),
        ({"step_time_s": 0}, "that step_time_s"),
        ({"shadow_percent": 101}, "that percent"),
        ({"policy": "thompson", "floor": 50, "cap": 10}, "above the cap"),
        ({"cap": 50}, "bound the percents of a policy"),
        ({"policy": "thompson", "steps": (1, 5, 100)}, "scores say how it goes on"),
        ({"require_proof": True}, "no pod has loaded intent 2"),
    ],
)
def test_refused_before_anything_is_stored(registry: Registry, more: dict[str, Any], says: str) -> None:
    """A rollout that cannot be is refused, with what is wrong, and leaves nothing behind."""
    with pytest.raises(MarwayError, match=says):
        start(registry, **more)
    assert traffic(registry) is None
    assert list(registry.store.keys(keys.ROLLOUTS)) == []


def test_proved_or_forced(registry: Registry) -> None:
    """Where a proof is wanted a proved candidate may begin, and one that is forced, as the history says."""
    with pytest.raises(ProofMissing):
        start(registry, require_proof=True)
    start(registry, "3", require_proof=True, forced=True)
    assert newest(registry).forced
    registry.abort_rollout("intent", **HERE)
    sha256 = registry.record("intent", "2").archive.sha256
    registry.prove(Proof(kind="pod", archive_sha256=sha256, server="torchserve", duration_s=1, at=utc_now(), by="test"))
    start(registry, require_proof=True)
    assert not newest(registry).forced


def test_weights(registry: Registry) -> None:
    """A policy moves the percent between floor and cap; a rollout that goes by steps is left to them."""
    rollout = start(registry)
    with pytest.raises(StateConflict, match="goes by steps"):
        registry.set_weights("intent", rollout=rollout, percent=30, **HERE)
    registry.abort_rollout("intent", **HERE)
    rollout = start(registry, policy="thompson", floor=5, cap=60)
    assert (now := traffic(registry)) is not None
    assert now.percent == 5
    registry.set_weights("intent", rollout=rollout, percent=90, was=5, **HERE)
    assert (now := traffic(registry)) is not None
    assert now.percent == 60
    with pytest.raises(StateConflict, match="is at 60 %, not at 5 %"):
        registry.set_weights("intent", rollout=rollout, percent=10, was=5, **HERE)


def test_shadow_copies(registry: Registry) -> None:
    """Copies start, change and stop, with a rollout or without, and end with what they were for."""
    registry.start_shadow("intent", "3", percent=10, **HERE)
    registry.start_shadow("intent", "3", percent=20, **HERE)
    assert (now := traffic(registry)) is not None
    assert (now.rollout, [(rule.version, rule.percent) for rule in now.shadow]) == (None, [("3", 20)])
    start(registry, shadow_percent=50)
    assert (now := traffic(registry)) is not None
    assert [(rule.version, rule.percent) for rule in now.shadow] == [("3", 20), ("2", 50)]
    registry.promote_rollout("intent", **HERE)
    assert (now := traffic(registry)) is not None
    assert (now.rollout, now.candidate, [rule.version for rule in now.shadow]) == (None, None, ["3"])
    with pytest.raises(StateConflict, match="marway shadow stop intent 3 --label PROD"):
        registry.delete("intent", "3", by="test")
    registry.release("intent", "3", by="test")
    assert traffic(registry) is None
    with pytest.raises(StateConflict, match="no requests of intent PROD are copied"):
        registry.stop_shadow("intent", **HERE)
    registry.start_shadow("intent", "2", **HERE)
    registry.delete("intent", "2", forced=True, by="test")
    assert traffic(registry) is None
    registry.start_shadow("intent", "1", **HERE)
    registry.stop_shadow("intent", "1", **HERE)
    assert traffic(registry) is None
    with pytest.raises(StateConflict, match="is at 3 itself"):
        registry.start_shadow("intent", "3", **HERE)
    with pytest.raises(InvalidInput, match="0 % is no copy"):
        registry.start_shadow("intent", "1", percent=0, **HERE)
    with pytest.raises(VersionNotFound):
        registry.start_shadow("intent", "2", **HERE)


def test_a_label_that_goes_takes_its_copies_along(registry: Registry) -> None:
    """A version that is deleted with its label leaves no copies of requests that nobody can make."""
    registry.start_shadow("intent", "3", **HERE)
    registry.delete("intent", "1", forced=True, by="test")
    assert registry.state("intent").traffic == {}


def test_what_is_kept_of_old_rollouts_goes(registry: Registry) -> None:
    """gc takes what is beside a rollout that is long over, all at once, and nothing of one that runs, however old."""
    over, runs = start(registry), ""
    registry.store.create(f"{keys.evidence_prefix('intent', over)}a.json", b"{}")
    registry.abort_rollout("intent", **HERE)
    runs = start(registry)
    assert registry.gc(now=utc_now() + ROLLOUT_KEPT - timedelta(hours=1)).expired == []
    later = utc_now() + ROLLOUT_KEPT + timedelta(hours=1)
    old = [f"{keys.evidence_prefix('intent', over)}a.json", keys.rollout_key("intent", over)]
    assert registry.gc(now=later, dry_run=True).expired == old
    assert registry.gc(now=later).expired == old
    assert list(registry.store.keys(keys.ROLLOUTS)) == [keys.rollout_key("intent", runs)]
    status, _ = registry.rollout_status("intent", rollout=over)
    assert (status.state, status.steps, [move.action for move in status.changes]) == ("aborted", (), ["start", "abort"])


def test_older_readers(registry: Registry) -> None:
    """Who knows of no rollouts reads a label that stays, and keeps what he does not know when he writes."""
    rollout = start(registry)
    entry = newest(registry).model_dump(mode="json", by_alias=True)
    assert entry["rollout"]["id"] == rollout
    old = {name: value for name, value in entry.items() if name != "rollout"}
    assert (old["kind"], old["from"], old["to"]) == ("label", "1", "1")
    registry.set_serving("intent", set_fields={"pinned": True}, by="test")
    assert traffic(registry) is not None


def test_a_label_that_an_older_marway_moved(registry: Registry) -> None:
    """A rollout whose label was moved under it is not promoted over that; it can be aborted."""
    start(registry)
    state, tag = registry._state_and_tag("intent")
    moved = state.model_copy(update={"generation": state.generation + 1, "labels": {"PROD": "3"}})
    registry._replace(keys.state_key("intent"), moved, tag or "")
    with pytest.raises(StateConflict, match="is at 3 and not at 1"):
        registry.promote_rollout("intent", **HERE)
    registry.abort_rollout("intent", **HERE)
    assert (at(registry), traffic(registry)) == ("3", None)


def test_a_refused_name_for_a_rollout(registry: Registry) -> None:
    """A rollout may be given its id, as whoever stores evidence beside it needs it first."""
    wanted = new_ulid()
    assert start(registry, rollout=wanted) == wanted
