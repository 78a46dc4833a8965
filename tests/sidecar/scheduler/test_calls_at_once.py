"""Versions whose workers take several calls at once: so many are under way, each of one row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from marway.deadline import Deadline
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import Description, ServedModel
from marway_sidecar.backends.calls import whole_answer
from marway_sidecar.scheduler import StreamJob
from support.fake_server import FakeServer
from support.pools import ROW, PoolRoom, predict
from support.registry import until

pytestmark = pytest.mark.timeout(60)
ONE = ServingSettings(max_workers=1, max_batch_rows=4)


class Endless(FakeServer):
    """Sends pieces until it is let go of."""

    ended = False

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        try:
            while True:
                await asyncio.sleep(0)
                yield Answer(200, b"piece", "text")
        finally:
            self.ended = True


async def test_so_many_calls_are_under_way(room: PoolRoom, record: VersionRecord) -> None:
    """One worker has three calls, each of a row, and a fourth request waits for one of them to end."""
    pool, server = room.pool(), FakeServer(calls_per_worker=3, call_s=None)
    pool.attach(server)
    await pool.load(record, ONE, Deadline.after(30))
    asking = [asyncio.create_task(predict(pool, record, ONE)) for _ in range(4)]
    await until(lambda: server.peak_calls == 3)
    status = pool.status_of(record.id)
    assert status is not None
    assert (status.requests_queued, [len(rows) for rows in server.calls]) == (1, [1, 1, 1])
    server.answer.set()
    await asyncio.gather(*asking)
    assert ([len(rows) for rows in server.calls], server.violations) == ([1] * 4, [])


async def test_an_answer_that_nobody_reads_is_given_up(room: PoolRoom, record: VersionRecord) -> None:
    """With one call a worker it is read to its end, for its worker is at work; among others it is let go of."""
    serving = ONE.model_copy(update={"streaming": True})
    pool, server = room.pool(), Endless(calls_per_worker=2)
    pool.attach(server)
    await pool.load(record, serving, Deadline.after(30))
    pieces = pool.stream(record, serving, StreamJob(ROW, Deadline.after(30)))
    assert (await anext(pieces)).body == b"piece"
    await pieces.aclose()
    await until(lambda: server.ended)


def test_what_the_server_says_of_its_calls_is_kept(tmp_path: object) -> None:
    """A version whose answers come in pieces is asked for pieces, whatever its record says."""
    model = ServedModel("mv_M", "m", "1", None, 1, 1.0, 1.0)  # type: ignore[arg-type]  # no archive is read
    assert model.as_described(Description("1", 1, 1)) == model
    described = model.as_described(Description("1", 1, 1, 4, in_pieces=True, answer_within_s=2.0, workers_max=1))
    assert (described.calls_per_worker, described.in_pieces, described.streaming) == (4, True, True)
    assert (described.answer_within_s, described.workers_max) == (2.0, 1)


async def test_a_whole_answer_keeps_what_was_measured() -> None:
    """What comes with any of its pieces is counted once the answer is put together."""
    from marway.wire.measurements import Measurement

    measured = [Measurement("counter", "Asked", "", (), float(number)) for number in range(2)]

    async def pieces() -> AsyncGenerator[Answer, None]:
        for each in measured:
            yield Answer(200, b"x", "text", measured=[each])

    answer = await whole_answer(pieces())
    assert (answer.body, answer.measured) == (b"xx", measured)
