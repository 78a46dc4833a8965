from __future__ import annotations

from pathlib import Path

import pytest

from marway.objects import DirectoryStore, ObjectStore


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return DirectoryStore(tmp_path / "store")
