"""Tables of a lookup node: memory and look-ups per second for a million rows, or as many as are asked for.

Rows have a key, a text, a number and a vector of 64 numbers. Each measurement is a process of its own, so that what
it holds in memory is its own: `RssAnon` is memory that nobody shares, `RssFile` pages of the file that are mapped,
which the page cache has for all. Keys are drawn by chance, so that nearly every look-up touches other pages.

    python benchmarks/bench_tables.py --rows 1000000 --write
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lookup_tables
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import report
from documents import add_output, write

VECTOR = 64
SECONDS = 2.0


def write_rows(path: Path, rows: int) -> None:
    made = np.random.default_rng(0)
    keys = made.permutation(rows * 3)[:rows]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(made.random(rows * VECTOR, dtype=np.float32)), VECTOR)
    names = pa.array([f"user-{key:09d}" for key in keys])
    pq.write_table(pa.table({"id": keys, "name": names, "age": made.random(rows), "vector": vectors}), path)


def memory() -> dict[str, float]:
    """Return this process's memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {name: int(found[name]) / 1024 for name in ("RssAnon", "RssFile")}


def publish(directory: Path, source: Path, key: str) -> dict[str, float]:
    from marway.objects import DirectoryStore
    from marway.registry import Registry
    from marway_archiver import publish_table

    registry = Registry(DirectoryStore(directory / "registry"))
    registry.create()
    began = time.perf_counter()
    record = publish_table(source, model_name=f"by-{key}", version="1", key=key, registry=registry)
    return {
        "seconds": time.perf_counter() - began,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "size_mib": record.archive.size_bytes / 2**20,
    }


def look_up(directory: Path, source: Path, key: str) -> dict[str, float]:
    from marway.objects import DirectoryStore
    from marway.registry import Registry
    from marway.resolve.resolved import Resolved
    from marway_gateway.graph.tables.tables import Tables

    keys = pq.read_table(source, columns=[key])[key].to_pylist()
    random.Random(1).shuffle(keys)
    registry = Registry(DirectoryStore(directory / "registry"))
    record = registry.record(f"by-{key}", "1")
    resolved = Resolved(record, record.serving, None)

    async def run() -> dict[str, float]:
        tables = Tables(registry, directory / "tables", limit_bytes=2**40, observe=lambda *_: None)
        before = memory()
        began = time.perf_counter()
        table = await tables.open(record)
        fetched = time.perf_counter() - began
        opened = memory()
        await tables.rows(resolved, keys[:100], None)
        found: dict[str, float] = {"fetch_s": fetched}
        at = 0

        def some(count: int) -> list[Any]:
            nonlocal at
            at = (at + count) % (len(keys) - count)
            return keys[at : at + count]

        for count in (1, 100):
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < SECONDS:
                table.rows(some(count), None)
                done += count
            found[f"rows_s_{count}"] = done / (time.perf_counter() - began)
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < SECONDS:
                await tables.rows(resolved, some(count), None)
                done += count
            found[f"node_s_{count}"] = done / (time.perf_counter() - began)
        after = memory()
        found["open_anon_mib"] = opened["RssAnon"] - before["RssAnon"]
        found["anon_mib"] = after["RssAnon"] - before["RssAnon"]
        found["file_mib"] = after["RssFile"] - before["RssFile"]
        await tables.aclose()
        return found

    return asyncio.run(run())


def apart(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Return what a function returns in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write the figures into benchmarks/results, and the page")
    add_output(parser)
    args = parser.parse_args()
    keys = {}
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as directory:
        source = Path(directory) / "rows.parquet"
        write_rows(source, args.rows)
        for key in ("id", "name"):
            parts = {"publish": apart(publish, Path(directory), source, key)}
            parts["look_up"] = apart(look_up, Path(directory), source, key)
            keys[key] = parts
    result = {"rows": args.rows, "vector": VECTOR, "keys": keys}
    print(lookup_tables.markdown(result))
    if args.write:
        args.json = report.RESULTS / "data" / "tables.json"
    write(args, "tables", result)
    if args.write:
        report.write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
