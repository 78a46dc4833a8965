"""Fetches an archive and is killed (kill -9) at one point after another; looks at what is left and fetches again.

Run as a program: it forks a child for each point, so that hundreds cost no more than their work. Prints one JSON
document: how many points there are, which were tried, and what was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import traceback
from pathlib import Path

from marway.archive_store import ArchiveStore, download
from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.registry import Registry
from support.archives import MIB, names, published
from support.killed_publish import Countdown, KillingFiles, opened

SIZE = 3 * MIB + 17


def fetch(url: str, root: Path, record: VersionRecord, countdown: Countdown) -> None:
    """Fetch, counting down before each change of the disk; over S3, also before and after each request."""
    registry = Registry(opened(url, None if url.startswith("file:") else countdown))
    store = ArchiveStore(root, registry, observe=lambda *_: None, files=KillingFiles(countdown))
    store.use(record.archive).close()


def check(url: str, root: Path, record: VersionRecord) -> None:
    """Assert that what is visible after a kill is whole, and that the next process fetches, and cleans up."""
    visible = root / f"{record.archive.sha256}.mar"
    if visible.exists():
        assert hashlib.sha256(visible.read_bytes()).hexdigest() == record.archive.sha256
    outcomes: list[str] = []
    store = ArchiveStore(root, Registry(opened(url, None)), observe=lambda outcome, _: outcomes.append(outcome))
    was_there = visible.exists()
    store.clean()
    with store.use(record.archive) as used:
        assert hashlib.sha256(used.path.read_bytes()).hexdigest() == record.archive.sha256
    assert outcomes == ([] if was_there else ["ok"])
    assert names(root) == [visible.name]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="A registry.")
    parser.add_argument("stores", type=Path, help="Parent of the stores: one for each point.")
    parser.add_argument("--tries", type=int, required=True)
    options = parser.parse_args()
    options.stores.mkdir()
    download._PIECE_BYTES = 65536  # type: ignore[misc]  # more points within the copying
    download._SYNC_BYTES = MIB  # type: ignore[misc]
    download.PARALLEL_FROM_BYTES = download._PART_BYTES = MIB  # type: ignore[misc]
    registry = Registry(opened(options.url, None))
    assert isinstance(registry._store, DirectoryStore) == options.url.startswith("file:")
    record = published(registry, options.stores, "large", SIZE)
    counting = Countdown(None)
    fetch(options.url, options.stores / "whole", record, counting)
    points = counting.count
    # Streams take turns as they like, and the last points may fall away: what is tried stays clear of them.
    last = points - 1 if options.url.startswith("file:") else points - 4
    tried = sorted({round(number * last / max(1, options.tries - 1)) for number in range(options.tries)})
    problems = []
    for point in tried:
        root = options.stores / str(point)
        child = os.fork()
        if child == 0:
            try:
                fetch(options.url, root, record, Countdown(point))
            except BaseException:
                traceback.print_exc()
            os._exit(1)  # it came to its end, or failed: either way it was not killed
        status = os.waitpid(child, 0)[1]
        try:
            assert os.WIFSIGNALED(status), f"the child was not killed, status {status}"
            check(options.url, root, record)
        except Exception:
            problems.append(f"point {point}: {traceback.format_exc()}")
    json.dump({"points": points, "tried": tried, "problems": problems}, sys.stdout)


if __name__ == "__main__":
    main()
