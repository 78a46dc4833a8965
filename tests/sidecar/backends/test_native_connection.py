"""A connection to a worker, whose other end the test holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, ModelError, RuntimeDown
from marway.wire.envelope import Answer, Part, Row, decode_rows, encode_answers
from marway.wire.native import ModelState
from marway_http.frames import HEADER, Kind, frame_header
from marway_sidecar.backends.base import ServedModel, WorkerDied
from marway_sidecar.backends.native.connection import WorkerConnection

MODEL = ServedModel("mv_X", "x", "1.0", Path("x.mar"), 1, 10.0, 10.0)
STATE = ModelState(version="1.0", workers=1, ready_workers=1, answer_within_s=10.0)


class Worker:
    """The worker's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def frame(self) -> tuple[int, int, list[Row]]:
        size, number, head, status, kind = HEADER.unpack(await self.reader.readexactly(HEADER.size))
        assert (head, status) == (0, 0)
        body = await self.reader.readexactly(size)
        return kind, number, decode_rows(body) if body else []

    def answer(self, number: int, *bodies: bytes, kind: int = Kind.ANSWER) -> bytes:
        envelope = encode_answers([Answer(200, body, "bytes") for body in bodies])
        return frame_header(kind, number, body=len(envelope)) + envelope

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))


class Pair:
    def __init__(self, connection: WorkerConnection, worker: Worker) -> None:
        self.connection, self.worker = connection, worker

    def call(self, *values: bytes, deadline: Deadline | None = None) -> asyncio.Task[list[Answer]]:
        return asyncio.ensure_future(self.connection.call(rows(*values), deadline or soon()))


def soon() -> Deadline:
    return Deadline.after(20)


def rows(*values: bytes) -> list[Row]:
    return [Row("r", [Part("data", value)]) for value in values]


def bodies(answers: Sequence[Answer]) -> list[bytes]:
    return [answer.body for answer in answers]


@pytest.fixture
async def pair(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    state = getattr(request, "param", STATE)
    accepted: asyncio.Queue[Worker] = asyncio.Queue()
    path = str(tmp_path / "s")
    server = await asyncio.start_unix_server(lambda *ends: accepted.put_nowait(Worker(*ends)), path, limit=1 << 24)
    _, connection = await asyncio.get_running_loop().create_unix_connection(
        lambda: WorkerConnection(MODEL, state), path
    )
    worker = await accepted.get()
    yield Pair(connection, worker)
    connection.close(RuntimeDown("the test is over"))
    worker.writer.close()
    server.close()


async def test_a_worker_greets_who_may_call(pair: Pair) -> None:
    """A connection that only the kernel has accepted is open, and ready when the worker has said so."""
    assert pair.connection.open
    assert not pair.connection.ready
    pair.worker.send(frame_header(Kind.WINDOW_UPDATE, 0))
    await asyncio.wait_for(pair.connection.greeted.wait(), 20)
    assert pair.connection.ready


async def test_answers_come_in_any_order(pair: Pair) -> None:
    """Each call has its own answer, whichever is ready first, and rows keep their order."""
    calls = [pair.call(b"a"), pair.call(b"b1", b"b2")]
    frames = [await pair.worker.frame() for _ in calls]
    assert [kind for kind, _, _ in frames] == [Kind.REQUEST, Kind.REQUEST]
    assert [[row.parts[0].value for row in sent] for _, _, sent in frames] == [[b"a"], [b"b1", b"b2"]]
    assert pair.connection.calls == 2
    pair.worker.send(pair.worker.answer(frames[1][1], b"B1", b"B2"), pair.worker.answer(frames[0][1], b"A"))
    assert [bodies(await call) for call in calls] == [[b"A"], [b"B1", b"B2"]]
    assert pair.connection.calls == 0


@pytest.mark.parametrize("step", [1, 7, 100_000])
async def test_frames_may_be_cut_anywhere(pair: Pair, step: int) -> None:
    """Small frames and one larger than the buffer arrive whole, in whatever pieces they come."""
    size = 300 if step == 1 else 700_000
    calls = [pair.call(b"a"), pair.call(b"b"), pair.call(b"c")]
    numbers = [(await pair.worker.frame())[1] for _ in calls]
    wanted = [b"1", b"x" * size, b"3"]
    sent = b"".join(pair.worker.answer(number, body) for number, body in zip(numbers, wanted, strict=True))
    for start in range(0, len(sent), max(step, len(sent) // 500)):
        pair.worker.send(sent[start : start + max(step, len(sent) // 500)])
        await asyncio.sleep(0)
    answers = [bodies(await call)[0] for call in calls]
    assert answers == wanted
    assert {type(body) for body in answers} == {bytes}


async def test_large_requests_are_not_joined(pair: Pair) -> None:
    """A request above what is joined arrives as one frame all the same."""
    call = pair.call(b"x" * 1_000_000)
    _, number, sent = await pair.worker.frame()
    assert len(sent[0].parts[0].value) == 1_000_000
    pair.worker.send(pair.worker.answer(number, b"ok"))
    assert bodies(await call) == [b"ok"]


async def test_who_gives_up_says_so(pair: Pair) -> None:
    """A cancelled call is cancelled at the worker; an answer that comes all the same is dropped."""
    call, other = pair.call(b"a"), pair.call(b"b")
    _, number, _ = await pair.worker.frame()
    _, second, _ = await pair.worker.frame()
    call.cancel()
    assert (await pair.worker.frame())[:2] == (Kind.CANCEL, number)
    pair.worker.send(pair.worker.answer(number, b"late"), pair.worker.answer(second, b"B"))
    assert bodies(await other) == [b"B"]
    assert call.cancelled()
    await pair.connection.answered()


async def test_a_deadline_ends_a_call(pair: Pair) -> None:
    """A call whose deadline passes fails, and is cancelled at the worker."""
    call = pair.call(b"a", deadline=Deadline.after(0.05))
    _, number, _ = await pair.worker.frame()
    with pytest.raises(DeadlineExceeded, match="within the deadline"):
        await call
    assert (await pair.worker.frame())[:2] == (Kind.CANCEL, number)


async def test_an_end_fails_all_calls(pair: Pair) -> None:
    """When the worker ends, its calls fail as such, and no other can be made."""
    calls = [pair.call(b"a"), pair.call(b"b")]
    await pair.worker.frame()
    pair.worker.writer.close()
    for call in calls:
        with pytest.raises(WorkerDied):
            await call
    assert not pair.connection.open
    with pytest.raises(RuntimeDown):
        await pair.connection.call(rows(b"c"), soon())


@pytest.mark.parametrize("turns", range(6))
async def test_fault_connections_closed_in_the_moment_of_a_call(pair: Pair, turns: int) -> None:
    """A call that finds its connection closed, before it begins or at any step, says what became of the other side."""
    before = [pair.call(b"a") for _ in range(3)]
    for _ in range(turns):
        await asyncio.sleep(0)
    pair.connection.close(RuntimeDown("it was let go of"))
    after = [pair.call(b"b") for _ in range(3)]
    async with asyncio.timeout(30):
        told = await asyncio.gather(*before, *after, return_exceptions=True)
    assert all(isinstance(each, RuntimeDown) for each in told), told


async def test_an_end_after_its_time_is_a_time_out(tmp_path: Path) -> None:
    """A call that ran into its response time-out is told so, and is not tried again."""
    connection = WorkerConnection(MODEL, STATE.model_copy(update={"answer_within_s": 0.0}))
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), str(tmp_path / "s"))
    await asyncio.get_running_loop().create_unix_connection(lambda: connection, str(tmp_path / "s"))
    with pytest.raises(DeadlineExceeded, match="in its time"):
        await connection.call(rows(b"a"), soon())
    server.close()


@pytest.mark.parametrize("body", [b"no envelope", encode_answers([]), encode_answers([Answer(200, b"", "bytes")] * 2)])
async def test_what_is_no_answer_is_an_error(pair: Pair, body: bytes) -> None:
    """What cannot be read, and another number of answers than rows, fail the call."""
    call = pair.call(b"a")
    _, number, _ = await pair.worker.frame()
    pair.worker.send(frame_header(Kind.ANSWER, number, body=len(body)) + body)
    with pytest.raises(MarwayError, match=r"no answer|answers to 1 rows"):
        await call


async def test_pieces_come_one_after_the_other(pair: Pair) -> None:
    """A stream's pieces are yielded as they come, the last one too; those that wait stop the reading."""
    async with aclosing(pair.connection.stream(rows(b"a")[0], soon())) as stream:
        first = asyncio.ensure_future(anext(stream))
        _, number, _ = await pair.worker.frame()
        pair.worker.send(*(pair.worker.answer(number, b"%d" % n, kind=Kind.PART) for n in range(100)))
        pair.worker.send(pair.worker.answer(number, b"last"))
        assert (await first).body == b"0"
        assert [piece.body async for piece in stream] == [*(b"%d" % n for n in range(1, 100)), b"last"]
    assert pair.connection.calls == 0


async def test_a_stream_that_is_left_is_cancelled(pair: Pair) -> None:
    """Who leaves a stream says so to the worker, and the connection goes on."""
    async with aclosing(pair.connection.stream(rows(b"a")[0], soon())) as stream:
        first = asyncio.ensure_future(anext(stream))
        _, number, _ = await pair.worker.frame()
        pair.worker.send(*(pair.worker.answer(number, b"p", kind=Kind.PART) for _ in range(40)))
        await first
    assert (await pair.worker.frame())[:2] == (Kind.CANCEL, number)
    call = pair.call(b"b")
    _, second, _ = await pair.worker.frame()
    pair.worker.send(pair.worker.answer(second, b"B"))
    assert bodies(await call) == [b"B"]


async def test_a_stream_ends_by_its_deadline(pair: Pair) -> None:
    """A stream of which nothing comes in time fails."""
    async with aclosing(pair.connection.stream(rows(b"a")[0], Deadline.after(0.05))) as stream:
        with pytest.raises(DeadlineExceeded):
            await anext(stream)


async def test_a_stream_ends_with_its_worker(pair: Pair) -> None:
    """A stream whose worker ends in its middle fails after the pieces that came."""
    async with aclosing(pair.connection.stream(rows(b"a")[0], soon())) as stream:
        first = asyncio.ensure_future(anext(stream))
        _, number, _ = await pair.worker.frame()
        pair.worker.send(pair.worker.answer(number, b"p", kind=Kind.PART))
        assert (await first).body == b"p"
        pair.worker.writer.close()
        with pytest.raises(WorkerDied):
            await anext(stream)


@pytest.mark.parametrize("pair", [STATE.model_copy(update={"calls_per_worker": 2})], indirect=True)
async def test_who_does_not_read_holds_nobody_up_who_shares_the_worker(pair: Pair) -> None:
    """A stream that nobody reads is given up, and said to be, when much of it waits; other calls are answered."""
    async with aclosing(pair.connection.stream(rows(b"a")[0], soon())) as pieces:
        first = asyncio.ensure_future(anext(pieces))
        _, number, _ = await pair.worker.frame()
        pair.worker.send(pair.worker.answer(number, b"piece", kind=Kind.PART))
        assert (await first).body == b"piece"
        for _ in range(40):
            pair.worker.send(pair.worker.answer(number, bytes(1 << 20), kind=Kind.PART))
        other = pair.call(b"b")
        assert (await pair.worker.frame())[0] == Kind.REQUEST
        pair.worker.send(pair.worker.answer(number + 1, b"c"))
        assert bodies(await other) == [b"c"]
        assert (await pair.worker.frame())[:2] == (Kind.CANCEL, number)
        with pytest.raises(ModelError, match="its caller does not read it"):
            async for _ in pieces:
                pass
    assert pair.connection.calls == 0
