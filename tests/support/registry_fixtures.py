"""Fixtures of tests that need an object store or a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from marway.objects import DirectoryStore, ObjectStore
from marway.registry import Registry
from support.registry import Publish, publisher

__all__ = ["directory", "publish", "registry", "store_url"]


@pytest.fixture(params=["directory", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind."""
    if request.param == "s3":
        url: str = request.getfixturevalue("s3_url")
        return url
    return (tmp_path / "registry").as_uri()


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryStore:
    """An empty directory store."""
    return DirectoryStore(tmp_path / "registry")


@pytest.fixture
def registry(directory: ObjectStore) -> Registry:
    """An empty registry in a directory."""
    return Registry(directory)


@pytest.fixture
def publish(registry: Registry, tmp_path: Path) -> Publish:
    """Publish a small version into the directory registry."""
    return publisher(registry, tmp_path)
