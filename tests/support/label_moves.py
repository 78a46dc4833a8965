"""Writers that move one label at the same time, each a process. Run as a program, which forks them.

Prints one JSON document: the op_ids that were acknowledged, and what went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from marway.errors import MarwayError
from marway.objects import ObjectChanged, ObjectExists, ObjectStore, open_store
from marway.registry import Registry

VERSIONS = ("1", "2")


class LossyStore:
    """A store that says of one write in ten that it was refused although it was done: the trap of a lost reply."""

    def __init__(self, store: ObjectStore, chance: float) -> None:
        self._store = store
        self._chance = chance
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def advisory_lock(self, key: str) -> AbstractContextManager[None]:
        return self._store.advisory_lock(key)

    def create(self, key: str, data: bytes) -> str:
        etag = self._store.create(key, data)
        self._lose(ObjectExists(key))
        return etag

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        new = self._store.replace(key, data, etag=etag)
        self._lose(ObjectChanged(key))
        return new

    def _lose(self, error: Exception) -> None:
        if random.random() < self._chance:
            self.lost += 1
            raise error


def move(url: str, moves: int, loss: float, start: float) -> dict[str, Any]:
    store = LossyStore(open_store(url), loss)
    registry = Registry(store)  # type: ignore[arg-type]
    acknowledged, problems = [], []
    while time.time() < start:  # all at once
        time.sleep(0.01)
    for number in range(moves):
        try:
            change = registry.release("intent", VERSIONS[number % 2], by=f"writer {os.getpid()}")
            acknowledged.append(change.entry.op_id)
        except MarwayError as exc:
            problems.append(f"{type(exc).__name__}: {exc.message}")
    return {"acknowledged": acknowledged, "problems": problems, "lost": store.lost}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--writers", type=int, required=True)
    parser.add_argument("--moves", type=int, required=True)
    parser.add_argument("--loss", type=float, default=0.0)
    options = parser.parse_args()
    start = time.time() + 0.5
    children = []
    for writer in range(options.writers):
        child = os.fork()
        if child == 0:
            random.seed(writer)
            found = move(options.url, options.moves, options.loss, start)
            (options.scratch / f"writer-{writer}.json").write_text(json.dumps(found))
            os._exit(0)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    total: dict[str, Any] = {"acknowledged": [], "problems": [f"exit {each}" for each in statuses if each], "lost": 0}
    for writer in range(options.writers):
        for key, value in json.loads((options.scratch / f"writer-{writer}.json").read_text()).items():
            total[key] += value
    json.dump(total, sys.stdout)


if __name__ == "__main__":
    main()
