"""Sequences in a pod: one worker, in their order, many in one call; and what becomes of them when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from marway.archives.sequences import SequenceSettings
from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, InvalidRequest, ModelError, Overloaded, SequenceNotFound, Unimplemented
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway.wire.envelope import Answer, Part, Row
from marway.wire.headers import SEQUENCE_END, SEQUENCE_ID, SEQUENCE_START, SEQUENCE_WORKER
from marway.worker.sequences import InSequences
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.scheduler import Job, StreamJob
from support.fake_server import FakeServer
from support.pools import PoolRoom
from support.registry import until

pytestmark = pytest.mark.timeout(60)
SERVING = ServingSettings(max_batch_rows=8)


class Adder(FakeServer):
    """A model server whose worker adds up what comes of each sequence; `deadly` kills it, and another one follows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.restart()

    def restart(self) -> None:
        """Lose the worker with all that it keeps."""
        self.sums: dict[str, int] = {}
        self.begun: list[str] = []
        self.worker = InSequences(self.add)

    def add(self, rows: Sequence[Row], _: Callable[[Answer], None]) -> list[Answer]:
        answers = []
        for row in rows:
            name = row.headers[SEQUENCE_ID]
            if row.headers.get(SEQUENCE_START) == "true":
                self.begun.append(name)
                self.sums[name] = 0
            value = row.parts[0].value.decode()
            if value == "bad":
                answers.append(Answer(500, b"no number", "error"))
                continue
            self.sums[name] += int(value)
            ended = {SEQUENCE_END: name} if value == "0" else {}
            answers.append(Answer(200, str(self.sums[name]).encode(), "text", headers=ended))
        return answers

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        try:
            await super().predict(model, rows, deadline)
        except Exception:
            self.restart()
            raise
        return self.worker(rows, lambda _: None)


class Room:
    """A pool with one version that keeps sequences."""

    def __init__(self, room: PoolRoom, record: VersionRecord, rules: dict[str, Any]) -> None:
        self.record = record.model_copy(update={"sequences": SequenceSettings(**rules)})
        self.server = Adder()
        self.pool: ModelPool = room.pool(scale_up_wait_s=60)
        self.pool.attach(self.server)

    async def ask(self, name: str | None, value: object, *, timeout_s: float = 30.0, **more: str) -> str:
        """Send one request of a sequence, and return what was answered."""
        headers = {**({} if name is None else {SEQUENCE_ID: name}), **more}
        job = Job([Row("r", [Part("data", str(value).encode())], headers)], Deadline.after(timeout_s))
        (answer,) = await self.pool.predict(self.record, SERVING, job)
        assert SEQUENCE_WORKER not in answer.headers
        assert name is None or answer.headers[SEQUENCE_ID] == name
        assert answer.kind == "text", answer
        return answer.body.decode()

    async def gone(self, name: str, why: str, **more: str) -> None:
        """Assert that a sequence is told to be gone."""
        with pytest.raises(SequenceNotFound, match=why):
            await self.ask(name, 1, **more)


@pytest.fixture
def kept(room: PoolRoom, record: VersionRecord) -> Callable[..., Room]:
    return lambda **rules: Room(room, record, rules)


START, GO_ON, END = {SEQUENCE_START: "true"}, {SEQUENCE_START: "false"}, {SEQUENCE_END: "true"}


async def test_one_after_the_other_and_many_together(kept: Callable[..., Room]) -> None:
    """Requests of one sequence are answered in their order, one in each call; those of several share calls."""
    one = kept(max_waiting=5)
    await one.pool.load(one.record, SERVING, Deadline.after(30))
    one.server.call_s = None
    asked = [asyncio.create_task(one.ask("a", 1))]
    await until(lambda: one.server.calls == [["1"]])
    for name, value in (("a", 2), ("a", 3), ("b", 10), ("b", 20), ("c", 100)):
        asked.append(asyncio.create_task(one.ask(name, value)))
    await asyncio.sleep(0.01)
    one.server.answer.set()
    assert await asyncio.gather(*asked) == ["1", "3", "6", "10", "30", "100"]
    assert one.server.calls == [["1"], ["10", "100", "2"], ["20", "3"]]
    assert one.server.begun == ["a", "b", "c"]
    assert one.server.violations == []


async def test_start_and_end(kept: Callable[..., Room]) -> None:
    """One begins where there is none or where that is said, goes on else; what is to go on and is not there is told."""
    one = kept()
    await one.gone("a", "was not begun", **GO_ON)
    assert await one.ask("a", 1) == "1"
    assert await one.ask("a", 1, **GO_ON) == "2"
    assert await one.ask("a", 5, **START) == "5"
    assert await one.ask("a", 1, **END) == "6"
    await one.gone("a", "has ended", **GO_ON)
    assert await one.ask("a", 7) == "7"
    assert await one.ask("a", 0) == "7"  # by which the handler ends it
    await one.gone("a", "has ended", **GO_ON)
    assert await one.ask(None, 3) == await one.ask(None, 3) == "3"


async def test_idle_and_old_sequences_end(kept: Callable[..., Room]) -> None:
    """Who comes too late is told so once, and then begins anew; a sequence that lives keeps its version loaded."""
    one = kept(idle_s=0.05)
    entry = one.pool.wanted
    assert await one.ask("a", 1) == "1"
    assert not entry[one.record.id].entry.idle
    await until(lambda: entry[one.record.id].entry.idle)
    await one.gone("a", "no request of it came for 0.05 s")
    assert await one.ask("a", 1) == "1"
    old = kept(timeout_s=0.05)
    assert await old.ask("a", 1) == "1"
    await asyncio.sleep(0.06)
    await old.gone("a", "it began more than 0.05 s ago")


async def test_a_lost_worker_is_told_once(kept: Callable[..., Room]) -> None:
    """Each sequence whose worker died hears of it with its next request, in the call or out of it, and only then."""
    one = kept()
    assert [await one.ask(name, 1) for name in "abc"] == ["1", "1", "1"]
    one.server.deadly = "9"
    with pytest.raises(SequenceNotFound, match="killed its worker"):
        await one.ask("a", 9)
    await one.gone("b", "the worker that had its state has ended")
    await one.gone("c", "the worker that had its state has ended", **GO_ON)
    await one.gone("c", "was not begun", **GO_ON)
    assert [await one.ask(name, 2) for name in "ab"] == ["2", "2"]
    assert await one.ask("b", 2) == "4"
    one.server.lose(next(iter(one.server.held)))  # as a restarted server does
    one.server.restart()
    await one.gone("b", "the worker that had its state has ended")


async def test_too_many(kept: Callable[..., Room]) -> None:
    """More sequences than may live, and more requests of one than may wait, are refused by name."""
    one = kept(max_live=1)
    await one.ask("a", 1)
    with pytest.raises(Overloaded, match=r"1 sequences of some 1\.0 live on this pod, which is the most"):
        await one.ask("b", 1)
    one.server.call_s = None
    first, second = (asyncio.create_task(one.ask("a", value)) for value in (2, 3))
    await asyncio.sleep(0)
    await until(lambda: len(one.server.calls) == 2)
    with pytest.raises(ModelError, match="2 requests of the sequence 'a' are under way") as refused:
        await one.ask("a", 4)
    assert refused.value.status == 503
    second.cancel()
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        await one.ask("a", 5, timeout_s=0.02)
    one.server.answer.set()
    assert await first == "3"
    assert await one.ask("a", 6, **END) == "9"  # nothing of those that left
    one.server.call_s = 0.0
    assert await one.ask("b", 1) == "1"


async def test_what_fails_and_begins_nothing(kept: Callable[..., Room]) -> None:
    """A handler's error leaves a sequence as it is; a first request that never got there begins none."""
    one = kept()
    one.server.deadly = "9"
    with pytest.raises(SequenceNotFound, match="killed its worker"):
        await one.ask("a", 9)
    await one.gone("a", "was not begun", **GO_ON)
    await one.ask("a", 1)
    job = Job([Row("r", [Part("data", b"bad")], {SEQUENCE_ID: "a"})], Deadline.after(30))
    (answer,) = await one.pool.predict(one.record, SERVING, job)
    assert (answer.status, answer.kind) == (500, "error")
    assert await one.ask("a", 1, **GO_ON) == "2"


async def test_what_is_no_request_of_a_sequence(kept: Callable[..., Room]) -> None:
    """Several rows, an answer in pieces, and ids and starts that cannot be are refused."""
    one = kept()
    row = Row("r", [Part("data", b"1")], {SEQUENCE_ID: "a"})
    with pytest.raises(InvalidRequest, match="one row with each request"):
        await one.pool.predict(one.record, SERVING, Job([row, row], Deadline.after(5)))
    with pytest.raises(Unimplemented, match="answers whole"):
        await anext(one.pool.stream(one.record, SERVING, StreamJob(row, Deadline.after(5))))
    with pytest.raises(InvalidRequest, match="1 to 256 characters"):
        await one.ask("a" * 257, 1)
    with pytest.raises(InvalidRequest, match="say true or false"):
        await one.ask("a", 1, **{SEQUENCE_START: "perhaps"})
