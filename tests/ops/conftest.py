from __future__ import annotations

from pathlib import Path

import pytest

from marway.objects import DirectoryStore
from marway.registry import Registry
from support.registry import Publish, publisher


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry in a directory."""
    return Registry(DirectoryStore(tmp_path / "registry"))


@pytest.fixture
def publish(registry: Registry, tmp_path: Path) -> Publish:
    """Publish a small version into the registry."""
    return publisher(registry, tmp_path)
