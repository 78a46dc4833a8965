from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from marway.objects import DirectoryStore, ObjectStore
from marway.refs import new_ulid
from marway.registry import Registry
from support.registry import Publish, publisher
from support.seaweed import S3Server, seaweed


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One real S3 server for all tests."""
    with seaweed() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, and the environment set to use it."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    return s3_server


@pytest.fixture
def s3_url(s3: S3Server) -> str:
    """An empty registry in the S3 server."""
    return f"s3://{s3.bucket}/{new_ulid().lower()}"


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
