"""Somebody changes what is stored: each object in its turn, in the registry and in the pods' archive store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.fakes import running
from marway.objects import DirectoryStore
from marway.records import Proof, VersionRecord, utc_now
from marway.registry import Registry
from marway_gateway.settings import PodAddress
from support.pod import serving
from support.registry import publisher

GOLDEN = b'{"golden": "answers"}'


@dataclass(frozen=True)
class Row:
    """What is changed, and what is to come of it.

    Attributes:
        find: The file, below the test's directory.
        path: What is asked for then, and must not be answered by what was changed.
        status: Of the answer.
        says: What the answer's detail has in it.
    """

    find: Callable[[VersionRecord], str]
    path: str
    status: int
    says: str


ROWS = {
    "archive": Row(
        lambda record: f"registry/archives/sha256/{record.archive.sha256}.mar",
        "intent",
        502,
        "publish the version again",
    ),
    "record": Row(
        lambda _: "registry/models/intent/versions/1.0.json", "intent", 500, "models/intent/versions/1.0.json"
    ),
    "state": Row(lambda _: "registry/models/intent/state.json", "intent", 500, "models/intent/state.json"),
    "id": Row(lambda _: "registry/ids/run-intent.json", "run-intent", 500, "ids/run-intent.json"),
}


def change(path: Path) -> None:
    """Flip a bit of a file, and leave its size and times as they were."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(DirectoryStore(tmp_path / "registry"))
    made.create()
    publish = publisher(made, tmp_path)
    publish("other", id="run-other")
    publish("intent", id="run-intent", golden=GOLDEN)
    for name in ("other", "intent"):
        made.release(name, "1.0", by="test", forced=True)
    return made


@pytest.mark.parametrize("what", ROWS)
async def test_fault_tampering(registry: Registry, tmp_path: Path, what: str) -> None:
    """A changed object is found before it is used, by name; other models serve on, and so does a scrub."""
    row = ROWS[what]
    path = tmp_path / row.find(registry.record("intent", "1.0"))
    change(path)
    async with (
        serving(registry, tmp_path) as pod,
        running(PodAddress(name="pod-0", url=pod.url), registry=registry) as gateway,
    ):
        refused = await gateway.predict(f"/predict/{row.path}")
        assert (refused.status_code, row.says in refused.text) == (row.status, True), refused.text
        assert not any(model.name == "intent" for model in pod.server.loaded.values())
        assert (await gateway.predict("/predict/other")).status_code == 200
    damages = [damage.key for damage in Registry(registry._store).scrub()]
    assert path.relative_to(tmp_path / "registry").as_posix() in damages


async def test_fault_tampering_with_the_archive_store(registry: Registry, tmp_path: Path) -> None:
    """An archive that is changed where the pods keep it is put aside, and fetched again before it is loaded."""
    record = registry.record("intent", "1.0")
    async with serving(registry, tmp_path) as pod:
        assert (await pod.predict("intent/1.0")).status_code == 200
    (kept,) = (tmp_path / "store").rglob(f"{record.archive.sha256}.mar")
    whole = kept.read_bytes()
    change(kept)
    async with serving(registry, tmp_path) as pod:
        assert (await pod.predict("intent/1.0")).status_code == 200
        assert await pod.metric('marway_sidecar_archive_fetches_total{outcome="corrupt"}') == 1
    assert kept.read_bytes() == whole


def test_fault_tampering_with_proofs(registry: Registry, tmp_path: Path) -> None:
    """A changed proof proves nothing, and changed golden answers are not compared with."""
    record = registry.record("intent", "1.0")
    facts = {"archive_sha256": record.archive.sha256, "golden_sha256": record.golden_sha256, "by": "test"}
    registry.prove(Proof(kind="pod", server="x", duration_s=1, at=utc_now(), **facts))
    assert registry.is_proved(record)
    (proof,) = (tmp_path / "registry" / "proofs" / record.archive.sha256).iterdir()
    change(proof)
    assert not registry.is_proved(record)
    golden = tmp_path / f"registry/golden/{record.golden_sha256}.json"
    change(golden)
    with pytest.raises(Exception, match=str(record.golden_sha256)[:12]):
        registry.golden(str(record.golden_sha256))
    keys = [damage.key for damage in registry.scrub()]
    assert {f"golden/{golden.name}", f"proofs/{record.archive.sha256}/{proof.name}"} <= set(keys)
