"""Jobs that give way to all others: they begin only while nobody else waits, alone in their call, and few may wait."""

from __future__ import annotations

import asyncio

import pytest

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, NoRoomToSpare
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway.wire.envelope import Answer, Part, Row
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.scheduler import Job
from support.fake_server import FakeServer
from support.pools import PoolRoom
from support.registry import until

pytestmark = pytest.mark.timeout(60)
ONE = ServingSettings(max_workers=1, max_batch_rows=4)


class Asked:
    """A version whose workers are busy until the test lets calls end, and the requests that came."""

    def __init__(self, pool: ModelPool, server: FakeServer, record: VersionRecord, serving: ServingSettings) -> None:
        self.pool, self.server, self.record, self.serving = pool, server, record, serving
        self.tasks: list[asyncio.Task[list[Answer]]] = []

    def come(self, value: str, priority: str | None = None, *, timeout_s: float = 30.0) -> asyncio.Task[list[Answer]]:
        row = Row(value, [Part("data", value.encode())])
        job = Job([row], Deadline.after(timeout_s), priority=priority)
        task = asyncio.create_task(self.pool.predict(self.record, self.serving, job))
        self.tasks.append(task)
        return task

    async def turns(self) -> None:
        """Let all that is due happen."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def end(self) -> None:
        self.server.answer.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def asked(room: PoolRoom, record: VersionRecord, serving: ServingSettings = ONE, *, load: bool = True) -> Asked:
    server = FakeServer(call_s=None)
    pool = room.pool(scale_up_wait_s=60)
    pool.attach(server)
    if load:
        await pool.load(record, serving, Deadline.after(30))
    return Asked(pool, server, record, serving)


async def test_others_go_first(room: PoolRoom, record: VersionRecord) -> None:
    """What came later and gives way to nobody goes before a copy that waits; copies go one by one after them."""
    it = await asked(room, record)
    it.come("first")
    await until(lambda: it.server.calls == [["first"]])
    it.come("copy", "shadow")
    it.come("replay", "batch")
    await it.turns()
    for value in ("a", "b"):
        it.come(value)
    await it.turns()
    await it.end()
    assert it.server.calls == [["first"], ["a", "b"], ["copy"], ["replay"]]


async def test_one_slot_stays_free(room: PoolRoom, record: VersionRecord) -> None:
    """With two workers copies take one of them, so that nobody ever waits for a copy."""
    two = ServingSettings(min_workers=2, max_workers=2)
    it = await asked(room, record, two)
    for number in range(3):
        it.come(str(number), "shadow")
    await until(lambda: it.server.calls == [["0"]])
    it.come("caller")
    await until(lambda: it.server.calls == [["0"], ["caller"]])
    await it.turns()
    assert it.server.calls == [["0"], ["caller"]]
    await it.end()
    assert [*it.server.calls[2:]] == [["1"], ["2"]]


async def test_few_wait(room: PoolRoom, record: VersionRecord) -> None:
    """The seventeenth that waits is refused at once, with a code of its own; callers are not."""
    it = await asked(room, record)
    it.come("first")
    await until(lambda: it.server.calls == [["first"]])
    waiting = [it.come(str(number), "shadow") for number in range(16)]
    await it.turns()
    with pytest.raises(NoRoomToSpare, match="16 requests that give way") as refused:
        await it.come("more", "batch")
    assert refused.value.code == "no_room_to_spare"
    waiting[3].cancel()
    await it.turns()
    it.come("again", "batch")
    it.come("caller")
    await it.end()
    assert it.server.calls[1] == ["caller"]
    assert ["3"] not in it.server.calls
    assert it.server.calls[-1] == ["again"]


async def test_copies_load_nothing(room: PoolRoom, record: VersionRecord) -> None:
    """A copy is refused where the version is not ready; a batch request has it loaded, as any request has."""
    it = await asked(room, record, load=False)
    with pytest.raises(NoRoomToSpare, match="is not ready here"):
        await it.come("copy", "shadow")
    assert it.server.loads == 0
    it.server.answer.set()
    answers = await it.come("replay", "batch")
    assert [answer.headers["value"] for answer in answers] == ["replay"]
    assert it.server.loads == 1


async def test_waits_for_others_of_the_pod(room: PoolRoom) -> None:
    """While callers wait for one version, no copy for another begins on the same pod; nor does it scale workers."""
    first, second = room.versions(2)
    it = await asked(room, first)
    await it.pool.load(second, ONE, Deadline.after(30))
    it.come("busy")
    await until(lambda: it.server.calls == [["busy"]])
    it.come("waits")
    await it.turns()
    job = Job([Row("copy", [Part("data", b"copy")])], Deadline.after(30), priority="shadow")
    copy = asyncio.create_task(it.pool.predict(second, ONE, job))
    await asyncio.sleep(0.02)
    assert it.server.calls == [["busy"]]
    await it.end()
    await copy
    assert it.server.calls == [["busy"], ["waits"], ["copy"]]


async def test_deadline_of_who_waits(room: PoolRoom, record: VersionRecord) -> None:
    """One that waits until its deadline is told so, and is gone from the queue."""
    it = await asked(room, record)
    it.come("first")
    await until(lambda: it.server.calls == [["first"]])
    with pytest.raises(DeadlineExceeded):
        await it.come("copy", "shadow", timeout_s=0.05)
    await it.end()
    assert it.server.calls == [["first"]]
