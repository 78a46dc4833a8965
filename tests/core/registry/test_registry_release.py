"""Releasing: labels, rollback, serving settings, deleting, and the history of it all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marway.errors import (
    InvalidInput,
    InvalidRecord,
    InvalidReference,
    LabelNotFound,
    LabelProtected,
    ModelNotFound,
    ProofMissing,
    StateConflict,
    VersionConflict,
    VersionNotFound,
)
from marway.objects import DirectoryStore, open_store
from marway.records import HistoryEntry, Proof, utc_now
from marway.refs import Reference
from marway.registry import Registry, history
from marway.serving import ServingSettings
from support.registry import Publish, publisher


def release(registry: Registry, version: str, **more: object) -> HistoryEntry:
    return registry.release("intent", version, by="test", **more).entry  # type: ignore[arg-type]


def at(registry: Registry, label: str = "PROD") -> str:
    return registry.state("intent").labels[label]


@pytest.fixture
def versions(publish: Publish) -> None:
    """intent 1, 2 and 3."""
    for version in "123":
        publish("intent", version)


def test_release(store_url: str, tmp_path: Path) -> None:
    """A label moves, the reference follows it, and the history says from where to where, in any store."""
    registry = Registry(open_store(store_url))
    publish = publisher(registry, tmp_path)
    publish("intent", "1")
    publish("intent", "2")
    release(registry, "1")
    entry = release(registry, "2", note="better")
    assert registry.resolve(Reference("intent")).version == "2"
    assert (entry.from_version, entry.to_version, entry.note, entry.kind) == ("1", "2", "better", "label")
    assert [each.generation for each in registry.history("intent")] == [2, 1]


def test_labels_are_separate(registry: Registry, versions: None) -> None:
    """Labels of one model move apart from one another."""
    release(registry, "1")
    release(registry, "2", label="STG")
    assert (at(registry), at(registry, "STG")) == ("1", "2")


def test_nothing_to_change(registry: Registry, versions: None) -> None:
    """A release to where the label is already is acknowledged and in the history."""
    release(registry, "1")
    assert release(registry, "1").from_version == "1"
    assert registry.state("intent").generation == 2


def test_if_currently(registry: Registry, versions: None) -> None:
    """A release on condition of where the label is moves it only from there."""
    release(registry, "1")
    with pytest.raises(StateConflict, match="PROD is at 1, not at 2: nothing changed"):
        release(registry, "3", if_currently="2")
    assert at(registry) == "1"
    release(registry, "3", if_currently="1")
    with pytest.raises(StateConflict, match="PROD is at 3"):
        registry.rollback("intent", if_currently="1", by="test")


def test_not_there(registry: Registry, versions: None) -> None:
    """A release of what does not exist is refused with what does."""
    with pytest.raises(VersionNotFound, match="it has 1, 2, 3"):
        release(registry, "4")
    with pytest.raises(ModelNotFound, match="the registry has intent"):
        registry.release("other", "1", by="test")
    with pytest.raises(LabelNotFound, match="its versions are 1, 2, 3"):
        registry.resolve(Reference("intent"))
    with pytest.raises(InvalidReference):
        release(registry, "1", label="prod")


def test_id_instead_of_a_name(registry: Registry, publish: Publish) -> None:
    """A release that names a model by a version's id is refused with the model's name."""
    publish("intent", "1", id="run-7")
    with pytest.raises(ModelNotFound, match="'run-7' is the id of intent 1"):
        registry.release("run-7", "1", by="test")


def test_proof_required(registry: Registry, publish: Publish) -> None:
    """Where proofs are required a label moves only to a version that a pod has proved, or by force."""
    record = publish("intent", "1", golden=b"answers")
    with pytest.raises(ProofMissing, match="--force"):
        release(registry, "1", require_proof=True)
    proof = Proof(
        kind="pack", archive_sha256=record.archive.sha256, server="torchserve", duration_s=1, at=utc_now(), by="test"
    )
    registry.prove(proof)
    registry.prove(proof.model_copy(update={"kind": "pod"}))  # of a load that checked no answers
    with pytest.raises(ProofMissing):
        release(registry, "1", require_proof=True)
    assert release(registry, "1", require_proof=True, forced=True).forced
    registry.prove(proof.model_copy(update={"kind": "pod", "golden_sha256": record.golden_sha256}))
    assert not release(registry, "1", require_proof=True).forced


def test_a_first_release_without_proof(registry: Registry, publish: Publish) -> None:
    """A label that points nowhere is set without a proof if that is asked for, called forced; it moves no further."""
    for version in ("1", "2"):
        publish("intent", version)
    first = release(registry, "1", require_proof=True, unproved_first=True)
    assert (first.forced, first.from_version) == (True, None)
    assert release(registry, "1", require_proof=True, unproved_first=True).from_version == "1"
    with pytest.raises(ProofMissing, match="so PROD stays at 1"):
        release(registry, "2", require_proof=True, unproved_first=True)
    assert registry.state("intent").labels == {"PROD": "1"}


def test_an_op_id_is_used_once(registry: Registry, versions: None) -> None:
    """A change made under an op_id is not made again, whatever came later; for another change it is refused."""
    done = [
        lambda: registry.release("intent", "1", op_id="a", by="test"),
        lambda: registry.release("intent", "2", op_id="b", if_currently="1", by="test"),
        lambda: registry.rollback("intent", op_id="c", by="test"),
        lambda: registry.set_serving("intent", set_fields={"pods": 2}, op_id="d", by="test"),
        lambda: registry.delete("intent", "3", op_id="e", by="test"),
    ]
    first = [change().entry for change in done]
    registry.release("intent", "2", by="test")
    assert [change().entry for change in done] == first
    assert registry.state("intent").generation == len(done) + 1
    for other in (
        lambda: registry.release("intent", "2", op_id="a", by="test"),
        lambda: registry.release("intent", "1", label="STG", op_id="a", by="test"),
        lambda: registry.rollback("intent", op_id="b", by="test"),
        lambda: registry.set_serving("intent", set_fields={"pods": 3}, op_id="d", by="test"),
        lambda: registry.delete("intent", "1", op_id="e", by="test"),
    ):
        with pytest.raises(InvalidInput, match="was used for another change"):
            other()
    with pytest.raises(InvalidInput, match="cannot be an op_id"):
        registry.release("intent", "1", op_id="no spaces", by="test")


def test_an_op_id_is_found_behind_others(registry: Registry, versions: None) -> None:
    """A repeated change is known after a hundred others as well."""
    first = registry.release("intent", "1", op_id="a", by="test").entry
    for number in range(99):
        registry.release("intent", "12"[number % 2], by="test")
    assert registry.release("intent", "1", op_id="a", by="test").entry == first


def test_delete_by_force(registry: Registry, versions: None) -> None:
    """A forced deletion takes the labels with it, and a rollback goes on where they were before."""
    for version in ("1", "2"):
        release(registry, version)
    registry.release("intent", "2", label="STG", by="test")
    assert registry.delete("intent", "2", forced=True, by="test").entry.forced
    assert registry.state("intent").labels == {}
    assert registry.rollback("intent", by="test").entry.to_version == "1"


def test_rollback(registry: Registry, versions: None) -> None:
    """Each rollback undoes one release more, and a release after it is undone first."""
    for version in "123":
        release(registry, version)
    entry = registry.rollback("intent", note="broken", by="test").entry
    assert (entry.kind, entry.from_version, entry.to_version) == ("rollback", "3", "2")
    release(registry, "3")
    assert [registry.rollback("intent", by="test").entry.to_version for _ in range(2)] == ["2", "1"]
    with pytest.raises(StateConflict, match="nothing to go back to: 1 was its first release"):
        registry.rollback("intent", by="test")


def test_rollback_passes_over_what_changed_nothing(registry: Registry, versions: None) -> None:
    """A release that left the label where it was is not what a rollback undoes."""
    for version in ("1", "2", "2"):
        release(registry, version)
    assert registry.rollback("intent", by="test").entry.to_version == "1"


def test_rollback_of_one_label(registry: Registry, versions: None) -> None:
    """A rollback looks at its own label's releases only."""
    release(registry, "1")
    release(registry, "2")
    release(registry, "3", label="STG")
    assert registry.rollback("intent", by="test").entry.to_version == "1"
    with pytest.raises(StateConflict, match="QA has nothing to go back to: it was never released"):
        registry.rollback("intent", label="QA", by="test")


def test_rollback_to_an_earlier_version(registry: Registry, versions: None) -> None:
    """`to` names a version that had the label, however long ago; others are refused, with those that had it."""
    for version in "123":
        release(registry, version)
    entry = registry.rollback("intent", to="1", note="all broken", op_id="back", by="test").entry
    assert (entry.kind, entry.from_version, entry.to_version, entry.undone) == ("rollback", "3", "1", 2)
    assert registry.rollback("intent", to="1", note="all broken", op_id="back", by="test").entry == entry
    with pytest.raises(InvalidInput, match="used for another change"):
        registry.rollback("intent", to="2", op_id="back", by="test")
    with pytest.raises(StateConflict, match="1 was its first release"):
        registry.rollback("intent", by="test")
    with pytest.raises(StateConflict, match="is at 1: nothing to go back"):
        registry.rollback("intent", to="1", by="test")
    with pytest.raises(StateConflict, match="never at 4: it was at 3, 2; `marway release`"):
        registry.rollback("intent", to="4", by="test")
    assert registry.rollback("intent", to="3", by="test").entry.undone == 0
    assert registry.rollback("intent", by="test").entry.to_version == "1"


def test_rollback_to_a_version_while_a_rollout_runs(registry: Registry, versions: None) -> None:
    """A rollout decides where the label goes: it has to be ended first."""
    for version in "12":
        release(registry, version)
    registry.start_rollout("intent", "3", label="PROD", by="test")
    with pytest.raises(StateConflict, match="rollout"):
        registry.rollback("intent", to="1", by="test")


def test_delete_a_model(registry: Registry, versions: None) -> None:
    """A model is deleted whole, by force with its labels; the name can be used again, for other versions."""
    release(registry, "2")
    with pytest.raises(StateConflict, match=r"intent is served \(PROD → 2\)"):
        list(registry.delete_model("intent", by="test"))
    assert registry.state("intent").tombstones == {}
    done = list(registry.delete_model("intent", forced=True, note="retired", op_id="gone", by="test"))
    assert [each.entry.from_version for each in done] == list(registry.versions("intent"))
    assert registry.summary("intent").versions == ()
    assert registry.state("intent").labels == {}
    assert list(registry.delete_model("intent", forced=True, by="test")) == []
    assert [each.name for each in registry.summaries()] == []


def test_deletions_before_a_failure_are_known(registry: Registry, versions: None) -> None:
    """Whoever deletes a model has each change as it is made, and goes on behind one that failed."""
    changes = registry.delete_model("intent", by="test")
    done = [next(changes).entry.from_version]
    changes.close()  # what a store that is away does
    assert list(registry.state("intent").tombstones) == done
    rest = [each.entry.from_version for each in registry.delete_model("intent", by="test")]
    assert sorted([*done, *rest], key=str) == sorted(registry.versions("intent"))


def test_a_model_with_a_protected_label_is_not_deleted(registry: Registry, versions: None) -> None:
    """What refuses one version refuses all, before the first is deleted, by force as well."""
    release(registry, "2")
    registry.protect("intent", approvals=1, by="test")
    with pytest.raises(LabelProtected, match="intent 2 is PROD"):
        list(registry.delete_model("intent", forced=True, by="test"))
    assert registry.state("intent").tombstones == {}


def test_rollback_to_a_deleted_version(registry: Registry, versions: None) -> None:
    """A rollback to a version that was deleted is refused."""
    release(registry, "1")
    release(registry, "2")
    registry.delete("intent", "1", by="test")
    with pytest.raises(VersionNotFound, match="intent 1 was deleted"):
        registry.rollback("intent", by="test")
    assert at(registry) == "2"


@settings(max_examples=30, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.sampled_from(["1", "2", "3", None, "to 1", "to 2", "to 3"]), max_size=12))
def test_rollback_is_a_stack(tmp_path_factory: pytest.TempPathFactory, moves: list[str | None]) -> None:
    """Whatever the order of releases, rollbacks (None) and rollbacks to a version, each leads where undoing step by
    step leads; one to a version that is undone itself is a step that can be undone.
    """
    scratch = tmp_path_factory.mktemp("stack")
    registry = Registry(DirectoryStore(scratch / "registry"))
    publish = publisher(registry, scratch)
    for version in "123":
        publish("intent", version)
    stack: list[str] = []
    had: set[str] = set()
    for version in moves:
        had.update(stack)
        if version is not None and version.startswith("to "):
            version = version.removeprefix("to ")
            if version in stack[-1:] or version not in had:
                with pytest.raises(StateConflict):
                    registry.rollback("intent", to=version, by="test")
                continue
            back = list(reversed(stack)).index(version) if version in stack else 0
            stack = stack[: len(stack) - back] if back else [*stack, version]
            entry = registry.rollback("intent", to=version, by="test").entry
            assert (entry.to_version, entry.undone) == (version, back)
        elif version is not None:
            release(registry, version)
            if stack[-1:] != [version]:
                stack.append(version)
        elif len(stack) < 2:
            with pytest.raises(StateConflict):
                registry.rollback("intent", by="test")
        else:
            stack.pop()
            assert registry.rollback("intent", by="test").entry.to_version == stack[-1]
    assert registry.state("intent").labels.get("PROD") == (stack[-1] if stack else None)


def test_serving(registry: Registry, publish: Publish) -> None:
    """An override for all versions is under that of one version, which is over the record."""
    record = publish("intent", "1", serving=ServingSettings(max_batch_rows=8, pods=2))
    registry.set_serving("intent", set_fields={"max_batch_rows": 16, "min_workers": 2}, by="test")
    registry.set_serving("intent", version="1", set_fields={"max_batch_rows": 4}, by="test")
    served = registry.state("intent").serving_for(record)
    assert (served.max_batch_rows, served.min_workers, served.pods) == (4, 2, 2)


def test_unset_serving(registry: Registry, publish: Publish) -> None:
    """Unsetting an override lets the next one under it count again, and the history says what was done."""
    record = publish("intent", "1", serving=ServingSettings(max_batch_rows=8))
    registry.set_serving("intent", version="1", set_fields={"max_batch_rows": 4, "pinned": True}, by="test")
    entry = registry.set_serving("intent", version="1", unset=["max_batch_rows"], by="test").entry
    assert registry.state("intent").serving_for(record).max_batch_rows == 8
    assert entry.serving is not None
    assert (entry.serving.version, entry.serving.unset) == ("1", ("max_batch_rows",))
    registry.set_serving("intent", version="1", unset=["pinned", "pods"], by="test")
    assert dict(registry.state("intent").serving) == {}


@pytest.mark.parametrize(
    ("fields", "unset", "message"),
    [
        ({"batch": 1}, [], "there is no serving setting 'batch': there are .*max_batch_rows"),
        ({}, ["batch"], "there is no serving setting 'batch'"),
        ({"max_batch_rows": 0}, [], "'max_batch_rows': Input should be greater than or equal to 1"),
        ({"pinned": "perhaps"}, [], "'pinned': Input should be a valid boolean"),
        ({"pods": 1}, ["pods"], "'pods' is both set and unset"),
        ({"min_workers": 4, "max_workers": 2}, [], "'min_workers' would be 4, more than 'max_workers', which is 2"),
    ],
)
def test_bad_serving(
    registry: Registry, versions: None, fields: dict[str, object], unset: list[str], message: str
) -> None:
    """A serving setting that does not exist or cannot have that value is refused, and nothing is changed."""
    with pytest.raises(InvalidInput, match=message):
        registry.set_serving("intent", set_fields=fields, unset=unset, by="test")
    assert registry.state("intent").generation == 0


def test_serving_with_the_record(registry: Registry, publish: Publish) -> None:
    """An override that does not go with the record's own settings is refused."""
    publish("intent", "1", serving=ServingSettings(max_workers=2))
    with pytest.raises(InvalidInput, match="'min_workers' would be 4"):
        registry.set_serving("intent", version="1", set_fields={"min_workers": 4}, by="test")


def test_delete(registry: Registry, versions: None, publish: Publish) -> None:
    """A deleted version is refused everywhere, and never comes back."""
    registry.delete("intent", "2", note="bad data", by="test")
    deleted = r"intent 2 was deleted on [\d-]+ [\d:]+ UTC by test \(bad data\)"
    for act in (
        lambda: registry.resolve(Reference("intent", "2")),
        lambda: release(registry, "2"),
        lambda: registry.set_serving("intent", version="2", set_fields={"pods": 2}, by="test"),
    ):
        with pytest.raises(VersionNotFound, match=rf"{deleted}: versions left are 1, 3"):
            act()
    for data in (None, b"other bytes"):
        with pytest.raises(VersionConflict, match=rf"{deleted}, and a deleted version never comes back: publish"):
            publish("intent", "2", data=data)
    assert [row.versions for row in registry.summaries()] == [("1", "3")]


def test_delete_a_labelled_version(registry: Registry, versions: None) -> None:
    """A version that a label points at cannot be deleted."""
    release(registry, "1")
    release(registry, "1", label="STG")
    with pytest.raises(StateConflict, match="intent 1 is PROD, STG: move the label"):
        registry.delete("intent", "1", by="test")
    assert registry.resolve(Reference("intent")).version == "1"


def test_long_note(registry: Registry, versions: None) -> None:
    """A note that every reader of the state would have to carry is refused when it is too long."""
    with pytest.raises(InvalidInput, match="at most 1000 are kept"):
        release(registry, "1", note="x" * 1001)


def test_spilled_history(registry: Registry, versions: None) -> None:
    """Older entries move to objects of their own; the history still tells all, and rollback still finds them."""
    release(registry, "1")
    release(registry, "2", label="STG")
    for number in range(2 * history.CHUNK + 50):
        registry.set_serving("intent", set_fields={"pods": number % 3 + 1}, by="test")
    release(registry, "3")
    state = registry.state("intent")
    assert len(state.history) < 2 * history.CHUNK
    assert list(registry._store.keys("models/intent/history/")) == ["models/intent/history/000000000001.json"]
    total = 2 * history.CHUNK + 53
    assert [entry.generation for entry in registry.history("intent")] == list(range(total, 0, -1))
    assert registry.rollback("intent", by="test").entry.to_version == "1"
    with pytest.raises(StateConflict, match="2 was its first release"):
        registry.rollback("intent", label="STG", by="test")


def test_lost_reply_of_a_spilled_entry(registry: Registry, versions: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer whose reply was lost finds its op_id also after so many others wrote that it is in a chunk."""
    monkeypatch.setattr("marway.objects.directory._LOCK_WAIT_S", 0.0)  # the others write during this writer's turn
    real = registry._store.replace
    release(registry, "1")

    def lose(key: str, data: bytes, *, etag: str) -> str:
        registry._store.replace = real  # type: ignore[method-assign]
        real(key, data, etag=etag)
        for number in range(2 * history.CHUNK + 10):
            registry.set_serving("intent", set_fields={"pods": number % 3 + 1}, by="others")
        return real(key, data, etag=etag)  # what the SDK would have done: refused because of itself

    registry._store.replace = lose  # type: ignore[method-assign]
    entry = release(registry, "2")
    assert [each.op_id for each in registry.history("intent")].count(entry.op_id) == 1
    assert entry.generation == 2
    assert registry.state("intent").history[0].generation > 2


def test_histories_that_differ(registry: Registry, versions: None) -> None:
    """A chunk that tells another history than the state is reported, and nothing is lost."""
    registry._store.create("models/intent/history/000000000001.json", b'{"format": 1, "entries": []}')
    for number in range(2 * history.CHUNK - 1):
        registry.set_serving("intent", set_fields={"pods": number % 3 + 1}, by="test")
    with pytest.raises(InvalidRecord, match="tell different histories"):
        release(registry, "1")
    assert registry.state("intent").generation == 2 * history.CHUNK - 1
