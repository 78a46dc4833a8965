"""Streamed answers: in the queue like all others, read as they come, and never left half way in a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, ModelError
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import NotLoaded, NotSent, ServedModel, WorkerDied
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.scheduler import StreamJob
from support.fake_server import FakeServer
from support.pools import ROW, PoolRoom, predict
from support.registry import until

pytestmark = pytest.mark.timeout(60)
ONE = ServingSettings(streaming=True, max_workers=1)


class Streaming(FakeServer):
    """Sends as many pieces as it is told, and then fails if it is to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pieces = 3
        self.sent = 0
        self.errors: list[Exception] = []

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        for number in range(self.pieces):
            self.sent += 1
            yield Answer(200, str(number).encode(), "text")
        if self.errors:
            raise self.errors.pop(0)


async def read(pool: ModelPool, record: VersionRecord, job: StreamJob, serving: ServingSettings = ONE) -> list[bytes]:
    return [piece.body async for piece in pool.stream(record, serving, job)]


async def attached(room: PoolRoom, record: VersionRecord) -> tuple[ModelPool, Streaming]:
    pool, server = room.pool(), Streaming()
    pool.attach(server)
    await pool.load(record, ONE, Deadline.after(30))
    return pool, server


async def test_a_slow_reader_holds_the_handler_up(room: PoolRoom, record: VersionRecord) -> None:
    """A stream runs only some pieces ahead of its reader, who gets all of them in their order."""
    pool, server = await attached(room, record)
    server.pieces = 100
    pieces = pool.stream(record, ONE, StreamJob(ROW, Deadline.after(30)))
    assert (await anext(pieces)).body == b"0"
    for _ in range(50):
        await asyncio.sleep(0)
    assert server.sent < 30
    assert [piece.body async for piece in pieces] == [str(number).encode() for number in range(1, 100)]


async def test_a_reader_that_leaves_a_full_stream_frees_its_slot(room: PoolRoom, record: VersionRecord) -> None:
    """A handler that waits for room goes on to its end when its reader leaves, and then the slot is free."""
    pool, server = await attached(room, record)
    server.pieces = 100
    pieces = pool.stream(record, ONE, StreamJob(ROW, Deadline.after(30)))
    await anext(pieces)
    await until(lambda: server.sent > 10)
    await pieces.aclose()
    await until(lambda: pool.in_flight == 0)
    assert server.sent == 100


async def read_first(pool: ModelPool, record: VersionRecord, job: StreamJob) -> list[bytes]:
    """Take one piece and no other, as for a client that does not read on."""
    async with aclosing(pool.stream(record, ONE, job)) as pieces:
        await anext(pieces)
        return await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("when", ["waiting", "reading"])
async def test_a_stream_whose_caller_leaves(room: PoolRoom, record: VersionRecord, when: str) -> None:
    """A caller who leaves, in the queue or after the first piece, gets no more, and its slot is free in the end."""
    pool, server = await attached(room, record)
    job = StreamJob(ROW, Deadline.after(30))
    if when == "waiting":
        server.call_s = None
        first = asyncio.create_task(predict(pool, record, ONE))
        await until(lambda: pool.in_flight == 1)
        reading = asyncio.create_task(read(pool, record, job))
        await until(lambda: pool.statuses()[0].requests_queued == 1)
    else:
        server.pieces = 1000
        reading = asyncio.create_task(read_first(pool, record, job))
        await until(lambda: server.sent > 10)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert job.future.cancelled()
    if when == "waiting":
        assert not job.started
        assert pool.statuses()[0].requests_queued == 0
        server.answer.set()
        await first
    await until(lambda: pool.in_flight == 0)


async def test_a_stream_that_waits_is_late_on_time(room: PoolRoom, record: VersionRecord) -> None:
    """A stream whose turn does not come before its deadline is told so, and not begun."""
    pool, server = await attached(room, record)
    server.call_s = None
    first = asyncio.create_task(predict(pool, record, ONE))
    await until(lambda: pool.in_flight == 1)
    job = StreamJob(ROW, Deadline.after(0.05))
    with pytest.raises(DeadlineExceeded, match="was busy until the deadline"):
        await read(pool, record, job)
    assert not job.started
    server.answer.set()
    await first
    assert server.sent == 0


@pytest.mark.parametrize("losses", [1, 2])
async def test_a_stream_of_a_lost_version_goes_again_once(room: PoolRoom, record: VersionRecord, losses: int) -> None:
    """When the server does not have the version, it is loaded and asked again once, as for any other request."""
    pool, server = await attached(room, record)
    server.pieces, sent = 0, server.sent
    server.errors = [NotLoaded("gone") for _ in range(losses)]
    job = StreamJob(ROW, Deadline.after(30))
    if losses == 1:
        assert await read(pool, record, job) == []
        assert job.started
    else:
        with pytest.raises(NotLoaded):
            await read(pool, record, job)
        assert not job.started
    assert (job.lost, sent) == (losses, 0)


@pytest.mark.parametrize("retry_rows", [True, False])
@pytest.mark.parametrize("error", [NotSent("no connection"), WorkerDied("died")])
async def test_what_a_failed_stream_says(
    room: PoolRoom, record: VersionRecord, error: Exception, retry_rows: bool
) -> None:
    """Without a connection nothing was begun; one that died with its worker may be tried elsewhere unless it may not
    run twice."""
    pool, server = await attached(room, record)
    server.pieces, server.errors = 0, [error]
    job = StreamJob(ROW, Deadline.after(30))
    may_not = isinstance(error, WorkerDied) and not retry_rows
    with pytest.raises(ModelError if may_not else type(error)):
        await read(pool, record, job, ONE.model_copy(update={"retry_rows": retry_rows}))
    assert job.started == isinstance(error, WorkerDied)
