"""Tables of a lookup node: memory and look-ups per second for a million rows, or as many as are asked for.

Rows have a key, a text, a number and a vector of 64 numbers. Each measurement is a process of its own, so that what
it holds in memory is its own: `RssAnon` is memory that nobody shares, `RssFile` pages of the file that are mapped,
which the page cache has for all. Keys are drawn by chance, so that nearly every look-up touches other pages.

    python benchmarks/bench_tables.py --rows 1000000 --output benchmarks/results/tables.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe

VECTOR = 64
SECONDS = 2.0


def write(path: Path, rows: int) -> None:
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


def report(rows: int, found: dict[str, dict[str, dict[str, float]]]) -> str:
    about = describe()
    where = "; ".join(
        f"{name} {about[name]}" for name in ("measured", "commit", "processors", "load average", "Python")
    )
    lines = [
        "# Tables of lookup nodes",
        "",
        f"{rows:,} rows of a key, a text, a number and a vector of {VECTOR} numbers; keys by chance. {where}.",
        "",
        "| | " + " | ".join(f"key `{key}`" for key in found) + " |",
        "|---" * (len(found) + 1) + "|",
    ]

    def row(what: str, part: str, name: str, unit: str) -> None:
        cells = (f"{each[part][name]:,.0f} {unit}".rstrip() for each in found.values())
        lines.append(f"| {what} | {' | '.join(cells)} |")

    row("size of the version", "publish", "size_mib", "MiB")
    row("publishing, from Parquet", "publish", "seconds", "s")
    row("memory for that, at its peak", "publish", "peak_mib", "MiB")
    row("memory that the open table takes (anonymous)", "look_up", "open_anon_mib", "MiB")
    row("the same after all look-ups", "look_up", "anon_mib", "MiB")
    row("pages of the file that were mapped by then, which the page cache has for all", "look_up", "file_mib", "MiB")
    row("rows a second, one key a look-up, in one thread", "look_up", "rows_s_1", "")
    row("the same as a node asks: one after another, over the gateway's threads", "look_up", "node_s_1", "")
    row("rows a second, 100 keys a look-up, in one thread", "look_up", "rows_s_100", "")
    row("the same as a node asks", "look_up", "node_s_100", "")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as directory:
        source = Path(directory) / "rows.parquet"
        write(source, arguments.rows)
        for key in ("id", "name"):
            parts = {"publish": apart(publish, Path(directory), source, key)}
            parts["look_up"] = apart(look_up, Path(directory), source, key)
            found[key] = parts
    print(json.dumps(found, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(report(arguments.rows, found))


if __name__ == "__main__":
    main()
