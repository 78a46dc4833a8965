"""A registry is made on purpose: no change makes one where there is none, or goes into another one than before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marway.errors import MarwayError, RegistryUnavailable
from marway.objects import open_store
from marway.records import Proof, utc_now
from marway.refs import Reference
from marway.registry import Registry, open_registry
from support.registry import publisher, record_of


def test_no_change_makes_a_registry(store_url: str, tmp_path: Path) -> None:
    """In an empty place of either kind everything that writes is refused, says what to do, and leaves it empty."""
    registry = open_registry(store_url)
    proof = Proof(kind="pod", archive_sha256="0" * 64, server="x", duration_s=1, at=utc_now(), by="test")
    for write in (
        lambda: publisher(registry, tmp_path)(),
        lambda: registry.prove(proof),
        lambda: registry.release("intent", "1.0", by="test"),
        lambda: registry.rollback("intent", by="test"),
        lambda: registry.set_serving("intent", set_fields={"pods": 2}, by="test"),
        lambda: registry.delete("intent", "1.0", by="test"),
        lambda: registry.gc(),
    ):
        with pytest.raises(RegistryUnavailable, match=r"there is no registry at .* publish with --create-registry"):
            write()
    assert list(open_store(store_url).keys("")) == []


def test_a_made_registry_is_one_for_ever(store_url: str, tmp_path: Path) -> None:
    """Made once, by whoever comes first, a registry keeps its identity and takes changes."""
    first, second = (open_registry(store_url, create=True) for _ in range(2))
    assert first.identity() is not None
    assert first.identity() == second.identity() == first.create()
    publisher(first, tmp_path)()
    assert second.release("intent", "1.0", by="test").state.labels == {"PROD": "1.0"}


def test_a_registry_of_before_is_adopted(store_url: str, tmp_path: Path) -> None:
    """One that has models and no identity is given one by the next change."""
    publisher(Registry(open_store(store_url)), tmp_path)()
    registry = open_registry(store_url)
    assert registry.identity() is None
    registry.release("intent", "1.0", by="test")
    assert registry.identity() is not None


def test_a_registry_that_goes_away(tmp_path: Path) -> None:
    """Where the volume of a registry is gone, or another one is mounted, its writers and readers are refused."""
    place = tmp_path / "registry"
    registry = open_registry(place.as_uri(), create=True)
    publisher(registry, tmp_path)()
    registry.release("intent", "1.0", by="test")
    place.rename(tmp_path / "away")
    place.mkdir()
    for call in (
        lambda: publisher(registry, tmp_path)(version="2.0"),
        lambda: registry.release("intent", "1.0", by="test"),
        lambda: registry.resolve(Reference("intent")),
    ):
        with pytest.raises(RegistryUnavailable, match="there is no registry at"):
            call()
    assert list(place.iterdir()) == []
    open_registry(place.as_uri(), create=True)
    with pytest.raises(RegistryUnavailable, match="holds another registry now"):
        publisher(registry, tmp_path)(version="2.0")
    assert list(open_store(place.as_uri()).keys("models/")) == []


def test_a_volume_that_goes_while_bytes_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish whose registry goes away on the way is not acknowledged."""
    place = tmp_path / "registry"
    registry = open_registry(place.as_uri(), create=True)
    create_file = registry._store.create_file

    def and_lose(*arguments: object, **more: object) -> None:
        create_file(*arguments, **more)  # type: ignore[arg-type]
        place.rename(tmp_path / "away")

    monkeypatch.setattr(registry._store, "create_file", and_lose)
    with pytest.raises(MarwayError, match="there is no registry"):
        publisher(registry, tmp_path)()
    assert not place.exists()


def test_who_holds_a_store_decides_for_himself(tmp_path: Path) -> None:
    """A registry over a store that a program opened by itself asks for no identity."""
    registry = Registry(open_store((tmp_path / "registry").as_uri()))
    assert publisher(registry, tmp_path)().version == "1.0"
    assert registry.identity() is None


def test_the_identity_is_a_document(tmp_path: Path) -> None:
    """`registry.json` says which registry it is, since when and by whom."""
    open_registry((tmp_path / "registry").as_uri(), create=True)
    document = json.loads((tmp_path / "registry" / "registry.json").read_text())
    assert document.keys() == {"format", "id", "created_at", "created_by", "integrity"}
    assert len(document["id"]) == len(record_of(b"x").id.removeprefix("mv_"))
