"""Contracts of consumers in the registry: kept, replaced, removed, collected; and what a release asks for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from marway.direct_release import release_directly
from marway.errors import InvalidInput, InvalidRecord, NotFound, ProofMissing
from marway.objects import DirectoryStore
from marway.protection.contracts import Contract
from marway.records import Proof, VersionRecord, utc_now
from marway.registry import Registry
from support.registry import Publish


def contract(name: str = "alarm", **facts: Any) -> Contract:
    given = {"consumer": "search", "name": name, "input_b64": "eA==", "content_type": "text/plain", "kind": "json"}
    return Contract.model_validate({**given, "value": {"label": "alarm"}, "by": "ana", "at": utc_now(), **facts})


@pytest.fixture(autouse=True)
def record(registry: Registry, publish: Publish) -> VersionRecord:
    """intent 1 at PROD, and 2, which a pod has proved."""
    publish("intent", "1")
    registry.release("intent", "1", by="test")
    made = publish("intent", "2")
    registry.prove(proof(made, "pod"))
    return made


def proof(record: VersionRecord, kind: str, **facts: Any) -> Proof:
    given = {"archive_sha256": record.archive.sha256, "server": "torchserve", "duration_s": 1, "by": "pod pod-0"}
    return Proof.model_validate({"kind": kind, "at": utc_now(), **given, **facts})


def test_a_release_needs_proof_that_contracts_are_kept(registry: Registry, record: VersionRecord) -> None:
    """Without a gateway a label moves only to a version that a pod has seen keep every contract of that label."""
    kept, other = contract(), contract("timer", consumer="shop", labels=("STG",))
    for each in (kept, other):
        registry.add_contract("intent", each)
    with pytest.raises(ProofMissing, match=r"what consumers rely on \(search/alarm\): release it through a gateway"):
        release_directly(registry, "intent", "2", label="PROD", by="ana")
    with pytest.raises(ProofMissing, match="search/alarm"):
        registry.start_rollout("intent", "2", require_proof=True, by="ana")
    registry.prove(proof(record, "contracts", contracts=(kept.sha256,)))
    with pytest.raises(ProofMissing, match=r"\(shop/timer\)"):
        release_directly(registry, "intent", "2", label="STG", by="ana")
    assert release_directly(registry, "intent", "2", label="PROD", by="ana")[0].entry.to_version == "2"
    release_directly(registry, "intent", "2", label="STG", force=True, by="ana")
    assert registry.rollback("intent", by="ana").entry.to_version == "1"  # which nobody has asked


def test_a_protected_label_asks_even_the_forced(registry: Registry, record: VersionRecord) -> None:
    """Where a label requires contracts, force does not pass over them, and the consumers are named."""
    registry.add_contract("intent", contract())
    registry.protect("intent", require=["contracts"], by="root")
    with pytest.raises(Exception, match="contracts of search kept on a pod: `marway contract check intent 2`"):
        registry.release("intent", "2", forced=True, by="ana")
    registry.prove(proof(record, "contracts", contracts=(contract().sha256,)))
    assert registry.release("intent", "2", forced=True, by="ana").entry.to_version == "2"


def test_replacing_and_removing(registry: Registry) -> None:
    """One of the same consumer and name takes the place of the one before; what is left out of the state is gone."""
    registry.add_contract("intent", contract())
    done = registry.add_contract("intent", contract(fields=("label",)), op_id="a")
    assert done.entry.contract is not None
    assert (done.entry.kind, done.entry.contract.action) == ("serving", "add")
    registry.add_contract("intent", contract(fields=("label",)), op_id="a")  # whose answer was lost
    (found,) = registry.contracts("intent")
    assert (found.fields, len(list(registry.store.keys("contracts/")))) == (("label",), 1)
    with pytest.raises(NotFound, match="has no contract 'search/alrm': it has search/alarm; did you mean"):
        registry.remove_contract("intent", "search", "alrm", by="ana")
    registry.remove_contract("intent", "search", "alarm", by="ana")
    assert (registry.contracts("intent"), list(registry.store.keys("contracts/"))) == ([], [])


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"consumer": "a/b"}, "cannot be a consumer"),
        ({"fields": ("x[",)}, "is no JMESPath"),
        ({"fields": ("x",), "kind": "text", "value": "x"}, "is text and has no fields"),
        ({"input_b64": "A" * 1_500_000}, "more than 1048576 bytes"),
        ({"value": "x" * 4_000_000}, "expected answer has more than"),
    ],
)
def test_contracts_that_are_none(registry: Registry, facts: dict[str, Any], said: str) -> None:
    """What cannot be a contract is refused, and leaves nothing behind."""
    with pytest.raises(InvalidInput, match=said):
        registry.add_contract("intent", contract(**facts))
    assert list(registry.store.keys("contracts/")) == []


def test_damage_is_not_believed(registry: Registry, directory: DirectoryStore) -> None:
    """A contract that is gone or damaged is an error that says so, and a scrub finds it."""
    registry.add_contract("intent", contract())
    (key,) = registry.store.keys("contracts/")
    stored = directory.get(key)
    directory.replace(key, stored.data.replace(b"alarm", b"timer"), etag=stored.etag)
    with pytest.raises(InvalidRecord, match="is damaged"):
        registry.contracts("intent")
    assert [each.key for each in registry.scrub()] == [key]
    directory.delete(key)
    with pytest.raises(InvalidRecord, match="contract search/alarm of intent, is gone: add it again"):
        registry.contracts("intent")
    assert [each.what for each in registry.scrub()] == ["missing: it is contract search/alarm of intent"]


def test_gc_takes_what_an_interrupted_add_left(registry: Registry, directory: DirectoryStore) -> None:
    """What no state names goes a day later; what one names stays."""
    registry.add_contract("intent", contract())
    directory.create("contracts/intent/01JD0Z6Y8Q6V5T4S3R2P1N0M9K.json", b"{}")
    assert registry.gc().swept == []
    later = utc_now() + timedelta(days=2)
    assert registry.gc(now=later).swept == ["contracts/intent/01JD0Z6Y8Q6V5T4S3R2P1N0M9K.json"]
    assert len(registry.contracts("intent")) == 1
