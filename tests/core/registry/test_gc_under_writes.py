"""A collection of garbage that meets writers everywhere, and is killed anywhere."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from support import gc_under_writes
from support.every import LONG

SECONDS = int(os.environ.get("MARWAY_TEST_GC_S", "300" if LONG else "5"))


@pytest.mark.extended  # test_registry_gc.py has each interleaving by itself
@pytest.mark.timeout(2 * SECONDS + 300)
def test_fault_gc_under_writes(store_url: str, tmp_path: Path) -> None:
    """While gc runs, and is killed at random points, whatever is published and not deleted keeps all its bytes."""
    seed = int(os.environ.get("MARWAY_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"\nseed {seed}")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    ran = subprocess.run(
        [
            *(sys.executable, gc_under_writes.__file__, store_url, str(scratch)),
            *("--seconds", str(SECONDS), "--seed", str(seed)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=SECONDS + 280,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    print(found["done"])
    assert found["problems"] == []
    assert min(found["done"].get(what, 0) for what in ("published", "deleted", "gc killed", "gc whole")) > 0
