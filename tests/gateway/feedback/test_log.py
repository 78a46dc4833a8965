"""Feedback is in the store before anybody is told so, many calls in one file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from marway.errors import Draining, MarwayError, OutcomeUnknown, Overloaded, RegistryUnavailable, Unavailable
from marway.objects import DirectoryStore
from marway_gateway.feedback.entries import read_feedback
from marway_gateway.feedback.log import FeedbackLog
from marway_gateway.observe.metrics import Metrics
from support.kept_feedback import feedback_files, kept_feedback
from support.power import Cut, ForgetsFiles, RecordingFiles, after_cut

BUSY_S = 3600.0
"""An interval that no test waits out."""


class SlowStore(DirectoryStore):
    """Takes nothing until it is let, and fails when it is told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.let = threading.Event()
        self.let.set()
        self.asked = threading.Event()
        self.error: Exception | None = None

    def create(self, key: str, data: bytes) -> str:
        self.asked.set()
        assert self.let.wait(30)
        if self.error is not None:
            raise self.error
        return super().create(key, data)


def entry(number: int, **more: Any) -> pa.Table:
    """Return the rows of a call with one entry."""
    said = {"prediction_id": f"01KBARM2T5A1B2C3D4E5{number:06}", "score": number, **more}
    return read_feedback(json.dumps(said).encode(), client=f"client-{number % 3}")


@contextlib.asynccontextmanager
async def opened(
    store: DirectoryStore, *, interval_s: float = 0.0, max_bytes: int = 1000
) -> AsyncIterator[FeedbackLog]:
    """Open one; a second close does nothing."""
    log = FeedbackLog(store, interval_s=interval_s, max_bytes=max_bytes, metrics=Metrics())
    try:
        yield log
    finally:
        await log.aclose()
        await log.aclose()


async def test_a_call_that_comes_alone_is_kept_at_once(tmp_path: Path) -> None:
    """What comes after a pause waits for nothing but the store, and is there when its sender is told."""
    store = DirectoryStore(tmp_path)
    async with opened(store, interval_s=BUSY_S) as log:
        await log.keep(entry(1, source="survey"))
        (row,) = kept_feedback(store)
    assert (row["score"], row["source"], row["client"]) == (1.0, "survey", "client-1")


async def test_calls_share_files(tmp_path: Path) -> None:
    """Calls that come while a file is written go into the next one, whose rows lie in the order of prediction ids."""
    store = SlowStore(tmp_path)
    async with opened(store) as log:
        store.let.clear()
        first = asyncio.create_task(log.keep(entry(0)))
        await asyncio.to_thread(store.asked.wait)
        others = [asyncio.create_task(log.keep(entry(number, source=f"s{number}"))) for number in (7, 3, 9, 1)]
        await asyncio.sleep(0)
        store.let.set()
        await asyncio.gather(first, *others)
    files = feedback_files(store)
    assert [[row["score"] for row in rows] for rows in files] == [[0.0], [1.0, 3.0, 7.0, 9.0]]
    assert [row["source"] for row in files[1]] == ["s1", "s3", "s7", "s9"]
    assert [row["client"] for row in files[1]] == ["client-1", "client-0", "client-1", "client-0"]


async def test_files_are_not_begun_close_together(tmp_path: Path) -> None:
    """A client that sends call after call makes one file an interval; closing writes what waits without one."""
    store = DirectoryStore(tmp_path)
    async with opened(store, interval_s=BUSY_S) as log:
        await log.keep(entry(0))
        waiting = [asyncio.create_task(log.keep(entry(number))) for number in (1, 2)]
        await asyncio.sleep(0.05)
        assert not any(each.done() for each in waiting)
    await asyncio.gather(*waiting)
    assert [len(rows) for rows in feedback_files(store)] == [1, 2]
    with pytest.raises(Draining):
        await log.keep(entry(3))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RegistryUnavailable("the store does not answer"), "was not kept, send it again: the store does not answer"),
        (OutcomeUnknown("no reply came"), "may not have been kept, send it again: no reply came"),
        (OSError("odd"), "was not kept, send it again: OSError: odd"),
    ],
)
async def test_a_store_that_is_away_is_told(tmp_path: Path, error: Exception, words: str) -> None:
    """Nobody is told that feedback is kept which is not; once the store takes it again all is as before."""
    store = SlowStore(tmp_path)
    async with opened(store) as log:
        store.error = error
        for _ in range(2):
            with pytest.raises(Unavailable, match=words) as caught:
                await log.keep(entry(1))
            assert caught.value.retry_after_s
        store.error = None
        await log.keep(entry(2))
    assert [row["score"] for row in kept_feedback(store)] == [2.0]


async def test_a_caller_that_leaves_harms_nobody(tmp_path: Path) -> None:
    """Who no longer waits is not told; others in the same file are."""
    store = SlowStore(tmp_path)
    async with opened(store) as log:
        store.let.clear()
        calls = [asyncio.create_task(log.keep(entry(number))) for number in range(3)]
        await asyncio.to_thread(store.asked.wait)
        calls[1].cancel()
        store.let.set()
        await asyncio.gather(calls[0], calls[2])
    assert {row["score"] for row in kept_feedback(store)} == {0.0, 1.0, 2.0}


async def test_closing_does_not_wait_for_a_store_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway stops although its store does not answer, and says that the feedback is not kept."""
    monkeypatch.setattr("marway_gateway.feedback.log._CLOSE_S", 0.05)
    store = SlowStore(tmp_path)
    store.let.clear()
    async with opened(store) as log:
        call = asyncio.create_task(log.keep(entry(1)))
        await asyncio.to_thread(store.asked.wait)
        later = asyncio.create_task(log.keep(entry(2)))
        await asyncio.sleep(0)
    for each in (call, later):
        with pytest.raises(Draining):
            await each
    store.let.set()


async def test_what_is_in_hand_is_bounded(tmp_path: Path) -> None:
    """Calls beyond the room are refused and leave none of it taken; one alone may have more than all of it."""
    async with opened(DirectoryStore(tmp_path), max_bytes=100) as log:
        with log.holding() as large:
            large.take(500)
            large.take(500)
            with pytest.raises(Overloaded), log.holding() as other:
                other.take(1)
        assert log.held_bytes == 0
        with log.holding() as one, log.holding() as other:
            one.take(60)
            other.take(40)
            with pytest.raises(Overloaded):
                other.take(1)
            assert log.held_bytes == 100


async def told(root: Path, files: RecordingFiles) -> dict[int, int]:
    """Keep feedback in three files; return by entry after how many changes of the disk its sender was told."""
    found = {}
    async with opened(DirectoryStore(root, files=files)) as log:
        for group in ((0,), (1, 2, 3), (4, 5)):
            await asyncio.gather(*(log.keep(entry(number)) for number in group))
            found.update(dict.fromkeys(group, len(files.changes)))
    return found


def lost(files: RecordingFiles, root: Path, acknowledged: dict[int, int], cut: Cut, into: Path) -> int:
    """Return after how many of all moments in which the power may go something is not there whose sender was told."""
    found = 0
    for count in range(len(files.changes) + 1):
        left = after_cut(files.changes, root, count=count, cut=cut, seed=count, into=into / str(count))
        try:
            scores = {row["score"] for row in kept_feedback(DirectoryStore(left))}
        except (pa.ArrowInvalid, MarwayError):
            found += 1
            continue
        found += not scores >= {number for number, at in acknowledged.items() if at <= count}
    return found


@pytest.mark.parametrize("cut", ["nothing", "names", "some"])
async def test_no_moment_loses_what_was_told(tmp_path: Path, cut: Cut) -> None:
    """Whenever the process is killed or the power goes, feedback whose sender was told is there, and no half file."""
    files, root = RecordingFiles(), tmp_path / "store"
    acknowledged = await told(root, files)
    assert lost(files, root, acknowledged, cut, tmp_path / "cuts") == 0


async def test_the_moments_would_find_a_mistake(tmp_path: Path) -> None:
    """The same moments find what is lost where files are not fsynced."""
    files, root = ForgetsFiles(), tmp_path / "store"
    acknowledged = await told(root, files)
    assert lost(files, root, acknowledged, "names", tmp_path / "cuts") > 5
