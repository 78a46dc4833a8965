"""What every connection to a sidecar must do, whatever it speaks, in the manner of trio's `check_two_way_stream`.

`check_connection` runs all of it over the connections of one kind; `interleave` runs any order of events.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pytest

from marway_gateway.http.body import RequestBody
from marway_gateway.transport.base import AttemptFailed, PodLost, PodUnreachable
from marway_gateway.transport.frames import FramesClientConnection
from marway_gateway.transport.http import HttpClientConnection
from marway_gateway.transport.pool import Connection
from marway_gateway.transport.reply import Reply
from marway_http.eager import EagerTask
from marway_http.frames import PART_BYTES, WINDOW_PARTS, FrameReader, Kind, frame_header

BUFFERED = 100
SIZES = (1, BUFFERED, PART_BYTES + 1)
"""Of answers: two that are read whole, one that streams and over frames has a part of its own."""
LARGE = 30 * PART_BYTES
HELD = 256 * 1024 + 2 * WINDOW_PARTS * PART_BYTES
"""No more than this of a body that nobody reads is held here and under way."""


class Pipe(asyncio.Transport):
    """One end of a connection whose other end is the test; like a real one it tells of its end a turn later."""

    def __init__(self, protocol: asyncio.Protocol, said: Callable[[bytes], None]) -> None:
        super().__init__()
        self.closing = False
        self.paused = False
        self._protocol = protocol
        self._said = said
        protocol.connection_made(self)

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closing:
            self._said(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits to be written here."""

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def come(self, data: bytes) -> None:
        """Have ``data`` arrive."""
        if not self.closing:
            self._protocol.data_received(data)


class Owed:
    """A request as the pod has it: what it has still to send of the answer, head first."""

    def __init__(self, pipe: Pipe, key: int, number: int, size: int) -> None:
        self.pipe = pipe
        self.key = key
        self.left = body_of(number, size)
        self.size = size
        self.began = False
        self.window = WINDOW_PARTS


class Peers(ABC):
    """Connections of one kind, with the pod at their other end.

    Attributes:
        all: The connections.
        pipes: Their other ends.
    """

    def __init__(self) -> None:
        self.all: list[Any] = []
        self.pipes: list[Pipe] = []
        self._owed: list[Owed] = []

    async def request(self, number: int, size: int) -> Reply:
        """Send a request over a connection that is ready, or another one."""
        connection: Connection = next((each for each in reversed(self.all) if each.ready), None) or self.open()
        head = b"/%d/%d\r\ncontent-length: 1\r\n" % (number, size)
        return await connection.request(head, RequestBody.opened(b"x", max_bytes=1))

    @abstractmethod
    def open(self) -> Any:
        """Open another connection."""

    @abstractmethod
    def left(self) -> int:
        """Return how many requests the connections still hold."""

    @abstractmethod
    def say(self, owed: Owed, *, whole: bool) -> None:
        """Have the pod send an answer, or the next piece of it."""

    @property
    def owed(self) -> list[Owed]:
        """The requests that the pod has still to answer, and is not told that nobody waits for."""
        self._owed = [each for each in self._owed if not each.pipe.closing]
        return self._owed

    def answer(self, which: int, *, whole: bool = True) -> None:
        """Have the pod send one of the answers, or the next piece of it."""
        if self.owed:
            self.say(self.owed[which % len(self.owed)], whole=whole)

    def close(self, which: int) -> None:
        """Have a connection end."""
        living = [pipe for pipe in self.pipes if not pipe.closing]
        if living:
            living[which % len(living)].abort()


class HttpPeers(Peers):
    """One request on a connection at a time."""

    def open(self) -> HttpClientConnection:
        connection = HttpClientConnection(buffered_bytes=BUFFERED, on_free=lambda _: None)

        def said(data: bytes) -> None:
            assert not any(each.pipe is pipe for each in self.owed), "a connection has one request at a time"
            _, number, size = data.split(b" ")[1].split(b"/")
            self.owed.append(Owed(pipe, 0, int(number), int(size)))

        pipe = Pipe(connection, said)
        self.all.append(connection)
        self.pipes.append(pipe)
        return connection

    def left(self) -> int:
        return sum(each._caller is not None for each in self.all)

    def say(self, owed: Owed, *, whole: bool) -> None:
        data = b""
        if not owed.began:
            owed.began = True
            data = b"HTTP/1.1 200 OK\r\nx-marway-outcome: answered\r\ncontent-length: %d\r\n\r\n" % owed.size
        taken = len(owed.left) if whole else min((len(owed.left) + 1) // 2, PART_BYTES) if not data else 0
        if owed.pipe.paused:
            return
        data, owed.left = data + owed.left[:taken], owed.left[taken:]
        if not owed.left:
            self.owed.remove(owed)
        owed.pipe.come(data)


class FramePeers(Peers):
    """Many requests on a connection."""

    def open(self) -> FramesClientConnection:
        reader = FrameReader()
        connection = FramesClientConnection(buffered_bytes=BUFFERED)

        def said(data: bytes) -> None:
            for kind, key, status, head, _ in reader.feed(data):
                mine = [each for each in self.owed if each.pipe is pipe and each.key == key]
                if kind == Kind.REQUEST:
                    _, number, size = head.split(b"\r\n")[0].split(b"/")
                    self.owed.append(Owed(pipe, key, int(number), int(size)))
                elif kind == Kind.CANCEL and mine:
                    self.owed.remove(mine[0])
                elif kind == Kind.WINDOW_UPDATE and mine:
                    mine[0].window += status

        pipe = Pipe(connection, said)
        self.all.append(connection)
        self.pipes.append(pipe)
        return connection

    def left(self) -> int:
        return sum(len(each._requests) for each in self.all)

    def say(self, owed: Owed, *, whole: bool) -> None:
        come = []
        while owed.left and owed.window:
            owed.window -= 1
            part, owed.left = owed.left[:PART_BYTES], owed.left[PART_BYTES:]
            head = b"" if owed.began else b"x-marway-outcome: answered\r\ncontent-length: %d\r\n" % owed.size
            kind, status = (Kind.PART, 0) if owed.began else (Kind.ANSWER, 200)
            owed.began = True
            come.append(frame_header(kind, owed.key, head=len(head), body=len(part), status=status) + head + part)
            if not whole:
                break
        if not owed.left:
            self.owed.remove(owed)
        owed.pipe.come(b"".join(come))


def body_of(number: int, size: int) -> bytes:
    """Return what only this request may be answered with."""
    return (b"%d;" % number * size)[:size]


class Caller:
    """Who sends one request and reads its answer, in a task of asyncio's own or in one that goes on at once.

    Attributes:
        outcomes: What became of it, in the end exactly one.
    """

    def __init__(self, peers: Peers, number: int, size: int, *, eager: bool = False) -> None:
        self.outcomes: list[str] = []
        self.error: AttemptFailed | None = None
        self._peers = peers
        self._number = number
        self._size = size
        self._limit = None if eager else asyncio.timeout(None)
        self._began = False
        self._task: EagerTask | asyncio.Task[None] = (
            EagerTask(self._run()) if eager else asyncio.create_task(self._run())
        )

    @property
    def ended(self) -> bool:
        return bool(self.outcomes)

    def cancel(self) -> None:
        if isinstance(self._task, EagerTask):
            self._task.interrupt(TimeoutError())
        elif self._began:  # one that has not run could give nothing up
            self._task.cancel()

    def be_late(self) -> None:
        if self._limit is None:
            self.cancel()
        elif self._began and not self._limit.expired() and not self.ended:
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def _run(self) -> None:
        self._began = True
        try:
            if self._limit is None:
                data = await self._read()
            else:
                async with self._limit:
                    data = await self._read()
        except AttemptFailed as exc:
            self.error = exc
            outcome = "lost"
        except TimeoutError:
            outcome = "late"
        except asyncio.CancelledError:
            outcome = "cancelled"
        else:
            outcome = "answered"
            assert data == body_of(self._number, self._size), "it was given another's answer"
        self.outcomes.append(outcome)

    async def _read(self) -> bytes:
        reply = await self._peers.request(self._number, self._size)
        try:
            return reply.data if reply.data is not None else b"".join([part async for part in reply.chunks()])
        finally:
            reply.close()


async def settle() -> None:
    """Let everything that can happen happen."""
    for _ in range(8):
        await asyncio.sleep(0)


async def interleave(peers: Peers, turns: list[list[tuple[str, int]]], *, eager: bool) -> list[Caller]:
    """Do what each turn says in one turn of the loop; then let the pod answer whatever it still owes."""
    loop = asyncio.get_running_loop()
    callers: list[Caller] = []
    broken: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: broken.append(context))

    def turn(steps: list[tuple[str, int]]) -> None:
        waiting = [caller for caller in callers if not caller.ended]
        for what, number in steps:
            match what:
                case "ask":
                    callers.append(Caller(peers, len(callers), number, eager=eager))
                case "answer" | "piece":
                    peers.answer(number, whole=what == "answer")
                case "close":
                    peers.close(number)
                case _ if waiting:
                    caller = waiting[number % len(waiting)]
                    caller.cancel() if what == "cancel" else caller.be_late()

    for steps in turns:
        loop.call_soon(turn, steps)
        await asyncio.sleep(0)
    for _ in range(4 * len(callers) + 8):
        peers.answer(0)
        await asyncio.sleep(0)
    await settle()
    assert [len(caller.outcomes) for caller in callers] == [1] * len(callers), "each is told exactly once"
    assert peers.left() == 0, "a request was left behind"
    assert not broken
    return callers


# -- the checks ------------------------------------------------------------------------------------------------


async def check_connection(make: Callable[[], Peers]) -> None:
    """Check all that a connection must do: answers, errors, cancels, closes, slow readers and many waiters."""
    for check in (
        _answers_one_after_the_other,
        _many_waiters,
        _ends_with_requests_under_way,
        _is_answered_with_nonsense,
        _takes_nothing_when_ended,
        _cancelled,
        _closed_with_a_request_under_way,
        _slow_reader,
        _reader_that_leaves,
        _breaks_off,
    ):
        for eager in (False, True):
            peers = make()
            try:
                await check(peers, eager)
                await settle()
                assert peers.left() == 0
            except AssertionError as exc:
                exc.add_note(f"in {check.__name__}, eager={eager}")
                raise


async def _answers_one_after_the_other(peers: Peers, eager: bool) -> None:
    for number, size in enumerate((0, *SIZES)):
        caller = Caller(peers, number, size or 1, eager=eager)
        await settle()
        while peers.owed:
            peers.answer(0, whole=bool(size))  # the first one piece by piece
            await settle()
        assert caller.outcomes == ["answered"]
    assert len(peers.all) == 1, "a connection is used again"


async def _many_waiters(peers: Peers, eager: bool) -> None:
    callers = [Caller(peers, number, SIZES[number % 3], eager=eager) for number in range(30)]
    await settle()
    assert len(peers.owed) == 30
    while peers.owed:
        peers.answer(-1)
        await settle()
    assert [caller.outcomes for caller in callers] == [["answered"]] * 30


async def _ends_with_requests_under_way(peers: Peers, eager: bool) -> None:
    callers = [Caller(peers, number, 1, eager=eager) for number in range(3)]
    await settle()
    for pipe in peers.pipes:
        pipe.abort()
    await settle()
    assert [caller.outcomes for caller in callers] == [["lost"]] * 3
    errors = [caller.error for caller in callers]
    assert all(isinstance(error, PodLost) and error.reason == "connection_lost" for error in errors)
    assert sum(error.counted for error in errors if error is not None) == len(peers.all), "one failure a connection"
    assert not any(connection.ready for connection in peers.all)


async def _is_answered_with_nonsense(peers: Peers, eager: bool) -> None:
    caller = Caller(peers, 0, 1, eager=eager)
    await settle()
    peers.pipes[0].come(b"\x16\x03\x01\x02\x00\x01\x00\x01" * 20)
    await settle()
    assert isinstance(caller.error, PodLost)
    assert caller.error.reason == "bad_answer"
    assert peers.pipes[0].closing


async def _takes_nothing_when_ended(peers: Peers, eager: bool) -> None:
    connection = peers.open()
    peers.pipes[0].abort()
    await settle()
    assert not connection.ready
    with pytest.raises(PodUnreachable):
        await connection.request(b"/\r\n", RequestBody.opened(b"x", max_bytes=1))


async def _cancelled(peers: Peers, eager: bool) -> None:
    for began in (False, True):
        caller = Caller(peers, 0, LARGE, eager=eager)
        await settle()
        if began:
            peers.answer(0, whole=False)
            await settle()
        caller.cancel()
        await settle()
        assert (caller.outcomes, peers.owed) == (["cancelled"], []), "the pod is told that nobody waits"
        assert peers.left() == 0


async def _closed_with_a_request_under_way(peers: Peers, eager: bool) -> None:
    caller = Caller(peers, 0, 1, eager=eager)
    await settle()
    peers.all[0].close()
    assert not peers.all[0].ready
    await settle()
    assert not peers.pipes[0].closing
    peers.answer(0)
    await settle()
    assert caller.outcomes == ["answered"]
    assert peers.pipes[0].closing


async def _slow_reader(peers: Peers, eager: bool) -> None:
    asking = asyncio.create_task(peers.request(0, LARGE))
    await settle()
    before = -1
    peers.answer(0, whole=False)
    while before != (sent := LARGE - len(peers.owed[0].left)):
        before = sent
        peers.answer(0, whole=False)
        await settle()
    assert 0 < sent <= HELD, "what nobody reads is not gathered in memory"
    reply = await asking
    chunks, got = reply.chunks(), b""
    while len(got) < LARGE:
        if peers.owed:
            peers.answer(0, whole=False)
        got += await anext(chunks)
    assert got == body_of(0, LARGE)
    assert [chunk async for chunk in chunks] == []
    reply.close()
    assert peers.all[0].ready


async def _reader_that_leaves(peers: Peers, eager: bool) -> None:
    asking = asyncio.create_task(peers.request(0, LARGE))
    await settle()
    for _ in range(2):
        peers.answer(0, whole=False)
    reply = await asking
    assert await anext(reply.chunks())
    reply.close()
    reply.close()
    await settle()
    assert peers.owed == []


async def _breaks_off(peers: Peers, eager: bool) -> None:
    asking = asyncio.create_task(peers.request(0, LARGE))
    await settle()
    for _ in range(2):
        peers.answer(0, whole=False)
    reply = await asking
    peers.pipes[0].abort()
    got: list[bytes] = []
    with pytest.raises(PodLost):
        await _read_into(got, reply)
    assert body_of(0, LARGE).startswith(b"".join(got))
    assert got, "what came before is given"
    reply.close()


async def _read_into(got: list[bytes], reply: Reply) -> None:
    async for chunk in reply.chunks():
        got += [chunk]  # one by one: what came before an error must be there
