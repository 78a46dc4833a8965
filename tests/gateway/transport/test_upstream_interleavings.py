"""Whatever answers, cancels, time-outs and closes meet in one turn of the event loop, each caller is told once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marway_gateway.transport.base import PodLost, PodUnreachable
from marway_gateway.transport.frames import FramedConnection
from marway_gateway.transport.http import Connection
from marway_gateway.transport.response import Response, Sent, Waiter
from marway_http.frames import PART_BYTES, UPGRADE, FrameReader, Kind, frame_header

BUFFERED = 100
SIZES = (1, BUFFERED, PART_BYTES + 1)
"""Of answers: two that are read whole, one that streams and over frames has a part of its own."""


class Pipe(asyncio.Transport):
    """One end of a connection whose other end is the test; like a real one it tells of its end a turn later."""

    def __init__(self, protocol: asyncio.Protocol, said: Callable[[bytes], None]) -> None:
        super().__init__()
        self.closing = False
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
        """The other end sends little."""

    def resume_reading(self) -> None:
        """As `pause_reading`."""

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

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.left = body_of(number, size)
        self.size = size
        self.began = False


class Peers(Protocol):
    """The connections of one kind, with the pod at their other end."""

    def send(self, number: int, size: int, waiter: Waiter) -> Sent:
        """Send a request, over another connection if need be."""

    def answer(self, which: int, *, whole: bool) -> None:
        """Have the pod send an answer, or the next piece of it."""

    def close(self, which: int) -> None:
        """Have a connection end."""


class HttpPeers:
    """One request on a connection at a time, connections that are free used again."""

    def __init__(self) -> None:
        self._free: list[Connection] = []
        self._all: list[tuple[Connection, Pipe, list[Owed]]] = []

    def send(self, number: int, size: int, waiter: Waiter) -> Sent:
        while self._free:
            connection = self._free.pop()
            if connection.open:
                break
        else:
            connection = self._open()
        return connection.send(b"POST /%d/%d HTTP/1.1\r\n\r\n" % (number, size), b"", waiter)

    def _open(self) -> Connection:
        owed: list[Owed] = []
        connection = Connection(buffered_bytes=BUFFERED, on_free=self._free.append)

        def said(data: bytes) -> None:
            assert not owed, "a connection has one request at a time"
            _, number, size = data.split(b" ")[1].split(b"/")
            owed.append(Owed(int(number), int(size)))

        self._all.append((connection, Pipe(connection, said), owed))
        return connection

    def answer(self, which: int, *, whole: bool) -> None:
        asked = [(pipe, owed) for _, pipe, owed in self._all if owed and not pipe.closing]
        if not asked:
            return
        pipe, owed = asked[which % len(asked)]
        (answer,) = owed
        data = b""
        if not answer.began:
            answer.began = True
            data = b"HTTP/1.1 200 OK\r\nx-marway-outcome: answered\r\ncontent-length: %d\r\n\r\n" % answer.size
        taken = len(answer.left) if whole else (len(answer.left) + 1) // 2 if not data else 0
        data, answer.left = data + answer.left[:taken], answer.left[taken:]
        if not answer.left:
            owed.clear()
        pipe.come(data)

    def close(self, which: int) -> None:
        living = [pipe for _, pipe, _ in self._all if not pipe.closing]
        if living:
            living[which % len(living)].abort()


class FramePeers:
    """Many requests on one connection, with another opened when it is over."""

    def __init__(self) -> None:
        self._all: list[tuple[FramedConnection, Pipe, dict[int, Owed]]] = []

    def send(self, number: int, size: int, waiter: Waiter) -> Sent:
        connection = self._all[-1][0] if self._all and self._all[-1][0].ready else self._open()
        return connection.send(b"/%d/%d\r\n" % (number, size), b"", waiter)

    def _open(self) -> FramedConnection:
        owed: dict[int, Owed] = {}
        reader = FrameReader()
        connection = FramedConnection("x", "", buffered_bytes=BUFFERED)

        def said(data: bytes) -> None:
            if data.startswith(b"GET "):
                return
            for kind, key, _, head, _ in reader.feed(data):
                if kind == Kind.REQUEST:
                    _, number, size = head.strip().split(b"/")
                    owed[key] = Owed(int(number), int(size))
                elif kind == Kind.CANCEL:
                    owed.pop(key, None)

        pipe = Pipe(connection, said)
        pipe.come(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: %b\r\n\r\n" % UPGRADE.encode())
        self._all.append((connection, pipe, owed))
        return connection

    def answer(self, which: int, *, whole: bool) -> None:
        asked = [(pipe, owed, key) for _, pipe, owed in self._all if not pipe.closing for key in owed]
        if not asked:
            return
        pipe, owed, key = asked[which % len(asked)]
        answer = owed[key]
        come = []
        while True:
            part, answer.left = answer.left[:PART_BYTES], answer.left[PART_BYTES:]
            head = b"" if answer.began else b"x-marway-outcome: answered\r\ncontent-length: %d\r\n" % answer.size
            kind, status = (Kind.PART, 0) if answer.began else (Kind.ANSWER, 200)
            answer.began = True
            come.append(frame_header(kind, key, head=len(head), body=len(part), status=status) + head + part)
            if not answer.left or not whole:
                break
        if not answer.left:
            del owed[key]
        pipe.come(b"".join(come))

    def close(self, which: int) -> None:
        living = [pipe for _, pipe, _ in self._all if not pipe.closing]
        if living:
            living[which % len(living)].abort()


def body_of(number: int, size: int) -> bytes:
    """Return what only this request may be answered with."""
    return (b"%d;" % number * size)[:size]


class Relay:
    """A waiter that acts at once, as the gateway's own without a task does: a task waits for what it was given."""

    def __init__(self, future: asyncio.Future[Response]) -> None:
        self.told = 0
        self._future = future

    def done(self) -> bool:
        return self._future.done()

    def set_result(self, response: Response, /) -> None:
        self.told += 1
        self._future.set_result(response)

    def set_exception(self, error: Exception, /) -> None:
        self.told += 1
        self._future.set_exception(error)


class Caller:
    """Who sends one request and waits for its answer in a task."""

    def __init__(self, peers: Peers, number: int, size: int) -> None:
        self.outcome = ""
        self._expected = body_of(number, size)
        self._limit = asyncio.timeout(None)
        self.relay = Relay(asyncio.get_running_loop().create_future())
        # At once, as the gateway does it: the connection may be another's a moment later.
        self._sent = peers.send(number, size, self.relay)
        self._began = False
        self.task = asyncio.create_task(self._run())

    def cancel(self) -> None:
        if self._began:  # one that has not run could give nothing up
            self.task.cancel()

    def be_late(self) -> None:
        if self._began and not self._limit.expired() and not self.task.done():
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def _run(self) -> None:
        self._began = True
        try:
            async with self._limit:
                response = await self._sent.answer(self.relay._future)
                try:
                    data = response.data
                    if data is None:
                        data = b"".join([part async for part, _ in response.parts()])
                finally:
                    response.close()
        except (PodLost, PodUnreachable):
            self.outcome = "lost"
        except TimeoutError:
            self.outcome = "late"
        except asyncio.CancelledError:
            self.outcome = "cancelled"
        else:
            self.outcome = "answered"
            assert data == self._expected, "it was given another's answer"


SEVERAL = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(SIZES)),
        st.tuples(st.sampled_from(["answer", "piece", "cancel", "late", "close"]), st.integers(0, 7)),
    ),
    max_size=6,
)
MET = st.tuples(st.sampled_from(["cancel", "late", "close"]), st.integers(0, 1), st.sampled_from(SIZES)).flatmap(
    lambda met: st.permutations([(met[0], met[1]), ("answer", met[1]), ("ask", met[2])])
)
"""What must not be mixed up: one gives up, is answered, and another asks, all in one turn."""
TURN = st.one_of(MET, SEVERAL)


async def run(peers: Peers, turns: list[list[tuple[str, int]]]) -> list[Caller]:
    """Do what each turn says in one turn of the loop; then let the pod answer whatever it still owes."""
    loop = asyncio.get_running_loop()
    callers: list[Caller] = []
    broken: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: broken.append(context))

    def turn(steps: list[tuple[str, int]]) -> None:
        waiting = [caller for caller in callers if not caller.task.done()]
        for what, number in steps:
            match what:
                case "ask":
                    callers.append(Caller(peers, len(callers), number))
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
        peers.answer(0, whole=True)
        await asyncio.sleep(0)
    pending = [caller for caller in callers if not caller.task.done()]
    assert not pending, "neither answered nor failed"
    for caller in callers:
        caller.task.result()  # what it asserts
    assert not broken
    return callers


@pytest.mark.parametrize("peers", [HttpPeers, FramePeers])
@given(turns=st.lists(TURN, max_size=12))
@settings(max_examples=300, deadline=None)
def test_each_caller_is_told_exactly_once(peers: Callable[[], Peers], turns: list[list[tuple[str, int]]]) -> None:
    """A caller has its own answer or a failure, once, whoever else gives up or is answered in the same turn."""

    async def main() -> None:
        for caller in await run(peers(), turns):
            assert caller.relay.told == 1 or caller.outcome in ("cancelled", "late")
            assert caller.relay.told <= 1

    asyncio.run(main())


@pytest.mark.parametrize("peers", [HttpPeers, FramePeers])
@pytest.mark.parametrize("gives_up", ["cancel", "late"])
async def test_fault_caller_gives_up_as_its_answer_comes(peers: Callable[[], Peers], gives_up: str) -> None:
    """A caller that gives up as its answer comes takes no other's request with it."""
    turns = [[("ask", 1)], [], [(gives_up, 0), ("answer", 0), ("ask", 1)], [], [], []]
    first, second = await run(peers(), turns)
    assert first.outcome in ("cancelled", "late", "answered")
    assert second.outcome == "answered"


async def test_a_connection_that_ended_since_it_was_taken_says_so() -> None:
    """A request for a connection whose end was told already fails at once, as one of which nothing was sent."""
    connection = Connection(buffered_bytes=BUFFERED, on_free=lambda _: None)
    pipe = Pipe(connection, lambda _: None)
    pipe.abort()
    await asyncio.sleep(0)
    with pytest.raises(PodUnreachable):
        async with asyncio.timeout(10):
            await connection.ask(b"POST / HTTP/1.1\r\n\r\n", b"")
