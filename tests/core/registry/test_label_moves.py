"""Many writers on one label, with one reply in ten lost."""

from __future__ import annotations

import collections
import itertools
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from marway.objects import open_store
from marway.registry import Registry
from support import label_moves
from support.lossy_proxy import lossy_proxy
from support.registry import publisher
from support.seaweed import S3Server


def run(
    url: str, tmp_path: Path, env: dict[str, str], *, writers: int, moves: int, loss: float = 0.0
) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, label_moves.__file__, url, str(tmp_path), f"--writers={writers}", f"--moves={moves}",
         f"--loss={loss}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **env},
        capture_output=True,
        text=True,
        timeout=800,
        check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def assert_each_once(registry: Registry, found: dict[str, Any], expected: int) -> None:
    """Assert that what was acknowledged is what the history tells, each once and in one line of generations."""
    assert found["problems"] == []
    assert len(found["acknowledged"]) == expected
    entries = list(registry.history("intent"))
    times = collections.Counter(entry.op_id for entry in entries)
    assert set(times) == set(found["acknowledged"])
    assert set(times.values()) == {1}
    assert [entry.generation for entry in entries] == list(range(expected, 0, -1))
    for later, earlier in itertools.pairwise(entries):
        assert later.from_version == earlier.to_version
    assert registry.state("intent").labels["PROD"] == entries[0].to_version


@pytest.mark.timeout(900)
def test_directory(tmp_path: Path) -> None:
    """50 processes that move one label in a directory: as many moves as were acknowledged, each once."""
    registry = Registry(open_store(str(tmp_path / "registry")))
    publish = publisher(registry, tmp_path)
    for version in label_moves.VERSIONS:
        publish(version=version)
    writers, moves = 50, 20
    found = run(registry.url, tmp_path, {}, writers=writers, moves=moves, loss=0.1)
    assert found["lost"] > writers * moves / 30
    assert_each_once(registry, found, writers * moves)


@pytest.mark.extended  # test_directory, and test_object_store_contract.py over S3
@pytest.mark.timeout(900)
def test_s3(s3: S3Server, s3_url: str, tmp_path: Path) -> None:
    """8 processes that move one label in S3, a proxy dropping replies: as many moves as acknowledged, each once."""
    registry = Registry(open_store(s3_url))
    publish = publisher(registry, tmp_path)
    for version in label_moves.VERSIONS:
        publish(version=version)
    writers, moves = 8, 20
    chance, lock = random.Random(7), threading.Lock()

    def lose(method: str, path: str) -> bool:
        with lock:
            return chance.random() < 0.1

    with lossy_proxy(s3.endpoint, lose) as proxy:
        found = run(s3_url, tmp_path, {"AWS_ENDPOINT_URL_S3": proxy.endpoint}, writers=writers, moves=moves)
    assert [each for each in proxy.lost if each.startswith("PUT")]
    assert_each_once(registry, found, writers * moves)
