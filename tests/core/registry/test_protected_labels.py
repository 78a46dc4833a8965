"""Protected labels: what a move asks for, who may agree to it, and what does not hold it up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidInput, LabelProtected, ProofMissing, StateConflict
from marway.objects import DirectoryStore
from marway.proofs.replays import REPLAY_LIMITS, Replay, ReplayCounts
from marway.protection.freezes import Freeze
from marway.records import HistoryEntry, ModelState, Proof, VersionRecord, utc_now
from marway.registry import Registry
from support.registry import Publish


def release(registry: Registry, version: str, by: str = "ana@laptop", **more: object) -> HistoryEntry:
    return registry.release("intent", version, by=by, **more).entry  # type: ignore[arg-type]


def proved(registry: Registry, record: VersionRecord, server: str = "torchserve", **more: object) -> None:
    facts = {"archive_sha256": record.archive.sha256, "server": server, "golden_sha256": record.golden_sha256}
    registry.prove(
        Proof.model_validate({"kind": "pod", "duration_s": 1, "at": utc_now(), "by": "pod", **facts, **more})
    )


@pytest.fixture(autouse=True)
def versions(registry: Registry, publish: Publish) -> list[VersionRecord]:
    """intent 1, 2 and 3 of the publisher 'pub', PROD at 1."""
    made = [publish("intent", version, publisher="pub@ci") for version in "123"]
    release(registry, "1")
    return made


def test_sign_off_by_others(registry: Registry) -> None:
    """A label that asks for two approvals moves when two others than publisher and mover agreed, and says who."""
    registry.protect("intent", approvals=2, by="root")
    with pytest.raises(LabelProtected, match=r"0 of 2 approvals: others than pub@ci and ana@laptop run `marway"):
        release(registry, "2")
    with pytest.raises(StateConflict, match="others have to agree"):
        registry.approve("intent", "2", by="PUB@desk")
    registry.approve("intent", "2", by="ana@laptop")  # who moves it in the end: her own does not count
    registry.approve("intent", "2", by="bo@desk")
    registry.approve("intent", "2", by="bo@home", note="again")
    with pytest.raises(LabelProtected, match=r"1 of 2 approvals \(bo@home\).*PROD stays at 1"):
        release(registry, "2")
    with pytest.raises(LabelProtected):
        release(registry, "2", forced=True)
    registry.approve("intent", "2", by="cy@desk")
    entry = release(registry, "2")
    assert (entry.approved_by, entry.from_version, entry.to_version) == (("bo@home", "cy@desk"), "1", "2")
    assert registry.protection("intent").versions == []


def test_approvals_are_bound_to_the_version_and_end_with_the_move(registry: Registry) -> None:
    """What was agreed to one version says nothing of another, nor of the same one after it was rolled back."""
    registry.protect("intent", approvals=1, by="root")
    registry.approve("intent", "2", by="bo")
    with pytest.raises(LabelProtected):
        release(registry, "3")
    release(registry, "2")
    assert registry.rollback("intent", by="ana").entry.to_version == "1"
    with pytest.raises(LabelProtected, match="0 of 1 approvals"):
        release(registry, "2")


def test_an_approval_is_taken_back(registry: Registry) -> None:
    """Who agreed may withdraw that, and nobody else can for him."""
    registry.protect("intent", approvals=1, by="root")
    registry.approve("intent", "2", by="bo")
    with pytest.raises(StateConflict, match="cy has not agreed"):
        registry.approve("intent", "2", withdraw=True, by="cy")
    registry.approve("intent", "2", withdraw=True, by="bo")
    with pytest.raises(LabelProtected):
        release(registry, "2")


def test_asking_is_said_once(registry: Registry) -> None:
    """A refused move asks for sign-off once in the history; where approvals are not what is missing it asks nobody."""
    registry.protect("intent", approvals=1, require=["pod"], by="root")
    for _ in range(2):
        with pytest.raises(LabelProtected, match=r"\(1\) 0 of 1 approvals.*\(2\) a proof by a pod: `marway load"):
            release(registry, "2")
    said = [entry for entry in registry.history("intent") if entry.protection and entry.protection.action == "ask"]
    assert [(each.by, each.protection and each.protection.version) for each in said] == [("ana@laptop", "2")]
    registry.approve("intent", "3", by="bo")
    with pytest.raises(LabelProtected, match="a proof by a pod"):
        release(registry, "3")
    assert len(list(registry.history("intent"))) == 4


def test_required_proofs(registry: Registry, versions: list[VersionRecord]) -> None:
    """Proofs of pods of both engines are asked for, forced or not, and each that is missing is named."""
    registry.protect("intent", require=["engines"], by="root")
    proved(registry, versions[1])
    with pytest.raises(LabelProtected, match="still of native: `marway load intent/2 --prove --pod POD`"):
        release(registry, "2", forced=True)
    proved(registry, versions[1], "native")
    assert release(registry, "2").to_version == "2"


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"base": "3"}, False),
        ({"model": "other"}, False),
        ({"broken_off": "Ctrl-C"}, False),
        ({"breaches": ("errors",)}, False),
        ({"counts": ReplayCounts(compared=99)}, False),
        ({"limits": {**REPLAY_LIMITS, "errors": 0.5}}, False),
        ({"limits": {"errors": 0.01}}, False),
    ],
)
def test_which_replays_count(
    registry: Registry, versions: list[VersionRecord], changes: dict[str, Any], counts: bool
) -> None:
    """A replay is a proof where it is against the label's version, large enough, whole, and as strict as usual."""
    registry.protect("intent", require=["replay"], by="root")
    at = utc_now()
    facts = {"model": "intent", "base": "1", "candidate": "2", "since": at, "until": at, "inputs": 100}
    facts |= {"counts": ReplayCounts(compared=100), "limits": REPLAY_LIMITS}
    proved(registry, versions[1], "gateway", kind="replay", replay=Replay.model_validate({**facts, **changes}))
    if counts:
        assert release(registry, "2").to_version == "2"
    else:
        with pytest.raises(LabelProtected, match="a replay of 100 kept inputs or more against 1, within"):
            release(registry, "2")


def test_freeze_windows(registry: Registry) -> None:
    """A label does not move within a window; a rollback does, and so does the label when the window is taken away."""
    release(registry, "2")
    registry.protect("intent", freeze=["2020-01-01 00:00-2099-01-01 08:00 Europe/Berlin"], by="root")
    with pytest.raises(LabelProtected, match="lasts until Thu 2099-01-01 08:00 CET"):
        release(registry, "3")
    assert registry.rollback("intent", by="ana").entry.to_version == "1"
    with pytest.raises(InvalidInput, match="would ask for nothing"):
        registry.protect("intent", freeze=[], by="root")
    registry.unprotect("intent", by="root")
    release(registry, "3")


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        ("2026-11-27 14:59", None),
        ("2026-11-27 15:00", "2026-11-30 07:00"),
        ("2026-11-29 23:00", "2026-11-30 07:00"),
        ("2026-11-30 06:59", "2026-11-30 07:00"),
        ("2026-11-30 07:00", None),
        ("2026-03-29 12:00", "2026-03-30 06:00"),  # summer time began that night
    ],
)
def test_weekly_windows_go_by_the_wall_clock(now: str, ends: str | None) -> None:
    """A window over the week's end begins and ends at the hours of its zone, also where summer time begins within."""
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    found = Freeze.parsed("Fri 16:00-Mon 08:00 Europe/Berlin").until(at)
    assert (found and f"{found.astimezone(UTC):%Y-%m-%d %H:%M}") == ends


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Fri-Mon", "is no freeze window: write 'Fri 16:00-Mon 08:00 Europe/Berlin'"),
        ("Fri 25:00-Mon 08:00 UTC", "there is no time 25:00"),
        ("Fri 16:00-Mon 08:00 Mars/Base", "no time zone 'Mars/Base' is known"),
        ("Fri 16:00-Fri 16:00 UTC", "ends when it begins"),
        ("2027-01-02 00:00-2027-01-01 00:00 UTC", "ends before it begins"),
        ("2027-02-30 00:00-2027-03-01 00:00 UTC", "there is no 2027-02-30"),
    ],
)
def test_windows_that_are_none(registry: Registry, text: str, said: str) -> None:
    """What cannot be a window is refused with how one is written."""
    with pytest.raises(InvalidInput, match=said):
        registry.protect("intent", freeze=[text], by="root")


def test_settings_that_are_not_named_stay(registry: Registry) -> None:
    """Protecting again changes what is named; an op_id is used once; an unknown proof is refused."""
    registry.protect("intent", approvals=2, by="root", op_id="a")
    registry.protect("intent", approvals=2, by="root", op_id="a")
    registry.protect("intent", require=["pod", "pod"], by="root")
    with pytest.raises(InvalidInput, match="there are pod, replay, engines, contracts"):
        registry.protect("intent", require=["luck"], by="root")
    protection = registry.protection("intent").protection
    assert protection is not None
    assert (protection.approvals, protection.require, registry.state("intent").generation) == (2, ("pod",), 3)


def test_a_protected_label_is_not_deleted_with_its_version(registry: Registry) -> None:
    """Deleting by force takes no protected label away."""
    registry.protect("intent", approvals=1, by="root")
    with pytest.raises(LabelProtected, match="move the label to another version first"):
        registry.delete("intent", "1", forced=True, by="ana")


def test_what_only_a_newer_marway_asks_for_holds(registry: Registry, directory: DirectoryStore) -> None:
    """A proof and a window that are not known here refuse the move rather than being passed over."""
    registry.protect("intent", approvals=1, by="root")
    state, tag = registry._state_and_tag("intent")
    protection = state.protection["PROD"].model_copy(update={"approvals": 0, "require": ("luck",), "freeze": ("moon",)})
    registry._replace(
        "models/intent/state.json", state.model_copy(update={"protection": {"PROD": protection}}), str(tag)
    )
    with pytest.raises(LabelProtected, match=r"\(1\) luck, a proof that only a newer.*\(2\) a freeze window that can"):
        release(registry, "2")


def test_readers_from_before_pass_over_it(registry: Registry) -> None:
    """An entry of a protection is a release to where the label is: rollbacks pass over it, and old fields are whole."""
    release(registry, "2")
    entry = registry.protect("intent", approvals=1, by="root").entry
    assert (entry.kind, entry.from_version, entry.to_version) == ("label", "2", "2")
    assert registry.rollback("intent", by="ana").entry.to_version == "1"
    raw = registry.state("intent").model_dump(mode="json")
    assert ModelState.model_validate(raw) == registry.state("intent")


def test_an_unproved_contract_is_no_matter_of_a_label_without_contracts(registry: Registry) -> None:
    """Where no consumer relies on anything, a proved version is released as before."""
    with pytest.raises(ProofMissing, match="no pod has loaded intent 2"):
        release(registry, "2", require_proof=True)


def test_a_rollout_asks_for_the_same(registry: Registry) -> None:
    """A rollout starts and is promoted only where the label may move; what is taken back meanwhile pauses it."""
    registry.protect("intent", approvals=1, by="root")
    with pytest.raises(LabelProtected, match="0 of 1 approvals"):
        registry.start_rollout("intent", "2", steps=(50,), by="ana")
    assert list(registry.store.keys("rollouts/")) == []
    registry.approve("intent", "2", by="bo")
    rollout = registry.start_rollout("intent", "2", steps=(50,), by="ana").entry.rollout
    assert rollout is not None
    registry.approve("intent", "2", withdraw=True, by="bo")
    with pytest.raises(LabelProtected):
        registry.promote_rollout("intent", label="PROD", by="cy")
    stopped = registry.advance_rollout("intent", label="PROD", rollout=str(rollout.id), step=0, by="gateway", op_id="x")
    assert stopped.entry.rollout is not None
    assert (stopped.entry.rollout.action, stopped.state.labels) == ("pause", {"PROD": "1"})
    assert "0 of 1 approvals" in str(stopped.state.traffic["PROD"].reason)
    registry.approve("intent", "2", by="ana")  # who started it: her own does not count
    with pytest.raises(LabelProtected, match="others than pub@ci and cy and ana run"):
        registry.promote_rollout("intent", label="PROD", by="cy")
    registry.approve("intent", "2", by="bo")
    promoted = registry.promote_rollout("intent", label="PROD", by="cy")
    assert (promoted.state.labels, promoted.entry.approved_by) == ({"PROD": "2"}, ("bo",))


class Racing(DirectoryStore):
    """A store in which somebody else changes a state just before the first write of one that is armed."""

    meanwhile: Callable[[], object] | None = None

    def advisory_lock(self, key: str) -> AbstractContextManager[None]:
        return nullcontext()  # as in S3

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().replace(key, data, etag=etag)


def test_fault_sign_off_withdrawn_during_a_release(registry: Registry, directory: DirectoryStore) -> None:
    """Sign-off that is taken back, and a freeze that begins, while a release is being written hold the label."""
    store = Racing(Path(directory.url.removeprefix("file://")))
    racing = Registry(store)
    registry.protect("intent", approvals=1, by="root")
    registry.approve("intent", "2", by="bo")
    store.meanwhile = lambda: registry.approve("intent", "2", withdraw=True, by="bo")
    with pytest.raises(LabelProtected, match="0 of 1 approvals"):
        release(racing, "2")
    registry.approve("intent", "2", by="bo")
    forever = "2020-01-01 00:00-2099-01-01 08:00 UTC"
    store.meanwhile = lambda: registry.protect("intent", freeze=[forever], by="root")
    with pytest.raises(LabelProtected, match="a time at which nothing is frozen"):
        release(racing, "2")
    assert registry.state("intent").labels == {"PROD": "1"}


class Late(DirectoryStore):
    """A store whose own clock says another time than this machine's."""

    def now(self) -> datetime:
        return datetime(2026, 12, 24, 12, tzinfo=UTC)


def test_fault_a_wrong_clock_in_a_freeze_window(registry: Registry, directory: DirectoryStore) -> None:
    """What time it is says the store: a machine whose clock is wrong neither opens a window nor is held by one."""
    late = Registry(Late(Path(directory.url.removeprefix("file://"))))
    registry.protect("intent", freeze=["2026-12-20 00:00-2027-01-02 08:00 UTC"], by="root")
    with pytest.raises(LabelProtected, match="lasts until Sat 2027-01-02 08:00 UTC"):
        release(late, "2")
    registry.protect("intent", freeze=["2026-12-25 00:00-2027-01-02 08:00 UTC"], by="root")
    assert release(late, "2").to_version == "2"
