"""Parking through real parts: a pool of versions, the backend, a runtime and workers that share their weights.

The rules are tested with a server in this process (tests/sidecar/memory), the runtime's part in `test_native.py`.
"""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import pytest
import torch

from marway.records import VersionRecord
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.settings import load_settings
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.settings import SidecarSettings
from support.pools import PoolRoom, predict
from support.registry import publisher, until
from support.torchserve import OurTorchServe, archive

pytestmark = [pytest.mark.e2e, pytest.mark.extended, pytest.mark.timeout(240)]
MIB = 1 << 20
HANDLER = """
import os, torch

class Sums:
    def initialize(self, context):
        self.weights = torch.load(os.path.join(context.system_properties["model_dir"], "w.pt"), weights_only=True)
        self.name = context.manifest["model"]["modelName"]

    def handle(self, data, context):
        return [f"{float(self.weights[:4].sum())} of {os.getpid()}" for _ in data]
"""


def published(registry: Registry, scratch: Path, name: str, mib: int) -> VersionRecord:
    """Publish a version whose weights have so many MiB, and which says that it has golden answers."""
    path = archive(scratch, name, HANDLER)
    weights = io.BytesIO()
    torch.save(torch.ones(mib * MIB // 4), weights)
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("w.pt", weights.getvalue())
    return publisher(registry, scratch)(name, id=f"run-{name}", data=path.read_bytes(), golden=b"{}")


async def test_a_version_is_parked_and_comes_back(registry: Registry, room: PoolRoom, tmp_path: Path) -> None:
    """Left without requests it keeps its weights alone, in the budget too; a request has a worker within a moment; and
    when another version needs the memory the weights go."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    large, other = (published(registry, scratch, name, mib) for name, mib in (("large", 64), ("other", 48)))
    none = ServingSettings(min_workers=0, max_workers=2)
    with OurTorchServe(tmp_path / "home", engine="native") as runtime:
        store = room.archives(root=runtime.store)
        pool = room.pool(
            archives=store,
            memory_budget_bytes=140 * MIB,
            scale_down_s=0.2,
            scale_to_zero_s=0.4,
            archive_memory_factor=1.5,
        )
        settings = load_settings(
            SidecarSettings, backend="native", runtime_dir=runtime.runtime_dir, archive_store=runtime.store
        )
        pool.attach(open_backend(settings).connect())
        assert (await predict(pool, large, none)).startswith("4.0 of ")
        await until(lambda: parked(pool, "large"), within_s=30)
        await until(lambda: 64 * MIB < pool.memory()[0] < 90 * MIB, within_s=30)
        began = time.monotonic()
        assert (await predict(pool, large, none)).startswith("4.0 of ")
        assert time.monotonic() - began < 2.0
        await until(lambda: parked(pool, "large"), within_s=30)
        assert (await predict(pool, other)).startswith("4.0 of ")
        assert [(each.name, each.state) for each in pool.statuses()] == [("large", "absent"), ("other", "ready")]


def parked(pool: ModelPool, name: str) -> bool:
    return any(each.name == name and each.parked for each in pool.statuses())
