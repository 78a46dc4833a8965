"""What reading observations may take of memory and disk, where others share the container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from marway.errors import InvalidInput
from marway.objects import DirectoryStore
from marway_observations.reading import Observed, limits
from marway_observations.reading.files import LocalFiles
from support.observations import observation, write_observations

MIB = 1024 * 1024


@dataclass
class Left:
    """A container with so much memory left."""

    mib: int

    def left_bytes(self, *, enough: int) -> int:
        assert enough == (256 + 64) * MIB
        return self.mib * MIB


@pytest.mark.parametrize(("left_mib", "memory_mb"), [(None, 256), (2000, 256), (220, 156), (128, 64)])
def test_never_more_memory_than_is_left(
    left_mib: int | None, memory_mb: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB gets what it wants where there is no limit or enough below it, else what is left but for some spare."""
    monkeypatch.setattr(limits, "cgroup_room", lambda: None if left_mib is None else Left(left_mib))
    with Observed(DirectoryStore(tmp_path)) as observed:
        (told,) = observed.query("SELECT current_setting('memory_limit')")[0]
    assert told.startswith(f"{memory_mb}.0 MiB")


def test_with_hardly_any_left_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that is nearly full is left alone: its end would be that of all in it."""
    monkeypatch.setattr(limits, "cgroup_room", lambda: Left(100))
    with pytest.raises(InvalidInput, match="100 MiB of memory are left here"):
        Observed(DirectoryStore(tmp_path))


def test_copies_of_earlier_readers_count(tmp_path: Path) -> None:
    """What copies may take holds for all that are kept: one that would be too much is not left there."""

    class Far(DirectoryStore):
        url = "s3://bucket"

    store, copies = Far(tmp_path / "store"), tmp_path / "copies"
    keys = [write_observations(store, "intent", [observation()], gateway=f"gateway-{number}")[0] for number in (1, 2)]
    size = store.size(keys[0])
    assert size is not None
    LocalFiles(store, copies=copies, copied_max_bytes=size).local(keys[:1])
    with pytest.raises(InvalidInput, match="copied before"):
        LocalFiles(store, copies=copies, copied_max_bytes=size).local(keys[1:])
    assert len(list(copies.rglob("*.parquet"))) == 1
    LocalFiles(store, copies=copies, copied_max_bytes=3 * size).local(keys)
    assert len(list(copies.rglob("*.parquet"))) == 2
