"""Batches: what waits while a worker is busy goes as one call, and what one row does harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, ModelError, Overloaded
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway.wire.envelope import Answer, Part, Row
from marway_sidecar.backends.base import NotSent, WorkerDied
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler import Job
from support.fake_server import FakeServer
from support.pools import ROW, PoolRoom, predict
from support.registry import until

pytestmark = pytest.mark.timeout(60)
ONE = ServingSettings(max_workers=1, max_batch_rows=4, max_batch_bytes=1000)


def row(value: str) -> Row:
    return Row(value, [Part("data", value.encode())])


async def ask(
    pool: ModelPool,
    record: VersionRecord,
    *values: str,
    serving: ServingSettings = ONE,
    timeout_s: float = 30.0,
    group: str = "",
) -> list[Answer]:
    job = Job([row(value) for value in values], Deadline.after(timeout_s), group=group)
    return await pool.predict(record, serving, job)


class Crowd:
    """A version whose one worker is busy with `first` until `go`, while others come."""

    def __init__(self, pool: ModelPool, record: VersionRecord, server: FakeServer, serving: ServingSettings) -> None:
        self.pool, self.record, self.server, self.serving = pool, record, server, serving
        self.tasks: list[asyncio.Task[list[Answer]]] = []

    async def begin(self) -> None:
        await self.pool.load(self.record, self.serving, Deadline.after(30))
        self.server.call_s = None
        self.come("first")
        await until(lambda: self.server.calls == [["first"]])

    def come(self, *values: str, timeout_s: float = 30.0, group: str = "") -> None:
        """Have a request come with these rows."""
        asking = ask(self.pool, self.record, *values, serving=self.serving, timeout_s=timeout_s, group=group)
        self.tasks.append(asyncio.create_task(asking))

    async def queued(self, count: int) -> None:
        def waiting() -> int:
            status = self.pool.status_of(self.record.id)
            assert status is not None
            return status.requests_queued

        await until(lambda: waiting() == count)

    async def go(self) -> list[list[Answer] | BaseException]:
        """Let calls end, and return what came of every request."""
        self.server.answer.set()
        return await asyncio.gather(*self.tasks, return_exceptions=True)


async def crowd_of(
    room: PoolRoom,
    record: VersionRecord,
    serving: ServingSettings = ONE,
    metrics: SidecarMetrics | None = None,
    **settings: int,
) -> Crowd:
    server = FakeServer()
    pool = room.pool(metrics, scale_up_wait_s=60, **settings)
    pool.attach(server)
    crowd = Crowd(pool, record, server, serving)
    await crowd.begin()
    return crowd


def values(found: Sequence[list[Answer] | BaseException]) -> list[list[str]]:
    """Return what was answered, by request; a failed one fails the test."""
    said = []
    for answers in found:
        assert not isinstance(answers, BaseException), answers
        said.append([answer.headers["value"] for answer in answers])
    return said


async def test_what_waits_goes_as_one_call(room: PoolRoom, record: VersionRecord, metrics: SidecarMetrics) -> None:
    """One request alone goes at once; those that wait go together, in their order, as many rows as may."""
    crowd = await crowd_of(room, record, metrics=metrics)
    for number in range(6):
        crowd.come(str(number))
    await crowd.queued(6)
    assert values(await crowd.go()) == [["first"], *[[str(number)] for number in range(6)]]
    assert crowd.server.calls == [["first"], ["0", "1", "2", "3"], ["4", "5"]]
    assert crowd.server.violations == []
    assert metrics.registry.get_sample_value("marway_sidecar_batch_rows_sum") == 7
    assert metrics.registry.get_sample_value("marway_sidecar_batch_rows_count") == 3


async def test_what_came_together_goes_together(room: PoolRoom, record: VersionRecord) -> None:
    """Requests that are there when a worker is free go in one call, and those that come later do not wait for more."""
    server = FakeServer()
    pool = room.pool(scale_up_wait_s=60)
    pool.attach(server)
    await pool.load(record, ONE, Deadline.after(30))
    await asyncio.gather(*(ask(pool, record, str(number)) for number in range(3)))
    await ask(pool, record, "3")
    assert server.calls == [["0", "1", "2"], ["3"]]


async def test_free_workers_share_what_came_together(room: PoolRoom, record: VersionRecord) -> None:
    """Two free workers get half of it each, rather than one of them all."""
    serving = ServingSettings(min_workers=2, max_workers=2, max_batch_rows=4, max_batch_bytes=1000)
    server = FakeServer()
    pool = room.pool(scale_up_wait_s=60)
    pool.attach(server)
    await pool.load(record, serving, Deadline.after(30))
    await until(lambda: pool.statuses()[0].workers == 2)
    await asyncio.gather(*(ask(pool, record, str(number), serving=serving) for number in range(3)))
    assert server.calls == [["0", "1"], ["2"]]
    assert server.violations == []


async def test_a_stream_of_requests_does_not_keep_a_worker_idle(room: PoolRoom, record: VersionRecord) -> None:
    """With a request in every turn of the event loop a call is made all the same, after a few of them."""
    serving = ONE.model_copy(update={"max_batch_rows": 1000})
    server = FakeServer()
    pool = room.pool(scale_up_wait_s=60)
    pool.attach(server)
    await pool.load(record, serving, Deadline.after(30))
    loop = asyncio.get_running_loop()
    came: list[Job] = []
    scheduler = pool.scheduler(record, serving)

    def come() -> None:
        if not server.calls and len(came) < 100:
            loop.call_soon(come)
            job = Job([row(str(len(came)))], Deadline.after(30))
            scheduler.submit(job)
            came.append(job)

    come()
    await until(lambda: server.calls)
    assert 2 < len(server.calls[0]) < 30
    for job in came:
        await job.future
        scheduler.leave(job)


async def test_groups_take_turns(room: PoolRoom, record: VersionRecord) -> None:
    """Who sends one request is served in its turn, and not behind all that another has sent before."""
    crowd = await crowd_of(room, record)
    for number in range(6):
        crowd.come(f"a{number}", group="a")
    await crowd.queued(6)
    crowd.come("b0", group="b")
    crowd.come("b1", group="b")
    crowd.come("c0", group="c")
    await crowd.queued(9)
    await crowd.go()
    assert crowd.server.calls == [["first"], ["a0", "b0", "c0", "a1"], ["b1", "a2", "a3", "a4"], ["a5"]]


async def test_who_floods_gives_up_places(room: PoolRoom, record: VersionRecord) -> None:
    """With the queue full, another group's request takes the place of the last of the one that has most."""
    crowd = await crowd_of(room, record, queue_limit=3)
    for number in range(3):
        crowd.come(f"a{number}", group="a")
    await crowd.queued(3)
    crowd.come("a3", group="a")
    crowd.come("b0", group="b")
    await until(lambda: sum(task.done() for task in crowd.tasks) == 2)
    came = await crowd.go()
    refused = [each for each in came if isinstance(each, BaseException)]
    assert [type(each) for each in refused] == [Overloaded, Overloaded]
    assert [came.index(each) for each in refused] == [3, 4]  # a2 and a3, behind the one in the worker
    assert crowd.server.calls == [["first"], ["a0", "b0", "a1"]]


@pytest.mark.parametrize("case", ["not proved", "a server that batches by itself"])
async def test_without_proof_each_goes_alone(room: PoolRoom, record: VersionRecord, case: str) -> None:
    """A version whose batches were not proved, or a server that knows no envelopes, gets one row at a time."""
    crowd = await crowd_of(room, record, ONE.model_copy(update={"max_batch_rows": 1 if case == "not proved" else 4}))
    crowd.server.batches = case == "not proved"
    for number in range(3):
        crowd.come(str(number))
    await crowd.queued(3)
    await crowd.go()
    assert crowd.server.calls == [["first"], ["0"], ["1"], ["2"]]


async def test_bytes_are_bounded_too(room: PoolRoom, record: VersionRecord) -> None:
    """A batch ends before its bytes are too many; a row that is larger alone goes alone."""
    crowd = await crowd_of(room, record)
    big, huge = "b" * 600, "h" * 5000
    for value in ("a", big, big, huge, "z"):
        crowd.come(value)
    await crowd.queued(5)
    await crowd.go()
    assert crowd.server.calls == [["first"], ["a", big], [big], [huge], ["z"]]


async def test_a_requests_rows_stay_together(room: PoolRoom, record: VersionRecord) -> None:
    """The rows of one request go in one call, beside others where there is room, and come back as its answers."""
    crowd = await crowd_of(room, record)
    crowd.come("a", "b")
    crowd.come("c")
    crowd.come("d", "e")
    await crowd.queued(3)
    assert values(await crowd.go()) == [["first"], ["a", "b"], ["c"], ["d", "e"]]
    assert crowd.server.calls == [["first"], ["a", "b", "c"], ["d", "e"]]


async def test_a_failed_batch_is_sent_again_row_by_row(room: PoolRoom, record: VersionRecord) -> None:
    """When the handler fails on a whole batch, each row goes again alone: the bad one fails, the others are answered
    before anybody who came later."""
    crowd = await crowd_of(room, record)
    crowd.server.poison = "bad"
    for value in ("a", "bad", "c"):
        crowd.come(value)
    crowd.come("d", "e")
    await crowd.queued(4)
    found = await crowd.go()
    assert values([found[1], found[3], found[4]]) == [["a"], ["c"], ["d", "e"]]
    (failed,) = found[2] if isinstance(found[2], list) else []
    assert (failed.kind, failed.body) == ("error", b"bad was among 1")
    assert crowd.server.calls == [["first"], ["a", "bad", "c"], ["a"], ["bad"], ["c"], ["d", "e"]]


async def test_rows_of_one_request_fail_alone_too(room: PoolRoom, record: VersionRecord) -> None:
    """A request with several rows, one of them bad, gets the others' answers."""
    crowd = await crowd_of(room, record)
    crowd.server.poison = "bad"
    crowd.come("a", "bad")
    await crowd.queued(1)
    _, answers = await crowd.go()
    assert isinstance(answers, list)
    assert [answer.kind for answer in answers] == ["text", "error"]
    assert crowd.server.calls[1:] == [["a", "bad"], ["a"], ["bad"]]


async def test_what_kills_a_worker_kills_no_neighbour(room: PoolRoom, record: VersionRecord) -> None:
    """When a worker dies under a batch each row goes again alone: only the one that kills it again is blamed."""
    crowd = await crowd_of(room, record)
    crowd.server.deadly = "bomb"
    for value in ("a", "bomb", "c"):
        crowd.come(value)
    await crowd.queued(3)
    found = await crowd.go()
    assert values([found[1], found[3]]) == [["a"], ["c"]]
    assert isinstance(found[2], WorkerDied)
    assert crowd.server.calls == [["first"], ["a", "bomb", "c"], ["a"], ["bomb"], ["c"]]


async def test_deadlines_leave_the_queue_on_time(room: PoolRoom, record: VersionRecord) -> None:
    """Who cannot wait any longer is told, and takes up no room in the batch that follows."""
    crowd = await crowd_of(room, record)
    crowd.come("late", timeout_s=0.05)
    crowd.come("patient")
    await crowd.queued(2)
    with pytest.raises(DeadlineExceeded, match="was busy until the deadline"):
        await crowd.tasks[1]
    assert values([(await crowd.go())[2]]) == [["patient"]]
    assert crowd.server.calls == [["first"], ["patient"]]


async def test_a_caller_who_leaves_is_not_sent(room: PoolRoom, record: VersionRecord) -> None:
    """A caller who leaves the queue is not sent; one who leaves a call that is made harms no one in it."""
    crowd = await crowd_of(room, record)
    crowd.come("gone")
    await crowd.queued(1)
    crowd.tasks[1].cancel()
    await crowd.queued(0)
    crowd.come("half")
    crowd.come("whole")
    await crowd.queued(2)
    crowd.server.calling.clear()
    crowd.server.answer.set()
    await until(lambda: len(crowd.server.calls) == 2)
    crowd.tasks[2].cancel()
    assert values([(await crowd.go())[3]]) == [["whole"]]
    assert crowd.server.calls == [["first"], ["half", "whole"]]


async def test_a_batch_that_the_server_lost_waits_for_the_next_load(room: PoolRoom, record: VersionRecord) -> None:
    """When the server does not have the version any more, the whole batch is answered after another load."""
    crowd = await crowd_of(room, record)
    crowd.come("a")
    crowd.come("b")
    await crowd.queued(2)
    crowd.server.lose(record.id)
    assert values((await crowd.go())[1:]) == [["a"], ["b"]]
    assert crowd.server.loads == 2
    assert crowd.server.calls == [["first"], ["a", "b"]]


async def test_a_server_that_dies_tells_the_whole_batch(room: PoolRoom, record: VersionRecord) -> None:
    """When the model server goes, everybody in a call and in the queue is told, and nobody hangs."""
    crowd = await crowd_of(room, record)
    crowd.come("a")
    await crowd.queued(1)
    crowd.server.down = True
    crowd.pool.attach(None)
    found = await crowd.go()
    assert [type(each).__name__ for each in found] == ["RuntimeDown", "RuntimeDown"]


async def test_what_found_no_connection_was_not_begun(room: PoolRoom, record: VersionRecord) -> None:
    """A request that the model server took no connection for counts as not started, and may go to another pod."""
    pool, server = room.pool(), FakeServer()
    pool.attach(server)
    await predict(pool, record)

    async def no_connection(*_: object) -> list[Answer]:
        raise NotSent("connection refused")

    server.predict = no_connection
    job = Job([ROW], Deadline.after(30))
    with pytest.raises(NotSent):
        await pool.predict(record, ServingSettings(), job)
    assert not job.started


@pytest.mark.parametrize("what", ["poison", "deadly"])
async def test_fault_rows_that_may_not_run_twice(room: PoolRoom, record: VersionRecord, what: str) -> None:
    """Without `retry_rows` a batch that fails, or that kills its worker, is called once, here and elsewhere."""
    crowd = await crowd_of(room, record, ONE.model_copy(update={"retry_rows": False}))
    setattr(crowd.server, what, "1")
    for value in ("0", "1"):
        crowd.come(value)
    await crowd.queued(2)
    _, *failed = await crowd.go()
    assert crowd.server.calls == [["first"], ["0", "1"]]
    for each in failed:
        if isinstance(each, list):
            assert [answer.kind for answer in each] == ["error"]
        else:
            assert isinstance(each, ModelError)
            assert "may not run twice" in each.message
