"""Collects garbage again and again while others publish, release and delete; most collections are killed (kill -9).

Run as a program: it forks writers and one collection after another, so that hundreds cost no more than their work. For
each collection a day has passed since the one before, which no publish can wait for in truth: so each publish meets
marks, sentences and deletions at every point of its way. Prints one JSON document: what was done, and what was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from marway.errors import MarwayError, NotFound, StateConflict
from marway.objects import open_store
from marway.records import VersionRecord, utc_now
from marway.refs import Reference
from marway.registry import Registry
from support.invariants import assert_sound, assert_whole
from support.killed_publish import Countdown, opened
from support.registry import publisher

CONTENTS = 5
"""Archives that all versions are made of: each is unused, and used again, many times."""
LATER = timedelta(hours=25)


class Writer:
    """Publishes versions of its own model, deletes some, and checks that what is published is there.

    Args:
        url: The registry's.
        number: Which writer this is.
        seed: Of what it does.
    """

    def __init__(self, url: str, number: int, seed: int) -> None:
        store = open_store(url)
        self._registry = Registry(store)
        self._create, store.create = store.create, self._create_late  # type: ignore[method-assign]
        self._name = f"model-{number}"
        self._random = random.Random(seed * 1000 + number)
        self._living: dict[str, VersionRecord] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="gc-writer-")
        self._publish = publisher(self._registry, Path(self._scratch.name))
        self.done: Counter[str] = Counter()

    def _create_late(self, key: str, data: bytes) -> str:
        """Be slow now and then between a publish's archive and its record: a day passes with each collection."""
        if "/versions/" in key and self._random.random() < 0.3:
            time.sleep(self._random.uniform(0, 1))
        return self._create(key, data)

    def run(self, stop: Path) -> None:
        """Write until there is a file ``stop``; whatever happens, what was acknowledged is there."""
        count = 0
        while not stop.exists():
            count += 1
            version, content = f"{count}.0", self._random.randrange(CONTENTS)
            golden = b'{"answers": %d}' % content if self._random.random() < 0.5 else None
            try:
                record = self._publish(self._name, version, data=b"content %d" % content * 500, golden=golden)
            except StateConflict:
                self.done["refused while a killed gc was deleting"] += 1
                continue
            self._living[version] = record
            self.done["published"] += 1
            self.check()
            if self._random.random() < 0.3:
                self._registry.release(self._name, version, forced=True, by="test")
                self.done["released"] += 1
            while len(self._living) > 2:
                self._delete(self._random.choice(sorted(self._living)))
        self.check()
        self._scratch.cleanup()

    def _delete(self, version: str) -> None:
        if self._registry.state(self._name).labels.get("PROD") == version:
            newest = max(self._living, key=lambda each: float(each))
            if newest == version:
                newest = min(self._living, key=lambda each: float(each))
            self._registry.release(self._name, newest, forced=True, by="test")
        self._registry.delete(self._name, version, by="test")
        del self._living[version]
        self.done["deleted"] += 1

    def check(self) -> None:
        """Assert that each version that was published and not deleted is there with all its bytes."""
        store = self._registry._store
        for version, record in self._living.items():
            assert self._registry.resolve(Reference(self._name, version)).archive == record.archive
            assert_whole(store, record)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--writers", type=int, default=3)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    choices = random.Random(options.seed)
    Registry(open_store(options.url)).create()
    stop = options.scratch / "stop"
    done: Counter[str] = Counter()
    problems: list[str] = []
    writers = [_fork(lambda number=number: _write(options, number, stop)) for number in range(options.writers)]
    ends_at = time.monotonic() + options.seconds
    points = 40
    while time.monotonic() < ends_at:
        countdown = Countdown(choices.randrange(points) if choices.random() < 0.8 else None)
        status = os.waitpid(_fork(lambda countdown=countdown: _collect(options, countdown)), 0)[1]
        done["gc killed" if os.WIFSIGNALED(status) else "gc whole"] += 1
        points = max(40, done["gc whole"] and int((options.scratch / "points").read_text()))
    stop.touch()
    # What a killed one was deleting: a publish waits for that, and refuses after half a minute.
    _collect(options, Countdown(None))
    problems += ["a writer failed" for pid in writers if os.waitpid(pid, 0)[1] != 0]
    for file in sorted(options.scratch.glob("*.json")):
        said = json.loads(file.read_text())
        done.update(said["done"])
        problems += said["problems"]
    try:
        for _ in range(3):
            Registry(open_store(options.url)).gc(now=utc_now() + LATER)
        store = open_store(options.url)
        assert_sound(store)
        found = [damage.key for damage in Registry(store).scrub()]
        assert found == [], found
    except Exception:
        problems.append(traceback.format_exc())
    json.dump({"done": done, "problems": problems}, sys.stdout)


def _fork(work: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def _write(options: argparse.Namespace, number: int, stop: Path) -> None:
    writer = Writer(options.url, number, options.seed)
    problems = []
    try:
        writer.run(stop)
    except Exception:
        problems.append(f"writer {number}: {traceback.format_exc()}")
    (options.scratch / f"{number}.json").write_text(json.dumps({"done": writer.done, "problems": problems}))


def _collect(options: argparse.Namespace, countdown: Countdown) -> None:
    registry = Registry(opened(options.url, countdown))
    with suppress(NotFound):
        try:
            registry.gc(now=utc_now() + LATER)
        except MarwayError as exc:
            (options.scratch / "gc.json").write_text(json.dumps({"done": {}, "problems": [f"gc: {exc}"]}))
            raise
    (options.scratch / "points").write_text(str(max(1, countdown.count)))


if __name__ == "__main__":
    main()
