"""Predictions over frames, against pods that do all that a pod should not, and against a real sidecar."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.fakes import FakePod, Running, running
from gateway.handlers import ready
from marway.deadline import Deadline
from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway_gateway.http.body import RequestBody
from marway_gateway.placement import Pod, score
from marway_gateway.predict.call import PredictCall
from marway_gateway.predict.cancel_scope import CancelScope
from marway_gateway.settings import PodAddress
from marway_gateway.transport import Upstream
from marway_gateway.transport.base import PodLost, PodUnreachable
from marway_gateway.transport.frames import FramesClientConnection, _Request
from marway_gateway.transport.pool import ConnectionPool
from marway_gateway.transport.reply import Reply
from marway_http.eager import EagerTask
from marway_http.frames import PART_BYTES, UPGRADE, WINDOW_PARTS, Frame, FrameReader, Kind, frame_header
from marway_http.http1.request import Request
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer
from support.pod import serving as sidecar
from support.registry import publish, until

pytestmark = pytest.mark.timeout(60)

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % UPGRADE.encode()
HEAD = b"content-type: x/y\r\nx-marway-outcome: answered\r\n"


def answer(number: int, body: bytes = b"out", *, head: bytes | None = None, status: int = 200) -> bytes:
    """Return an answer that is whole."""
    head = HEAD + b"content-length: %d\r\n" % len(body) if head is None else head
    return frame_header(Kind.ANSWER, number, head=len(head), body=len(body), status=status) + head + body


def part(number: int, body: bytes) -> bytes:
    return frame_header(Kind.PART, number, body=len(body)) + body


class Wire:
    """One connection that changed to frames, as a pod has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()
        self._come: deque[Frame] = deque()

    async def frame(self) -> Frame:
        """Return the next frame of the gateway."""
        while not self._come:
            data = await self._reader.read(65536)
            if not data:
                raise EOFError
            self._come += self._frames.feed(data)
        return self._come.popleft()

    async def request(self) -> tuple[int, bytes, bytes]:
        """Return the id, head and body of the next request, which is the next frame."""
        kind, number, _, head, body = await self.frame()
        assert kind == Kind.REQUEST
        return number, head, body

    async def say(self, *data: bytes) -> None:
        self._writer.write(b"".join(data))
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


Serve = Callable[[Wire], Awaitable[None]]


async def echo(wire: Wire) -> None:
    """Give back what was sent."""
    while True:
        number, _, body = await wire.request()
        await wire.say(answer(number, b"framed " + body))


class Server:
    """A pod on a free port that answers HTTP, and speaks frames as it is told.

    Attributes:
        handshake: What it says to who asks for frames.
        http: Heads and bodies of the requests that came over HTTP.
        framed: How often it was asked for frames.
        ended: Connections that the gateway closed, or that ended otherwise, of those that asked for frames.
        failed: What went wrong in a test's own `serve`.
    """

    def __init__(self, serve: Serve, handshake: bytes) -> None:
        self.handshake = handshake
        self.http: list[tuple[bytes, bytes]] = []
        self.framed = self.ended = 0
        self.failed: list[BaseException] = []
        self._serve = serve

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /frames "):
                    await self._frames(reader, writer)
                    return
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(int(length.partition(b":")[2]))
                self.http.append((head, body))
                writer.write(b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\nhttp %b" % (HEAD, len(body) + 5, body))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _frames(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.framed += 1
        try:
            writer.write(self.handshake)
            if self.handshake == SWITCHED:
                with suppress(EOFError):
                    await self._serve(Wire(reader, writer))
            await reader.read()  # until the gateway closes it
        except OSError:
            pass
        except BaseException as exc:
            self.failed.append(exc)
            raise
        finally:
            self.ended += 1


@asynccontextmanager
async def serving(serve: Serve = echo, *, handshake: bytes = SWITCHED) -> AsyncIterator[tuple[Server, Pod]]:
    server = Server(serve, handshake)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    listening = await asyncio.start_server(server.handle, sock=sock)
    try:
        async with asyncio.timeout(20):
            yield server, Pod(PodAddress("a", f"http://127.0.0.1:{sock.getsockname()[1]}"))
        assert server.failed == []
    finally:
        listening.close()
        await listening.wait_closed()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    client = Upstream(connect_timeout_s=5, buffered_bytes=300_000)
    yield client
    await client.aclose()


def pool_of(upstream: Upstream, pod: Pod) -> ConnectionPool:
    return upstream._pools.get(pod.url) or upstream._open(pod.url)


async def changed(upstream: Upstream, pod: Pod) -> FramesClientConnection:
    """Return the gateway's connection that takes frames."""
    pool = pool_of(upstream, pod)
    frames = pool.frames if pool.frames is not None and pool.frames.ready else await pool.frames_opened()
    assert frames is not None
    return frames


async def predict(upstream: Upstream, pod: Pod, data: bytes = b"input", **headers: str) -> Reply:
    body = RequestBody.opened(data, max_bytes=100_000)
    return await upstream.predict(pod, "intent", "1.0", headers=headers, body=body, deadline=Deadline.after(10))


def ask(upstream: Upstream, pod: Pod, data: bytes = b"input", **headers: str) -> asyncio.Task[Reply]:
    """Make a prediction, which is sent in the next turn of the loop."""
    return asyncio.create_task(predict(upstream, pod, data, **headers))


async def lost(reply: asyncio.Task[Reply]) -> str:
    """Return why there is no reply."""
    with pytest.raises(PodLost) as caught:
        await reply
    return caught.value.reason


def idle(pod: Pod) -> bool:
    return (pod.requests_in_flight, pod.in_flight_of) == (0, {})


# -- requests and their answers ----------------------------------------------------------------------------------


async def test_answers_in_any_order(upstream: Upstream) -> None:
    """Many requests travel on one connection at a time, and each gets its own answer, in whatever order these come."""

    async def serve(wire: Wire) -> None:
        come = [await wire.request() for _ in range(50)]
        assert len({number for number, _, _ in come}) == 50
        for number, _, body in come[25:] + come[24::-1]:
            await wire.say(answer(number, b"to " + body))

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        replies = [ask(upstream, pod, b"%d" % number) for number in range(50)]
        await asyncio.sleep(0)
        assert pod.requests_in_flight == 50
        assert [(await reply).data for reply in replies] == [b"to %d" % number for number in range(50)]
        assert (server.framed, len(server.http), idle(pod)) == (1, 0, True)


async def test_request_and_reply(upstream: Upstream) -> None:
    """A request says the same as over HTTP, and so does what becomes of its answer's headers, known or its own."""
    seen: list[tuple[bytes, bytes]] = []
    own = (
        *(b"content-type: text/plain", b"connection: keep-alive", b"keep-alive: 1", b"x-request-id: theirs"),
        *(b"x-marway-secret: 1", b"set-cookie: a=1", b"set-cookie: b=2", b"retry-after: 3", b"server: x"),
        b"content-length: 3",
    )

    async def serve(wire: Wire) -> None:
        for head in (
            b"".join(line + b"\r\n" for line in (*own, b"x-marway-outcome: answered")),
            b"x-marway-outcome: answered\r\nx-known: 1\r\n\r\n" + b"".join(line + b"\r\n" for line in own),
            b"x-marway-outcome: failed\r\n\r\nx-marway-outcome: answered\r\n",
        ):
            number, *said = await wire.request()
            seen.append((said[0], said[1]))
            await wire.say(answer(number, b"out", head=head, status=418))

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        replies = [await ask(upstream, pod, content_type="text/plain") for _ in range(3)]
        head = seen[0][0].split(b"\r\n")
        assert (head[0], head[-1]) == (b"/predict/intent/1.0", b"")
        host = pod.url.removeprefix("http://").encode()
        assert {b"host: " + host, b"content-length: 5"} < set(head)
        (told,) = [line for line in head if line.startswith(b"x-request-timeout-ms: ")]
        assert 0 < int(told.split(b" ")[1]) <= 10_000
        assert seen[0][1] == b"input"
        passed = [(b"content-type", b"text/plain"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        for reply, more in zip(replies[:2], ([], [(b"x-known", b"1")]), strict=True):
            assert (reply.outcome, reply.status, reply.data, reply.retry_after_s) == ("answered", 418, b"out", 3)
            assert reply.headers == [*more, *passed, (b"retry-after", b"3")]
            assert reply.header_block.text == b"".join(b"%b: %b\r\n" % each for each in reply.headers)
            assert reply.header_block.number == len(reply.headers)
        assert (replies[2].outcome, replies[2].headers, replies[2].data) == ("answered", [], b"out")
        assert server.framed == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(upstream: Upstream, status: int) -> None:
    """What cannot have a body has an empty one, whatever size is said."""

    async def serve(wire: Wire) -> None:
        for head in (HEAD, HEAD + b"content-length: 7\r\n"):
            number, _, _ = await wire.request()
            await wire.say(answer(number, b"", head=head, status=status))

    async with serving(serve) as (_, pod):
        await changed(upstream, pod)
        for _ in range(2):
            reply = await ask(upstream, pod)
            assert (reply.status, reply.data) == (status, b"")


async def test_declined(upstream: Upstream) -> None:
    """A request that the pod declines goes over HTTP, the same head and body, and is answered there."""
    heads: list[bytes] = []

    async def serve(wire: Wire) -> None:
        for _ in range(3):
            number, head, _ = await wire.request()
            heads.append(head)
            await wire.say(frame_header(Kind.DECLINED, number))
        await echo(wire)

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        replies = [ask(upstream, pod, b"%d" % number, accept=f"x/{number}") for number in range(3)]
        assert [(await reply).data for reply in replies] == [b"http %d" % number for number in range(3)]
        path = b"/predict/intent/1.0\r\n"
        expected = [b"POST " + path[:-2] + b" HTTP/1.1\r\n" + head.removeprefix(path) + b"\r\n" for head in heads]
        assert sorted(server.http) == sorted(zip(expected, (b"0", b"1", b"2"), strict=True))
        assert (await ask(upstream, pod)).data == b"framed input"
        assert (server.framed, idle(pod)) == (1, True)


async def test_a_pod_that_declines_and_is_gone(upstream: Upstream) -> None:
    """A request that was declined fails over HTTP as any other does there."""

    async def serve(wire: Wire) -> None:
        number, _, _ = await wire.request()
        await wire.say(frame_header(Kind.DECLINED, number))

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        reply = ask(upstream, pod)
        upstream._pools[pod.url]._port = 1  # nobody listens there
        with pytest.raises(PodUnreachable) as caught:
            await reply
        assert (caught.value.reason, idle(pod), server.http) == ("refused", True, [])


# -- pods that know no frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "handshake",
    [
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
        b"HTTP/1.1 426 Upgrade Required\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nupgrade: marway-frames/1\r\ncontent-length: 0\r\n\r\n",
        SWITCHED.replace(b"frames/1", b"frames/2"),
        SWITCHED.replace(b"Upgrade: marway-frames/1\r\n", b""),
        b"HTTP/1.1 101 Switching Protocols\r\nno header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01" * 20 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n" + b"a: b\r\n" * 10_000,
        b"",
    ],
    ids=["404", "426", "200", "frames-2", "no-upgrade", "no-header", "garbage", "endless", "nothing"],
)
async def test_pods_without_frames(handshake: bytes) -> None:
    """A pod that does not change to frames is asked over HTTP as soon as that is known, and is let alone a while."""
    upstream = Upstream(connect_timeout_s=5 if handshake else 0.1, buffered_bytes=1000)
    async with serving(handshake=handshake) as (server, pod):
        replies = [ask(upstream, pod) for _ in range(10)]
        assert [(await reply).data for reply in replies] == [b"http input"] * 10
        for _ in range(10):
            assert (await ask(upstream, pod)).data == b"http input"
        await until(lambda: server.ended == 1)
        assert (server.framed, len(server.http), idle(pod)) == (1, 20, True)
        await upstream.aclose()


async def test_a_pod_is_asked_for_frames_again(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while a pod without frames may be another: once it changes to them, they are used; none waits for it."""
    monkeypatch.setattr("marway_gateway.transport.pool._NO_FRAMES_S", 0.05)
    async with serving(handshake=b"HTTP/1.1 404 Not Found\r\n\r\n") as (server, pod):
        while server.framed < 3:
            assert (await ask(upstream, pod)).data == b"http input"
        server.handshake = b""
        while server.framed < 4:
            assert (await ask(upstream, pod)).data == b"http input"
        (opening,) = [task for task in asyncio.all_tasks() if task.get_name() == "open-frames"]
        for _ in range(20):
            assert (await ask(upstream, pod)).data == b"http input"
        assert not opening.done()
        pool_of(upstream, pod)._connect_timeout_s = 5
        opening.cancel()
        server.handshake = SWITCHED
        while (await ask(upstream, pod)).data == b"http input":
            pass
        assert (await ask(upstream, pod)).data == b"framed input"


async def test_an_answer_to_the_handshake_in_pieces(upstream: Upstream) -> None:
    """The answer to the handshake may come byte by byte."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in SWITCHED:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        with suppress(EOFError):
            await echo(Wire(reader, writer))
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        pool = ConnectionPool(f"http://127.0.0.1:{port}", connect_timeout_s=5, buffered_bytes=10)
        assert await pool.frames_opened() is not None
        pool.close()


async def test_closed_while_frames_are_asked_for() -> None:
    """A client that closes while a pod considers frames leaves no connection and no task behind; a request that waits
    for that goes over HTTP."""
    upstream = Upstream(connect_timeout_s=5, buffered_bytes=10)
    async with serving(handshake=b"") as (server, pod):
        reply = ask(upstream, pod)
        await until(lambda: server.framed == 1)
        await upstream.aclose()
        assert (await reply).data == b"http input"
        await until(lambda: server.ended == 1)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "open-frames"]


async def test_all_wait_for_one_opening(upstream: Upstream) -> None:
    """Requests that come while the connection is opened wait for it, whoever of them gives up."""
    async with serving() as (server, pod):
        replies = [ask(upstream, pod) for _ in range(20)]
        await asyncio.sleep(0)
        for given_up in (replies.pop(0), replies.pop()):
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
        assert [(await reply).data for reply in replies] == [b"framed input"] * 18
        assert (server.framed, server.http, idle(pod)) == (1, [], True)


# -- pods that misbehave -----------------------------------------------------------------------------------------


async def test_a_connection_that_is_lost(upstream: Upstream) -> None:
    """All requests in flight are lost with their connection, which counts as one failure of the pod; the next ones go
    over another one."""

    async def serve(wire: Wire) -> None:
        for _ in range(5):
            number, _, _ = await wire.request()
        await wire.say(answer(number))
        wire.close()

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        *others, last = (ask(upstream, pod) for _ in range(5))
        assert (await last).data == b"out"
        errors = await asyncio.gather(*others, return_exceptions=True)
        said = [(error.reason, error.counted) for error in errors if isinstance(error, PodLost)]
        assert said == [("connection_lost", True)] + [("connection_lost", False)] * 3
        assert idle(pod)
        await changed(upstream, pod)
        assert server.framed == 2


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "garbage": lambda number: b"\x16\x03\x01\x02\x00\x01\x00\x01" * 20,
    "http": lambda number: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nout",
    "too-large": lambda number: frame_header(Kind.ANSWER, number, body=PART_BYTES + 1, status=200),
    "a-request": lambda number: frame_header(Kind.REQUEST, number),
    "more": lambda number: frame_header(Kind.WINDOW_UPDATE, number, status=1),
    "a-part-first": lambda number: part(number, b"out"),
    "an-empty-part": lambda number: part(number, b""),
    "parts-beyond-its-length": lambda number: (
        answer(number, b"one", head=HEAD + b"content-length: 5\r\n") + part(number, b"two")
    ),
    "twice": lambda number: answer(number, b"one", head=HEAD + b"content-length: 5\r\n") * 2,
    "begun-and-declined": lambda number: (
        answer(number, b"one", head=HEAD + b"content-length: 5\r\n") + frame_header(Kind.DECLINED, number)
    ),
}


FAULTY: dict[str, Callable[[int], bytes]] = {
    "beyond-its-length": lambda number: answer(number, b"four", head=HEAD + b"content-length: 3\r\n"),
    "negative-length": lambda number: answer(number, b"", head=HEAD + b"content-length: -1\r\n"),
    "no-length": lambda number: answer(number, b"", head=HEAD + b"content-length: many\r\n"),
    "huge-length": lambda number: answer(number, b"", head=HEAD + b"content-length: " + b"9" * 5000 + b"\r\n"),
    "no-content-with-a-body": lambda number: answer(number, b"HTTP/1.1 200 OK\r\n\r\n", status=204),
    "status-0": lambda number: answer(number, status=0),
    "status-100": lambda number: answer(number, status=100),
    "status-600": lambda number: answer(number, status=600),
    "header-without-end": lambda number: answer(number, head=b"x-marway-outcome: answered"),
    "header-without-colon": lambda number: answer(number, head=b"x-marway-outcome\r\n"),
    "upper-case": lambda number: answer(number, head=HEAD + b"Content-Length: 3\r\n"),
    "two-empty-lines": lambda number: answer(number, head=b"a: b\r\n\r\nc: d\r\n\r\ne: f\r\n"),
    "many-headers": lambda number: answer(number, head=b"a: b\r\n" * 300),
}
"""Answers in frames that are frames, with a head or a body that no answer can have."""


@pytest.mark.parametrize("name", FAULTY)
async def test_an_answer_that_is_none_costs_one_request(upstream: Upstream, name: str) -> None:
    """A status, headers or a length that cannot be are the fault of that request; others on the connection go on."""
    cancelled = asyncio.Event()

    async def serve(wire: Wire) -> None:
        number, _, body = await wire.request()
        await wire.say(answer(number, body))
        numbers = [(await wire.request())[0] for _ in range(3)]
        await wire.say(FAULTY[name](numbers[1]), answer(numbers[0]), answer(numbers[2]))
        kind, number, *_ = await wire.frame()
        assert (kind, number) == (Kind.CANCEL, numbers[1])
        cancelled.set()
        await echo(wire)

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        assert (await ask(upstream, pod, b"good")).data == b"good"
        first, faulty, last = (ask(upstream, pod) for _ in range(3))
        results = await asyncio.gather(first, lost(faulty), last)
        assert (results[0].data, results[1], results[2].data) == (b"out", "bad_answer", b"out")
        async with asyncio.timeout(10):
            await cancelled.wait()
        assert (await ask(upstream, pod)).data == b"framed input"
        assert idle(pod)
        assert (server.framed, server.ended) == (1, 0)


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_pods(upstream: Upstream, name: str) -> None:
    """Whatever is said that is no answer loses all requests in flight, at once and with the reason."""

    async def serve(wire: Wire) -> None:
        number, _, body = await wire.request()
        await wire.say(answer(number, body))
        numbers = [(await wire.request())[0] for _ in range(3)]
        await wire.say(HOSTILE[name](numbers[1]))

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        assert (await ask(upstream, pod, b"good")).data == b"good"
        replies = [ask(upstream, pod) for _ in range(3)]
        assert [await lost(reply) for reply in replies] == ["bad_answer"] * 3
        await until(lambda: server.ended == 1)
        assert idle(pod)
        assert (await ask(upstream, pod)).data == b"input"
        assert server.framed == 2


async def test_answers_that_nobody_asked_for(upstream: Upstream) -> None:
    """What is said of an id that nobody waits for changes nothing."""

    async def serve(wire: Wire) -> None:
        number, _, _ = await wire.request()
        for kind in (Kind.ANSWER, Kind.PART, Kind.DECLINED):
            await wire.say(frame_header(kind, number + 7, status=200))
        await wire.say(answer(number, b"right"), answer(number, b"again"), frame_header(Kind.DECLINED, number))
        await echo(wire)

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        assert (await ask(upstream, pod)).data == b"right"
        assert (await ask(upstream, pod)).data == b"framed input"
        assert server.framed == 1


# -- large answers -----------------------------------------------------------------------------------------------


class Large:
    """Answers each request with a body in parts, no more of them than it was asked for.

    Attributes:
        sent: Parts of the first answer that were sent.
        asked: Parts beyond the first ones that it was asked for.
        cancelled: Ids of requests that nobody waits for.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.parts = [body[at : at + PART_BYTES] for at in range(0, len(body), PART_BYTES)]
        self.sent = self.asked = 0
        self.cancelled: list[int] = []

    async def __call__(self, wire: Wire) -> None:
        large, _, _ = await wire.request()
        head = HEAD + b"content-length: %d\r\n" % len(self.body)
        await wire.say(answer(large, self.parts[0], head=head))
        self.sent = 1
        await self._say(wire, large, WINDOW_PARTS - 1)
        while True:
            kind, number, status, _, body = await wire.frame()
            if kind == Kind.REQUEST:
                await wire.say(answer(number, body))
            elif kind == Kind.CANCEL:
                self.cancelled.append(number)
            else:
                assert (kind, number) == (Kind.WINDOW_UPDATE, large)
                self.asked += status
                assert self.asked <= self.sent  # or else more than the window would be under way
                await self._say(wire, large, status)

    async def _say(self, wire: Wire, large: int, count: int) -> None:
        for each in self.parts[self.sent : self.sent + count]:
            self.sent += 1
            await wire.say(part(large, each))


def bytes_of(size: int) -> bytes:
    return bytes(number % 251 for number in range(1000)) * (size // 1000) + b"z" * (size % 1000)


@pytest.mark.parametrize("size", [PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 300_000])
async def test_large_answers_come_whole(upstream: Upstream, size: int) -> None:
    """An answer of no more than is buffered is given when it is whole, whatever its parts."""
    large = Large(bytes_of(size))
    async with serving(large) as (_, pod):
        await changed(upstream, pod)
        reply = await ask(upstream, pod)
        assert (reply.data, reply.content_length, idle(pod)) == (large.body, size, True)


@pytest.mark.parametrize("size", [300_001, 40 * PART_BYTES])
async def test_larger_answers_stream(upstream: Upstream, size: int) -> None:
    """A larger answer is given as it comes, and all of it; others are answered meanwhile."""
    large = Large(bytes_of(size))
    async with serving(large) as (server, pod):
        await changed(upstream, pod)
        reply = await ask(upstream, pod)
        assert (reply.data, reply.content_length, pod.requests_in_flight) == (None, size, 1)
        got = []
        async for chunk in reply.chunks():
            got.append(chunk)
            assert (await ask(upstream, pod, b"%d" % len(got))).data == b"%d" % len(got)
        reply.close()
        assert b"".join(got) == large.body
        assert (idle(pod), large.cancelled, server.framed) == (True, [], 1)


async def test_a_reader_that_does_not_read(upstream: Upstream) -> None:
    """Of an answer that nobody reads no more comes than is held of any, and others are answered all the same."""
    large = Large(bytes_of(60 * PART_BYTES))
    async with serving(large) as (_, pod):
        await changed(upstream, pod)
        reply = await ask(upstream, pod)

        async def settled() -> int:
            while True:
                before = large.sent
                for _ in range(3):  # what was asked for before is asked for by then
                    assert (await ask(upstream, pod, b"small")).data == b"small"
                if large.sent == before:
                    return before

        first = await settled()
        assert WINDOW_PARTS <= first < 2 * WINDOW_PARTS
        chunks = reply.chunks()
        got = [await anext(chunks) for _ in range(WINDOW_PARTS)]
        second = await settled()
        assert first < second < 3 * WINDOW_PARTS
        got += [chunk async for chunk in chunks]
        assert b"".join(got) == large.body
        reply.close()


async def test_a_reader_that_leaves(upstream: Upstream) -> None:
    """Who wants no more of an answer has the pod told so; the connection is kept."""
    large = Large(bytes_of(60 * PART_BYTES))
    async with serving(large) as (server, pod):
        await changed(upstream, pod)
        reply = await ask(upstream, pod)
        assert await anext(reply.chunks()) == large.parts[0]
        reply.close()
        reply.close()
        await until(lambda: large.cancelled)
        assert (await ask(upstream, pod)).data == b"input"
        assert (large.cancelled, server.framed, idle(pod)) == ([1], 1, True)


@pytest.mark.parametrize("ends", ["closed", "too long", "garbage"])
async def test_large_answers_that_break_off(upstream: Upstream, ends: str) -> None:
    """An answer that breaks off gives what came before, and then says that it is not whole."""
    go_on = asyncio.Event()

    async def serve(wire: Wire) -> None:
        number, _, _ = await wire.request()
        await wire.say(answer(number, b"begins", head=HEAD + b"content-length: 300001\r\n"))
        await go_on.wait()
        if ends == "closed":
            wire.close()
        elif ends == "garbage":
            await wire.say(b"garbage" * 10)
        else:
            await wire.say(*[part(number, b"x" * PART_BYTES)] * 5)

    async with serving(serve) as (_, pod):
        await changed(upstream, pod)
        reply = await ask(upstream, pod)
        chunks = reply.chunks()
        assert await anext(chunks) == b"begins"
        other = ask(upstream, pod)
        go_on.set()
        with pytest.raises(PodLost) as caught:
            _ = [chunk async for chunk in chunks]
        reply.close()
        assert caught.value.reason == ("connection_lost" if ends == "closed" else "bad_answer")
        assert await lost(other) == caught.value.reason
        assert idle(pod)


# -- requests that are given up ----------------------------------------------------------------------------------


async def test_giving_up_on_a_silent_connection(upstream: Upstream) -> None:
    """A request that is given up is cancelled at the pod, and a connection over which nothing came since is left to
    those that wait on it."""
    cancelled: list[int] = []
    go_on = asyncio.Event()

    async def serve(wire: Wire) -> None:
        one, _, _ = await wire.request()
        other, _, body = await wire.request()
        if body == b"echo":
            await wire.say(answer(one), answer(other))
            return
        kind, number, _, _, _ = await wire.frame()
        assert (kind, number) == (Kind.CANCEL, one)
        cancelled.append(number)
        await go_on.wait()
        await wire.say(answer(other, b"late"))

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        one, other = ask(upstream, pod, b"one"), ask(upstream, pod, b"other")
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        await until(lambda: cancelled)
        await changed(upstream, pod)
        assert server.framed == 2
        more = [ask(upstream, pod, b"echo") for _ in range(2)]
        assert [(await reply).data for reply in more] == [b"out", b"out"]
        assert (server.ended, pod.requests_in_flight) == (0, 1)
        go_on.set()
        assert (await other).data == b"late"
        await until(lambda: server.ended == 1)  # the first, of no more use
        assert idle(pod)


async def test_giving_up_on_a_connection_that_speaks(upstream: Upstream) -> None:
    """A connection over which something came since is used on; the answer that nobody waits for is thrown away."""
    held: list[int] = []

    async def serve(wire: Wire) -> None:
        number, _, _ = await wire.request()
        held.append(number)
        while True:
            kind, number, _, _, body = await wire.frame()
            if kind == Kind.CANCEL:
                assert number == held.pop()
                await wire.say(answer(number, b"too late"))
            else:
                await wire.say(answer(number, body))

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        reply = ask(upstream, pod, b"held")
        await until(lambda: held)
        assert (await ask(upstream, pod)).data == b"input"
        reply.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reply
        await until(lambda: not held)
        assert (await ask(upstream, pod)).data == b"input"
        assert (server.framed, idle(pod)) == (1, True)


async def test_giving_up_an_answer_that_has_come(upstream: Upstream) -> None:
    """Who is cancelled in the same moment in which the answer comes leaves nothing behind."""
    async with serving() as (server, pod):
        await changed(upstream, pod)
        framed = await changed(upstream, pod)
        task = ask(upstream, pod)
        received = framed.data_received

        def data_received(data: bytes) -> None:
            received(data)
            task.cancel()

        framed.data_received = data_received  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await task
        framed.data_received = received  # type: ignore[method-assign]
        assert idle(pod)
        assert (await ask(upstream, pod)).data == b"framed input"
        assert server.framed == 1


async def test_a_pod_that_takes_no_more(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a pod does not read what was sent, requests take other connections; frames again, once it has."""
    monkeypatch.setattr("marway_gateway.transport.frames._WAITING_BYTES_MAX", 200_000)
    go_on = asyncio.Event()

    async def serve(wire: Wire) -> None:
        await go_on.wait()
        await echo(wire)

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        connection = await changed(upstream, pod)
        framed: list[asyncio.Task[Reply]] = []
        while connection.ready and len(framed) < 1000:
            framed.append(ask(upstream, pod, b"%d" % len(framed) + b"x" * 60_000))
            await asyncio.sleep(0)
        assert 3 < len(framed) < 1000
        assert (await ask(upstream, pod)).data == b"http input"
        go_on.set()
        for number, reply in enumerate(framed):
            assert (await reply).data == b"framed %d" % number + b"x" * 60_000
        await until(lambda: connection.ready)
        assert (await ask(upstream, pod)).data == b"framed input"
        assert (server.framed, idle(pod)) == (1, True)


# -- the end of connections --------------------------------------------------------------------------------------


async def test_idle_connections_are_closed(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that nobody uses for a while is closed, but never one with a request on it; the next opens one."""
    monkeypatch.setattr("marway_gateway.transport.frames._IDLE_S", 0.05)
    looked = 0
    look = FramesClientConnection._close_if_idle

    def counted(self: FramesClientConnection) -> None:
        nonlocal looked
        looked += 1
        look(self)

    monkeypatch.setattr(FramesClientConnection, "_close_if_idle", counted)

    async def serve(wire: Wire) -> None:
        number, _, _ = await wire.request()
        before = looked
        await until(lambda: looked >= before + 4)
        await wire.say(answer(number))

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        assert (await ask(upstream, pod)).data == b"out"
        await until(lambda: server.ended == 1)
        await changed(upstream, pod)
        assert server.framed == 2


async def test_closing_lets_requests_end(upstream: Upstream) -> None:
    """A client that is closed waits for what is in flight, which is answered; then the connection is closed."""
    go_on = asyncio.Event()

    async def serve(wire: Wire) -> None:
        numbers = [(await wire.request())[0] for _ in range(3)]
        await go_on.wait()
        for number in numbers:
            await wire.say(answer(number, b"%d" % number))

    async with serving(serve) as (server, pod):
        await changed(upstream, pod)
        replies = [ask(upstream, pod) for _ in range(3)]
        await asyncio.sleep(0)
        await upstream.aclose()
        go_on.set()
        assert [(await reply).data for reply in replies] == [b"1", b"2", b"3"]
        await until(lambda: server.ended == 1)


async def test_nothing_is_sent_after_a_pod_hung_up(upstream: Upstream) -> None:
    """A request that is sent in the turn of the loop in which the pod's end came goes over another connection."""
    hang_up = asyncio.Event()

    async def serve(wire: Wire) -> None:
        if not hang_up.is_set():
            await hang_up.wait()
            wire.close()
        else:
            await echo(wire)

    async with serving(serve) as (server, pod):
        framed = await changed(upstream, pod)
        replies: list[Reply] = []
        taken = framed.eof_received

        async def run() -> None:
            replies.append(await predict(upstream, pod))

        def eof_received() -> None:
            taken()
            EagerTask(run())

        framed.eof_received = eof_received  # type: ignore[method-assign]
        hang_up.set()
        await until(lambda: replies)
        assert (replies[0].data, server.framed) == (b"framed input", 2)


# -- a whole gateway ---------------------------------------------------------------------------------------------


class FramedPod(FakePod):
    """A pod that speaks frames.

    Attributes:
        serve: Treats each connection with frames.
        wires: Such connections that were made.
    """

    serve: Serve = staticmethod(echo)
    wires: int = 0

    def add_routes(self, app: web.Application) -> None:
        super().add_routes(app)
        app.router.add_get("/frames", self._frames)

    async def _frames(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        before = transport.get_protocol()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        transport.write(SWITCHED)
        self.wires += 1
        try:
            writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
            with suppress(EOFError):
                await self.serve(Wire(reader, writer))
        finally:
            transport.set_protocol(before)
            transport.close()
        return web.Response()


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


@asynccontextmanager
async def framed_gateway(
    *pods: FakePod, registry: Registry, monkeypatch: pytest.MonkeyPatch, **flags: Any
) -> AsyncIterator[tuple[Running, list[str]]]:
    """A gateway that has a connection with frames to its first pod; and the names of pods asked so, to be filled."""
    asked: list[str] = []
    request = FramesClientConnection.request

    async def counted(self: FramesClientConnection, head: bytes, body: RequestBody) -> Reply:
        asked.append(head.split(b"host: ")[1].split(b"\r\n")[0].decode())
        return await request(self, head, body)

    monkeypatch.setattr(FramesClientConnection, "request", counted)
    async with running(*pods, registry=registry, health_interval_s=60, **flags) as gateway:
        await ready(gateway)
        yield gateway, asked


async def started(*pods: FramedPod) -> list[FramedPod]:
    """Start pods; return them in the order in which the model's version asks them."""
    for pod in pods:
        await pod.start()
    return sorted(pods, key=lambda pod: score(pod.name, "intent", "1.0"), reverse=True)


async def until_framed(gateway: Running, asked: list[str]) -> None:
    """Predict until one goes over frames."""
    while not asked:
        assert (await gateway.predict()).status_code == 200
    asked.clear()


async def test_lost_requests_are_asked_of_another_pod(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that were on a connection that is lost are each tried on another pod, and counted."""

    async def serve(wire: Wire) -> None:
        number, _, body = await wire.request()
        await wire.say(answer(number, body))
        for _ in range(3):
            await wire.request()
        wire.close()

    first, second = await started(FramedPod("a"), FramedPod("b"))
    first.serve = serve
    try:
        async with framed_gateway(first, second, registry=registry, monkeypatch=monkeypatch) as (gateway, asked):
            await until_framed(gateway, asked)
            second.requests.clear()
            answers = await asyncio.gather(*(gateway.predict(body=b"%d" % number) for number in range(3)))
            assert [each.status_code for each in answers] == [200] * 3
            assert [each.content.removeprefix(b"framed ") for each in answers] == [b"0", b"1", b"2"]
            retried = await gateway.metric('marway_gateway_retries_total{reason="connection_lost"}')
            assert (retried, asked[:3]) == (3, [first.url.removeprefix("http://")] * 3)
            assert await gateway.metric("marway_gateway_requests_in_flight") == 0
    finally:
        await first.stop()
        await second.stop()


@pytest.mark.parametrize("how", ["deadline", "leaves"])
async def test_callers_that_give_up(registry: Registry, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """When a caller's deadline passes, or it leaves, the pod is told."""
    held: list[int] = []
    cancelled: list[int] = []

    async def serve(wire: Wire) -> None:
        while True:
            kind, number, _, _, body = await wire.frame()
            if kind == Kind.CANCEL:
                cancelled.append(number)
            elif body == b"hold":
                held.append(number)
            else:
                await wire.say(answer(number, body))

    (pod,) = await started(FramedPod("a"))
    pod.serve = serve
    try:
        async with framed_gateway(pod, registry=registry, monkeypatch=monkeypatch) as (gateway, asked):
            await until_framed(gateway, asked)
            if how == "deadline":
                reply = await gateway.predict(body=b"hold", x_request_timeout_ms="600")
                assert (reply.status_code, reply.json()["code"]) == (504, "deadline_exceeded")
            else:
                task = asyncio.create_task(gateway.predict(body=b"hold"))
                await until(lambda: held)
                task.cancel()
            await until(lambda: cancelled)
            assert cancelled == held
            assert len(asked) == 1
            while await gateway.metric("marway_gateway_requests_in_flight"):
                await asyncio.sleep(0)
    finally:
        await pod.stop()


async def test_no_request_is_left_behind(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of requests, nothing of them is left for Python's collector, which looks seldom; save of those
    whose pod is lost, by their tracebacks, and these it can free."""

    async def serve(wire: Wire) -> None:
        while True:
            kind, number, _, _, body = await wire.frame()
            if kind != Kind.REQUEST or body == b"hold":
                continue
            if body == b"declined":
                await wire.say(frame_header(Kind.DECLINED, number))
            elif body == b"parts":
                head = HEAD + b"content-length: 4\r\n"
                await wire.say(answer(number, b"pa", head=head), part(number, b"rt"))
            elif body == b"half":
                await wire.say(answer(number, b"pa", head=HEAD + b"content-length: 4\r\n"))
            elif body == b"lose":
                wire.close()
                return
            else:
                await wire.say(answer(number, body))

    def there() -> list[object]:
        return [each for each in gc.get_objects() if type(each) in (_Request, PredictCall, CancelScope)]

    def left() -> list[type]:
        return [type(each) for each in there() if id(each) not in others]

    (pod,) = await started(FramedPod("a"))
    pod.serve = serve
    try:
        async with framed_gateway(pod, registry=registry, monkeypatch=monkeypatch, max_retries=0) as (gateway, asked):
            await until_framed(gateway, asked)
            gc.collect()
            kept = there()  # of tests before this one in this process, whose tracebacks are still to be printed
            others = {id(each) for each in kept}
            gc.disable()
            try:
                for body in (b"small", b"parts", b"declined"):
                    for _ in range(20):
                        assert (await gateway.predict(body=body)).status_code == 200
                    await until(lambda: not left())
                for body in (b"hold", b"half"):
                    reply = await gateway.predict(body=body, x_request_timeout_ms="600")
                    assert reply.status_code == 504
                    await until(lambda: not left())
                    asked.clear()
                    await until_framed(gateway, asked)
                assert (await gateway.predict(body=b"lose")).status_code == 503
            finally:
                gc.enable()
            await until(lambda: gc.collect() >= 0 and not left())
            # Of clients' requests, each connection has its latest.
            assert sum(type(each) is Request for each in gc.get_objects()) < 10
    finally:
        await pod.stop()


# -- a real sidecar ----------------------------------------------------------------------------------------------


async def of_all_kinds(model: ServedModel, row: Row) -> Answer:
    """Answer as the input says."""
    match row.parts[0].value:
        case b"error":
            return Answer(422, b"KeyError: 'text'", "error")
        case b"no content":
            return Answer(204, b"", "text")
        case b"headers":
            own = {"X-Own": "yes", "Set-Cookie": "a=1", "Connection": "x-own", "x-marway-secret": "1", "Server": "it"}
            return Answer(418, b"short", "text", "text/csv; header=present", own)
        case b"none":
            return Answer(200, b"", "bytes")
        case b"large":
            return Answer(200, bytes_of(5 * PART_BYTES + 7), "bytes")
        case b"larger":
            return Answer(200, bytes_of(40 * PART_BYTES + 7), "bytes")
        case b"seen":
            seen = sorted((name, value) for name, value in row.headers.items() if name != "host")
            return Answer(200, repr((row.request_id, seen, row.parts)).encode(), "text")
    return Answer(200, row.parts[0].value, "json")


REQUESTS: dict[str, tuple[bytes, dict[str, str]]] = {
    **{each: (each.encode(), {}) for each in ("error", "no content", "headers", "none", "large", "larger", "plain")},
    "seen": (b"seen", {"content_type": "text/x; a=b", "accept": "x/y", "x_request_group_id": "g", "cookie": "a=b"}),
    "explained": (b"seen", {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "a=b"}),
    "form": (b"data=seen&b=c", {"content_type": "application/x-www-form-urlencoded"}),
    "empty": (b"", {}),
    "large input": (b"x" * 70_000, {}),
}
ITS_OWN = {"date", "server-timing", "x-prediction-id"}


async def test_a_real_sidecar_answers_alike(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked and answered, a client sees the same over frames as over HTTP: status, headers and body."""

    async def outcomes(gateway: Running) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, (body, headers) in REQUESTS.items():
            reply = await gateway.predict(body=body, x_request_id="the-same", **headers)
            assert reply.headers["x-request-id"] == "the-same"
            content = reply.content
            if name in ("seen", "explained"):  # the time that is left is another each time
                assert b"the-same" in content
            said = [(key, value) for key, value in reply.headers.multi_items() if key not in ITS_OWN]
            timing = [each.partition(";")[0] for each in reply.headers["server-timing"].split(", ")]
            seen[name] = [reply.status_code, said, timing, content]
        return seen

    async with sidecar(registry, tmp_path, server=FakeServer(predict_with=of_all_kinds)) as pod:
        address: Any = PodAddress("pod-0", pod.url)
        async with framed_gateway(address, registry=registry, monkeypatch=monkeypatch) as (gateway, asked):
            await until_framed(gateway, asked)
            framed = await outcomes(gateway)
            assert len(asked) == len([body for body, _ in REQUESTS.values() if 0 < len(body) <= 65536])
            monkeypatch.setattr("marway_gateway.transport.client.REQUEST_BYTES_MAX", -1)
            asked.clear()
            plain = await outcomes(gateway)
            assert asked == []
            for name, outcome in framed.items():
                assert outcome == plain[name], name
            assert [each[0] for each in framed.values()][:7] == [422, 204, 418, 200, 200, 200, 200]
            assert [framed[name][0] for name in ("seen", "form", "large input")] == [200] * 3


async def test_a_real_sidecar_with_many_clients(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of many clients at a time gets its own answers, over few connections."""

    async def slow(model: ServedModel, row: Row) -> Answer:
        await asyncio.sleep(0.001 * (len(row.parts[0].value) % 3))
        return Answer(200, b"to " + row.parts[0].value, "bytes")

    server = FakeServer(predict_with=slow)
    publish(registry, tmp_path, "many", "1.0", serving={"max_workers": 4})
    async with sidecar(registry, tmp_path, server=server) as pod:
        address: Any = PodAddress("pod-0", pod.url)
        async with framed_gateway(address, registry=registry, monkeypatch=monkeypatch) as (gateway, asked):
            while not asked:
                assert (await gateway.predict("/predict/many")).status_code == 200

            async def client(number: int) -> None:
                for at in range(20):
                    body = b"%d of %d" % (at, number)
                    reply = await gateway.predict("/predict/many", body)
                    assert (reply.status_code, reply.content) == (200, b"to " + body)

            asked.clear()
            await asyncio.gather(*(client(number) for number in range(16)))
            assert len(asked) == 320
