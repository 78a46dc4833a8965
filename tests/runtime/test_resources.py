"""The limits of memory and processors are the smallest that hold, wherever the cgroup is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from marway.process.cgroups import cgroup_cpus, cgroup_room
from marway_runtime.resources import cpu_count, heap_bytes, memory_limit
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
    room = cgroup_room(proc=proc, mounted=mounted)
    assert (room.limit_bytes if room is not None else None) == limit


@pytest.mark.parametrize(
    ("membership", "folder", "names"),
    [
        ("0::/a", "a", ("memory.max", "memory.current", "active_file", "inactive_file")),
        (
            "5:memory:/a",
            "memory/a",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file", "total_inactive_file"),
        ),
    ],
    ids=["v2", "v1"],
)
def test_what_is_left_of_a_cgroups_limit(
    tmp_path: Path, membership: str, folder: str, names: tuple[str, str, str, str]
) -> None:
    """Page cache counts as left, and is asked for only when there is little else."""
    limit, used, active, inactive = names
    proc, mounted = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(membership)
    (mounted / folder).mkdir(parents=True)
    (mounted / folder / limit).write_text("1000\n")
    (mounted / folder / used).write_text("900\n")
    (mounted / folder / "memory.stat").write_text(f"anon 400\n{active} 300\n{inactive} 50\nactive_anon 7\n")
    room = cgroup_room(proc=proc, mounted=mounted)
    assert room is not None
    assert (room.limit_bytes, room.left_bytes(enough=100), room.left_bytes(enough=101)) == (1000, 100, 450)


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("0::/not/seen/here", {"cpu.max": "400000 100000"}, 4.0),
        ("3:cpu,cpuacct:/k", {"cpu/k/cpu.cfs_quota_us": "200000", "cpu/k/cpu.cfs_period_us": "100000"}, 2.0),
        ("3:cpu,cpuacct:/k", {"cpu/k/cpu.cfs_quota_us": "-1", "cpu/k/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
    ],
    ids=["v2", "none", "around", "container", "v1", "v1-unlimited", "no-cgroup"],
)
def test_the_cgroups_processors_are_found(
    tmp_path: Path, membership: str, files: dict[str, str], cpus: float | None
) -> None:
    """A quota of processor time counts as so many processors, on both versions."""
    proc, mounted = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(membership)
    for name, text in files.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(text + "\n")
    assert cgroup_cpus(proc=proc, mounted=mounted) == cpus


def test_there_is_a_processor() -> None:
    """At least one processor is there, and no more than the machine has."""
    assert 1 <= cpu_count() <= (os.cpu_count() or 1)


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
