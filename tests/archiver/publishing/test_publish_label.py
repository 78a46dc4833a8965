"""The label that a publish moves: through a gateway with proof, else only where nothing points yet."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from marway.errors import InvalidReference, InvalidSettings, ProofMissing, Unavailable
from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.registry import Registry
from marway_archiver import publish

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(DirectoryStore(tmp_path / "registry"))


def released(registry: Registry, directory: Path, version: str, **more: object) -> VersionRecord:
    handler = directory / "handler.py"
    handler.write_text("def handle(data, context):\n    return [1 for _ in data or ()]\n")
    return publish(
        model_name="intent",
        version=version,
        handler=str(handler),
        registry=registry,
        label="PROD",
        **more,  # type: ignore[arg-type]
    )


def test_without_a_gateway(registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A first label is set with a warning and called forced; a version that would move it is stored alone."""
    caplog.set_level(logging.WARNING)
    released(registry, tmp_path, "1.0")
    assert "PROD was set for the first time, to a version that no pod has proved" in caplog.text
    with pytest.raises(ProofMissing, match=r"PROD stays at 1\.0"):
        released(registry, tmp_path, "2.0")
    assert registry.versions("intent") == ("1.0", "2.0")
    released(registry, tmp_path, "1.0")  # again: it repairs, and moves nothing
    assert registry.state("intent").labels == {"PROD": "1.0"}
    caplog.clear()
    released(registry, tmp_path, "2.0", force=True, note="at night")
    assert "first time" not in caplog.text
    entry = registry.state("intent").history[-1]
    assert (entry.forced, entry.to_version, entry.note) == (True, "2.0", "at night")


def test_a_gateway_that_does_not_answer(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a gateway named, by argument or environment, the label moves through it or not at all."""
    with pytest.raises(Unavailable, match="no gateway answers"):
        released(registry, tmp_path, "1.0", gateway=NOBODY)
    monkeypatch.setenv("MARWAY_GATEWAY_ADMIN_URL", NOBODY)
    with pytest.raises(Unavailable, match="no gateway answers"):
        released(registry, tmp_path, "1.0")
    assert registry.state("intent").labels == {}
    assert registry.versions("intent") == ("1.0",)
    released(registry, tmp_path, "1.0", force=True)
    assert registry.state("intent").labels == {"PROD": "1.0"}


def test_what_cannot_be_is_refused_first(registry: Registry, tmp_path: Path) -> None:
    """A gateway that is no URL and a label that cannot be one are refused before anything is stored."""
    with pytest.raises(InvalidSettings, match="is no URL"):
        released(registry, tmp_path, "1.0", gateway="localhost:8001")
    with pytest.raises(InvalidReference, match="cannot be a label"):
        publish(model_name="intent", version="1.0", handler="handler.py", registry=registry, label="prod")
    assert list(registry.models()) == []
