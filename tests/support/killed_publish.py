"""Publishes and is killed (kill -9) at one point after another; each time looks at what is left, and publishes again.

Run as a program: it forks a child for each point, so that hundreds cost no more than their work. Prints one JSON
document: how many points there are, which were tried, and what was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from marway.errors import NotFound
from marway.objects import DirectoryStore, ObjectStore, directory, open_store
from marway.objects.files import Files
from marway.refs import Reference
from marway.registry import Registry
from support.invariants import assert_sound
from support.registry import record_of

GOLDEN = b'{"answers": ["yes"]}'
OLD = record_of(b"old archive", version="1", id="mv_00000000000000000000000001")
S3_BYTES = 17 * 1024 * 1024
"""Three parts of an upload."""
DIRECTORY_BYTES = 40 * 65536


class Countdown:
    """Kills this process when it has been called so often; counts otherwise."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.count = 0

    def __call__(self, *_: object, **__: object) -> None:
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


class KillingFiles(Files):
    """Counts down before each change of the disk."""

    def __init__(self, countdown: Countdown) -> None:
        self._countdown = countdown

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            self._countdown()
        return super().__getattribute__(name)


def opened(url: str, countdown: Countdown | None) -> ObjectStore:
    """Open a store; with a countdown, it goes on before each change of a disk, or before and after each request."""
    store = open_store(url)
    if countdown is None:
        return store
    if isinstance(store, DirectoryStore):
        return DirectoryStore(store._root, files=KillingFiles(countdown))
    events = store._client.meta.events  # type: ignore[attr-defined]
    for event in ("before-send.s3", "response-received.s3"):
        events.register(event, countdown)
    return store


def publish(store: ObjectStore, path: Path) -> None:
    registry = Registry(store)
    registry.publish(record(path), path, golden=GOLDEN)
    registry.release("intent", "2", by="test")


def record(path: Path) -> Any:
    return record_of(path.read_bytes(), version="2", id="Run-2", golden_sha256=hashlib.sha256(GOLDEN).hexdigest())


def check(url: str, path: Path) -> None:
    """Assert that all is sound after a kill, that publishing again succeeds, and that all is sound then."""
    store = open_store(url)
    labels = assert_sound(store)["intent"]
    assert labels["PROD"].version in ("1", "2")
    try:
        Registry(store).resolve(Reference("intent", "2"))
    except NotFound:
        assert labels["PROD"].version == "1"
    publish(store, path)
    assert assert_sound(store)["intent"]["PROD"].version == "2"
    store.sweep(older_than_s=-60)
    assert assert_sound(store)["intent"]["PROD"].version == "2"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="Parent of the registries: one for each point.")
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--tries", type=int, required=True)
    options = parser.parse_args()
    directory._CHUNK_BYTES = 65536  # more points within the copying
    path = options.scratch / "2.mar"
    path.write_bytes(os.urandom(S3_BYTES if options.url.startswith("s3:") else DIRECTORY_BYTES))
    old = options.scratch / "1.mar"
    old.write_bytes(b"old archive")

    def fresh(name: str) -> str:
        url = f"{options.url}/{name}"
        registry = Registry(open_store(url))
        registry.publish(OLD, old)
        registry.release("intent", "1", by="test")
        return url

    counting = Countdown(None)
    url = fresh("whole")
    publish(opened(url, counting), path)
    points = counting.count
    tried = sorted({round(number * (points - 1) / max(1, options.tries - 1)) for number in range(options.tries)})
    problems = []
    for point in tried:
        url = fresh(str(point))
        child = os.fork()
        if child == 0:
            try:
                publish(opened(url, Countdown(point)), path)
            except BaseException:
                traceback.print_exc()
            os._exit(1)  # it came to its end, or failed: either way it was not killed
        status = os.waitpid(child, 0)[1]
        try:
            assert os.WIFSIGNALED(status), f"the child was not killed, status {status}"
            check(url, path)
        except Exception:
            problems.append(f"point {point}: {traceback.format_exc()}")
    json.dump({"points": points, "tried": tried, "problems": problems}, sys.stdout)


if __name__ == "__main__":
    main()
