"""The memory limit is the smallest that holds, wherever the cgroup is."""

from __future__ import annotations

from pathlib import Path

import pytest

from marway_runtime.memory import cgroup_limit, heap_bytes, memory_limit
from marway_runtime.settings import RuntimeSettings

MIB = 2**20


@pytest.fixture
def settings(tmp_path: Path) -> RuntimeSettings:
    return RuntimeSettings(flags={"runtime_dir": tmp_path / "run", "model_store": tmp_path / "store"})  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/", {"memory.max": "1000"}, 1000),
        ("0::/", {"memory.max": "max"}, None),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "2000"}, 2000),
        ("0::/a/b", {"a/b/memory.max": "500", "a/memory.max": "2000"}, 500),
        ("0::/not/seen/here", {"memory.max": "700"}, 700),
        ("5:cpu,memory:/k\n0::/", {"memory/k/memory.limit_in_bytes": "300"}, 300),
        ("5:memory:/docker/1", {"memory/memory.limit_in_bytes": "400"}, 400),
        ("5:memory:/k", {"memory/k/memory.limit_in_bytes": "9223372036854771712"}, 9223372036854771712),
        ("", {}, None),
    ],
    ids=["v2", "none", "around", "own", "container", "v1", "v1-container", "v1-unlimited", "no-cgroup"],
)
def test_the_cgroups_limit_is_found(tmp_path: Path, membership: str, files: dict[str, str], limit: int | None) -> None:
    """Version 1 and 2, nested and as a container sees them, each give the limit that holds."""
    proc, mounted = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(membership)
    for name, text in files.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(text + "\n")
    assert cgroup_limit(proc=proc, mounted=mounted) == limit


def test_the_memory_limit_is_the_settings_or_the_machines(settings: RuntimeSettings) -> None:
    """A limit that is set counts; unset, it is what the cgroup or the machine has."""
    assert memory_limit(settings) > 256 * MIB
    assert memory_limit(settings.model_copy(update={"memory_limit_bytes": 1024 * MIB})) == 1024 * MIB


@pytest.mark.parametrize(
    ("limit", "heap"), [(512 * MIB, 256 * MIB), (4096 * MIB, 512 * MIB), (65536 * MIB, 1024 * MIB)]
)
def test_javas_heap_follows_the_limit(settings: RuntimeSettings, limit: int, heap: int) -> None:
    """An eighth of the memory, between 256 MiB and 1 GiB; what is set wins."""
    limited = settings.model_copy(update={"memory_limit_bytes": limit})
    assert heap_bytes(limited) == heap
    assert heap_bytes(limited.model_copy(update={"heap_bytes": 99 * MIB})) == 99 * MIB
