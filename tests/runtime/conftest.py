from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import marway
from support.runtime import Runtime

MODELS = Path(__file__).parent / "models"


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the archive of the handler that tells about its process."""
    store = tmp_path_factory.mktemp("store")
    done = marway(
        *("pack", "--model-name", "inspect", "--version", "1.0", "--handler", str(MODELS / "inspect_worker.py")),
        *("--export-path", str(store)),
    )
    assert done.returncode == 0, done.stderr
    return store


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory, archives: Path) -> Iterator[Runtime]:
    """One runtime for all tests that leave its parts running, with secrets in its environment."""
    env = {"AWS_SECRET_ACCESS_KEY": "a secret", "MARWAY_REGISTRY": "s3://a-secret", "GITHUB_TOKEN": "a secret"}
    with Runtime(tmp_path_factory.mktemp("runtime") / "home", archives, env) as running:
        yield running
