from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.fakes import FakePod, running
from marway.objects import DirectoryStore
from marway.records import Tombstone, utc_now
from marway.registry import Registry
from marway.registry.encoding import encode
from marway.serving import ServingSettings
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]


def delete(registry: Registry, directory: Path, name: str, version: str) -> None:
    """Mark a version as deleted; there is no verb for it yet."""
    store, key = DirectoryStore(directory / "registry"), f"models/{name}/state.json"
    state = registry.state(name)
    changed = state.model_copy(
        update={"generation": state.generation + 1, "tombstones": {version: Tombstone(at=utc_now(), by="test")}}
    )
    store.replace(key, encode(changed), etag=store.get(key).etag)


async def test_models(registry: Registry, tmp_path: Path) -> None:
    """The list names each model with its labels and those of its versions that are not deleted, on both ports."""
    publish(registry, tmp_path, "intent", "1.0")
    publish(registry, tmp_path, "intent", "1.1", label="STG")
    publish(registry, tmp_path, "intent", "0.9", label=None)
    publish(registry, tmp_path, "digits", "2", label=None)
    delete(registry, tmp_path, "intent", "0.9")
    async with running(registry=registry) as gateway:
        listed = (await gateway.client.get("/models")).json()
        assert (await gateway.admin.get("/models")).json() == listed
    assert listed == {
        "models": [
            {"name": "digits", "labels": {}, "versions": ["2"]},
            {"name": "intent", "labels": {"PROD": "1.0", "STG": "1.1"}, "versions": ["1.0", "1.1"]},
        ],
        "next": None,
    }


async def test_fault_damaged_state_in_a_list(registry: Registry, tmp_path: Path) -> None:
    """One model with a damaged state is listed with the damage; the others, and the v2 index, are as ever."""
    publish(registry, tmp_path, "digits", "1")
    publish(registry, tmp_path, "intent", "1.0")
    state = tmp_path / "registry" / "models" / "digits" / "state.json"
    state.write_bytes(state.read_bytes().replace(b"PROD", b"PROF"))
    async with running(registry=registry) as gateway:
        listed = (await gateway.client.get("/models")).json()["models"]
        index = (await gateway.admin.post("/v2/repository/index")).json()
        alone = await gateway.client.get("/models/digits")
    assert listed[0].pop("damage").startswith("models/digits/state.json is damaged")
    assert listed == [
        {"name": "digits", "labels": {}, "versions": ["1"]},
        {"name": "intent", "labels": {"PROD": "1.0"}, "versions": ["1.0"]},
    ]
    assert {(each["name"], each["version"]) for each in index} == {("digits", "1"), ("intent", "1.0")}
    assert (alone.status_code, alone.json()["code"]) == (500, "invalid_record")


async def test_no_models(registry: Registry) -> None:
    """An empty registry has an empty list."""
    async with running(registry=registry) as gateway:
        assert (await gateway.client.get("/models")).json() == {"models": [], "next": None}


async def test_pages(registry: Registry, tmp_path: Path) -> None:
    """Following `next` gives every model once."""
    for number in range(5):
        publish(registry, tmp_path, f"m{number}", label=None)
    seen: list[str] = []
    async with running(registry=registry) as gateway:
        after: str | None = ""
        while after is not None:
            page = (await gateway.client.get("/models", params={"limit": 2, "next": after})).json()
            seen += [model["name"] for model in page["models"]]
            after = page["next"]
        bad = await gateway.client.get("/models", params={"limit": 0})
    assert seen == ["m0", "m1", "m2", "m3", "m4"]
    assert (bad.status_code, bad.json()["code"]) == (400, "invalid_request")
    assert "limit" in bad.json()["detail"]


async def test_model(registry: Registry, tmp_path: Path) -> None:
    """A model is shown by its name or by the id of a version; an unknown one is a 404 that names the others."""
    publish(registry, tmp_path, model_id="run-7")
    async with running(registry=registry) as gateway:
        by_name = (await gateway.client.get("/models/intent")).json()
        by_id = (await gateway.client.get("/models/run-7")).json()
        missing = await gateway.client.get("/models/nix")
        wrong = await gateway.client.get("/models/in%20tent")
    assert by_name == by_id == {"name": "intent", "labels": {"PROD": "1.0"}, "versions": ["1.0"]}
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")
    assert "the registry has intent" in missing.json()["detail"]
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_reference")


async def test_version(registry: Registry, tmp_path: Path) -> None:
    """A version is shown with its record, its serving settings and the labels at it; a label shows its version."""
    record = publish(registry, tmp_path, serving=ServingSettings(pods=2))
    registry.release("intent", "1.0", label="STG", by="test")
    async with running(registry=registry) as gateway:
        shown = (await gateway.client.get("/models/intent/versions/1.0")).json()
        assert (await gateway.client.get("/models/intent/versions/STG")).json() == shown
        missing = await gateway.client.get("/models/intent/versions/9")
    assert shown["id"] == record.id
    assert shown["archive"]["sha256"] == record.archive.sha256
    assert shown["serving"]["pods"] == 2
    assert shown["labels"] == ["PROD", "STG"]
    assert (missing.status_code, missing.json()["code"]) == (404, "version_not_found")
