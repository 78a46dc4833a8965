"""`make bench-observations` measures what it says: the verb counts exactly what was written, however it is filed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from marway.objects import DirectoryStore
from marway.records import utc_now
from marway.registry import open_registry
from marway_observations.quality import quality_of


@pytest.mark.parametrize("a_file", [700, 50])
def test_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, a_file: int) -> None:
    """Known, missing and right predictions of each version are those that were written."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import bench_observations as bench

    bench.write_registry(tmp_path / "registry")
    written = bench.write_store(tmp_path / "store", predictions=2000, a_file=a_file, until=utc_now())
    asked = quality_of(
        DirectoryStore(tmp_path / "store"),
        open_registry((tmp_path / "registry").as_uri()),
        bench.MODEL,
        at=utc_now() + timedelta(seconds=1),
    )
    results = [each.model_dump() for each in asked.results]
    bench.check({"results": results, "left_out": list(asked.left_out)}, written)
    assert {each["window"] for each in results} == {"7d"}
