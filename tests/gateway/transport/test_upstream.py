"""The client that carries predictions, over HTTP, against servers that do all that a server should not."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marway.deadline import Deadline
from marway.errors import BodyTooLarge
from marway_gateway.http.body import ClientGone, RequestBody
from marway_gateway.placement import Pod
from marway_gateway.settings import PodAddress
from marway_gateway.transport import Upstream
from marway_gateway.transport.base import PodLost, PodUnreachable
from marway_gateway.transport.http import HttpClientConnection
from marway_gateway.transport.reply import Reply

MIB = 1024 * 1024
Serve = Callable[["Wire"], Awaitable[None]]


class Wire:
    """One connection as a hostile server has it."""

    def __init__(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._first = first

    async def head(self) -> bytes:
        """Read one request's head."""
        first, self._first = self._first, b""
        return first or await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request whose size is said; return head and body."""
        head = await self.head()
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:")).split(b":")[1]
        return head, await self.reader.readexactly(int(length))

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


class Server:
    """A server on a free port that knows no frames, and treats each connection with HTTP as it is told."""

    def __init__(self, serve: Serve) -> None:
        self.connections = 0
        self.closed = 0
        self._serve = serve
        self._changed = asyncio.Condition()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            first = b""
        if first.startswith(b"GET /frames "):
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            writer.close()
            return
        self.connections += 1
        try:
            await self._serve(Wire(first, reader, writer))
            await reader.read()  # until the client closes
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            async with self._changed:
                self.closed += 1
                self._changed.notify_all()

    async def until_closed(self, count: int) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self.closed >= count)


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[tuple[Server, Pod]]:
    server = Server(serve)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield server, Pod(PodAddress("a", f"http://127.0.0.1:{port}"))
    finally:
        listening.close()
        await listening.wait_closed()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    client = Upstream(connect_timeout_s=5, buffered_bytes=1000)
    yield client
    await client.aclose()


def of(data: bytes, *, max_bytes: int = 64 * MIB) -> RequestBody:
    return RequestBody.of(data, max_bytes=max_bytes)


async def ask(upstream: Upstream, pod: Pod, body: RequestBody | None = None, **headers: str) -> Reply:
    body = body or of(b"input")
    await body.open()
    return await upstream.predict(pod, "intent", "1.0", headers=headers, body=body, deadline=Deadline.after(10))


def answer(body: bytes = b"out", *more: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"x-marway-outcome: answered", b"content-length: %d" % len(body), *more]
    return b"\r\n".join([*lines, b"", body])


CHUNKED = b"HTTP/1.1 200 OK\r\nX-Marway-Outcome: answered\r\nTransfer-Encoding: chunked\r\n\r\n"


async def whole(reply: Reply) -> bytes:
    return b"".join([chunk async for chunk in reply.chunks()])


async def read_into(got: list[bytes], reply: Reply) -> None:
    async for chunk in reply.chunks():
        got += [chunk]  # one by one: what came before an error must be there


# -- what goes out and comes back ----------------------------------------------------------------------------


async def test_request_and_reply(upstream: Upstream) -> None:
    """A request names the version and the deadline, and a reply has status, body and the headers that may go on."""
    seen: list[tuple[bytes, bytes]] = []

    async def serve(wire: Wire) -> None:
        seen.append(await wire.request())
        await wire.say(
            answer(
                b"out",
                *(b"Content-Type: text/plain", b"Connection: X-Hop", b"x-hop: 1", b"X-Request-Id: theirs"),
                *(b"x-marway-secret: 1", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"Retry-After: 3", b"Server: x"),
                status=b"418 Odd",
            )
        )

    async with serving(serve) as (_, pod):
        reply = await ask(upstream, pod, content_type="text/plain")
    head, body = seen[0]
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /predict/intent/1.0 HTTP/1.1"
    assert b"host: " + pod.url.removeprefix("http://").encode() in lines
    (told,) = [line for line in lines if line.startswith(b"x-request-timeout-ms: ")]
    assert 0 < int(told.split(b" ")[1]) <= 10_000
    assert body == b"input"
    assert (reply.outcome, reply.status, reply.data, reply.retry_after_s) == ("answered", 418, b"out", 3)
    assert reply.headers == [
        *((b"content-type", b"text/plain"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"retry-after", b"3"))
    ]
    assert (pod.requests_in_flight, pod.in_flight_of) == (0, {})


async def test_connections_are_kept(upstream: Upstream) -> None:
    """One request after the other uses one connection; two at once use two."""
    both = asyncio.Barrier(2)

    async def serve(wire: Wire) -> None:
        while True:
            _, body = await wire.request()
            if body == b"wait":
                await both.wait()
            await wire.say(answer(body))

    async with serving(serve) as (server, pod):
        for number in range(5):
            assert (await ask(upstream, pod, of(b"%d" % number))).data == b"%d" % number
        assert server.connections == 1
        replies = await asyncio.gather(*(ask(upstream, pod, of(b"wait")) for _ in range(2)))
        assert [reply.data for reply in replies] == [b"wait", b"wait"]
        assert server.connections == 2


async def test_idle_connections_are_closed(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that nobody uses for a while is closed, and the next request opens another."""
    monkeypatch.setattr("marway_gateway.transport.pool._IDLE_S", 0.05)

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(answer())

    async with serving(serve) as (server, pod):
        await ask(upstream, pod)
        await server.until_closed(1)
        await ask(upstream, pod)
        assert server.connections == 2


@pytest.mark.parametrize("more", [(b"connection: close",), ()], ids=["close", "one-dot-zero"])
async def test_connections_that_end(upstream: Upstream, more: tuple[bytes, ...]) -> None:
    """A pod that says that it closes, or speaks HTTP/1.0, gets its next request on another connection."""

    async def serve(wire: Wire) -> None:
        await wire.request()
        data = answer(b"out", *more)
        await wire.say(data if more else data.replace(b"HTTP/1.1", b"HTTP/1.0"))

    async with serving(serve) as (server, pod):
        assert (await ask(upstream, pod)).data == b"out"
        await server.until_closed(1)
        assert (await ask(upstream, pod)).data == b"out"
        assert server.connections == 2


async def test_no_second_request_in_a_header(upstream: Upstream) -> None:
    """A header with a line break is refused before anything is sent."""

    async def serve(wire: Wire) -> None:
        raise AssertionError("it was sent")

    async with serving(serve) as (server, pod):
        with pytest.raises(ValueError, match="line break"):
            await ask(upstream, pod, accept="x\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1")
        assert server.connections == 0


@given(cuts=st.lists(st.integers(1, 300), max_size=12), chunked=st.booleans())
def test_any_cut(cuts: list[int], chunked: bool) -> None:
    """However a reply is cut into segments, it is the same reply, and the connection serves another."""
    body = bytes(range(200))
    data = CHUNKED + b"5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\nTrailer: 1\r\n\r\n" if chunked else answer(body)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + data if len(cuts) % 2 else data
    edges = sorted({*edges, len(data)})

    async def serve(wire: Wire) -> None:
        for _ in range(2):
            await wire.request()
            for start, end in pairwise(edges):
                await wire.say(data[start:end])
                await asyncio.sleep(0)

    async def main() -> None:
        client = Upstream(connect_timeout_s=5, buffered_bytes=1000)
        async with serving(serve) as (server, pod):
            for _ in range(2):
                reply = await ask(client, pod)
                if chunked:
                    assert [piece async for piece in reply.pieces(max_bytes=100)] == [b"abcde", b"fgh"]
                    assert (b"trailer", b"1") not in reply.headers
                else:
                    assert reply.data == body
                reply.close()
            assert server.connections == 1
            await client.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answers_without_a_body(upstream: Upstream, status: bytes) -> None:
    """What cannot have a body has an empty one, and the connection is kept."""

    async def serve(wire: Wire) -> None:
        for _ in range(2):
            await wire.request()
            await wire.say(b"HTTP/1.1 " + status + b"\r\nx-marway-outcome: answered\r\n\r\n")

    async with serving(serve) as (server, pod):
        for _ in range(2):
            assert (await ask(upstream, pod)).data == b""
        assert server.connections == 1


async def test_body_until_the_end_of_the_connection(upstream: Upstream) -> None:
    """A body of no said size ends with its connection, as HTTP/1.0 has it."""

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(b"HTTP/1.1 200 OK\r\nx-marway-outcome: answered\r\n\r\nall of it")
        wire.writer.close()

    async with serving(serve) as (_, pod):
        reply = await ask(upstream, pod)
        assert await whole(reply) == b"all of it"


# -- servers that misbehave ----------------------------------------------------------------------------------

HOSTILE = {
    "closes-at-once": (b"", "connection_lost"),
    "half-a-head": (b"HTTP/1.1 200 OK\r\ncontent-le", "connection_lost"),
    "half-a-body": (answer(b"x" * 100)[:-50], "connection_lost"),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01" * 20, "bad_answer"),
    "a-request": (b"GET / HTTP/1.1\r\n\r\n", "bad_answer"),
    "two-lengths": (answer(b"abc", b"content-length: 2"), "bad_answer"),
    "length-and-chunks": (answer(b"abc", b"transfer-encoding: chunked"), "bad_answer"),
    "negative-length": (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "bad_answer"),
    "huge-length": (b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % 10**30, "bad_answer"),
    "switches-protocols": (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "bad_answer",
    ),
    "interim-without-end": (b"HTTP/1.1 102 Processing\r\n\r\n" * 100, "bad_answer"),
    "many-headers": (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300, "bad_answer"),
    "long-headers": (b"HTTP/1.1 200 OK\r\n" + (b"a: " + b"b" * 1000 + b"\r\n") * 100, "bad_answer"),
    "one-endless-header": (b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000, "bad_answer"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_servers(upstream: Upstream, name: str) -> None:
    """Whatever comes that is no answer is a lost attempt with a reason, and its connection is closed."""
    data, reason = HOSTILE[name]

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(data)
        if reason == "connection_lost":
            wire.writer.close()

    async with serving(serve) as (server, pod):
        async with asyncio.timeout(10):
            with pytest.raises(PodLost) as caught:
                await ask(upstream, pod)
        assert caught.value.reason == reason
        assert (pod.requests_in_flight, pod.in_flight_of) == (0, {})
        await server.until_closed(1)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"5\r\nabcde\r\n", "connection_lost"),
        (b"5\r\nabcde\r\nzz\r\n", "bad_answer"),
        (b"5\r\nabcdeXX3\r\n", "bad_answer"),
    ],
    ids=["ends-early", "no-size", "no-line-break"],
)
async def test_broken_chunks(upstream: Upstream, data: bytes, error: str) -> None:
    """A stream that breaks off gives what came before, and then says that it is not whole."""

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(CHUNKED + data)
        wire.writer.close()

    async with serving(serve) as (_, pod):
        reply = await ask(upstream, pod)
        got: list[bytes] = []
        with pytest.raises(PodLost) as caught:
            await read_into(got, reply)
        reply.close()
    assert got == [b"abcde"]
    assert caught.value.reason == error
    assert pod.requests_in_flight == 0


@pytest.mark.parametrize("extra", [answer(b"forged"), b"X", b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_forged_answers(upstream: Upstream, extra: bytes, at_once: bool) -> None:
    """What a pod says beyond its answer never answers the next request."""
    closed = asyncio.Event()

    async def serve(wire: Wire) -> None:
        _, body = await wire.request()
        if body == b"second":
            await wire.say(answer(b"right"))
            return
        await wire.say(answer(b"first") + (extra if at_once else b""))
        if not at_once:
            await wire.say(extra)
        await wire.reader.read()
        closed.set()

    async with serving(serve) as (server, pod):
        assert (await ask(upstream, pod)).data == b"first"
        async with asyncio.timeout(10):
            await closed.wait()
        assert (await ask(upstream, pod, of(b"second"))).data == b"right"
        assert server.connections == 2


async def test_reset_while_idle(upstream: Upstream) -> None:
    """A connection that the pod closed while nobody used it is not used again."""

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(answer())
        wire.writer.close()

    async with serving(serve) as (server, pod):
        for number in range(1, 4):
            assert (await ask(upstream, pod)).data == b"out"
            await server.until_closed(number)
            await asyncio.sleep(0.01)  # until this side has seen it too; nothing tells


async def test_nobody_listens(upstream: Upstream) -> None:
    """A refused connection says that nothing was sent."""
    async with serving(lambda wire: wire.say(b"")) as (_, pod):
        pass
    with pytest.raises(PodUnreachable) as caught:
        await ask(upstream, pod)
    assert caught.value.reason == "refused"
    with pytest.raises(PodUnreachable) as caught:
        await ask(upstream, Pod(PodAddress("b", "http://no-such-host.invalid:80")))
    assert caught.value.reason == "unreachable"


async def test_connection_that_does_not_come_about() -> None:
    """A pod that takes no connection in time is unreachable: nothing was sent."""
    upstream = Upstream(connect_timeout_s=0.05, buffered_bytes=1000)
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(5):  # fills the queue of connections, which nobody takes from
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        with pytest.raises(PodUnreachable) as caught:
            await ask(upstream, Pod(PodAddress("a", f"http://127.0.0.1:{listening.getsockname()[1]}")))
    assert caught.value.reason == "connect_timeout"
    await upstream.aclose()


async def test_cancelled_request(upstream: Upstream) -> None:
    """A request that is given up closes its connection, so that the pod learns of it."""
    asked = asyncio.Event()

    async def serve(wire: Wire) -> None:
        await wire.request()
        asked.set()

    async with serving(serve) as (server, pod):
        task = asyncio.create_task(ask(upstream, pod))
        await asked.wait()
        assert pod.in_flight_of == {("intent", "1.0"): 1}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until_closed(1)
        assert pod.requests_in_flight == 0


# -- large bodies --------------------------------------------------------------------------------------------


def pieces(*parts: bytes, error: Exception | None = None, length: int | None = None) -> RequestBody:
    left = list(parts)

    async def read() -> bytes:
        if left:
            return left.pop(0)
        if error is not None:
            raise error
        return b""

    return RequestBody(read, content_length=length, buffered_bytes=10, max_bytes=64 * MIB)


async def read_chunks(wire: Wire) -> list[bytes]:
    chunks = []
    while size := int(await wire.reader.readline(), 16):
        chunks.append(await wire.reader.readexactly(size))
        assert await wire.reader.readexactly(2) == b"\r\n"
    assert await wire.reader.readexactly(2) == b"\r\n"
    return chunks


@pytest.mark.parametrize("known", [True, False])
async def test_large_body_waits_for_a_word(upstream: Upstream, known: bool) -> None:
    """A body that streams is sent only when the pod said to go on, in chunks where its size is not known."""
    parts = [b"a" * 300_000, b"", b"b" * 300_000]
    sizes: list[int] = []

    async def serve(wire: Wire) -> None:
        for _ in range(2):
            head = await wire.head()
            assert b"\r\nexpect: 100-continue\r\n" in head
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await wire.reader.readexactly(1)
            await wire.say(b"HTTP/1.1 100 Continue\r\n\r\n")
            if known:
                sizes.append(len(await wire.reader.readexactly(600_000)))
            else:
                sizes.append(len(b"".join(await read_chunks(wire))))
            await wire.say(answer(b"%d" % sizes[-1]))

    async with serving(serve) as (server, pod):
        for _ in range(2):
            body = pieces(*(part for part in parts if part), length=600_000 if known else None)
            assert (await ask(upstream, pod, body)).data == b"600000"
        assert server.connections == 1


async def test_refused_before_the_body(upstream: Upstream) -> None:
    """A pod that refuses a large request gets nothing of its body, which can still go elsewhere."""

    async def serve(wire: Wire) -> None:
        await wire.head()
        await wire.say(answer(b"busy", status=b"503 Busy").replace(b"answered", b"not_accepted"))
        assert await wire.reader.read() == b"", "the body came all the same"

    async with serving(serve) as (server, pod):
        body = pieces(b"x" * 300_000, length=300_000)
        reply = await ask(upstream, pod, body)
        assert (reply.status, reply.outcome, reply.data) == (503, "not_accepted", b"busy")
        assert body.repeatable
        await server.until_closed(1)


async def test_answer_before_the_end_of_the_body(upstream: Upstream) -> None:
    """A pod that answers in the middle of a body is taken at its word, and its connection is not used again."""

    async def serve(wire: Wire) -> None:
        await wire.head()
        await wire.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await wire.reader.readexactly(100)
        await wire.say(answer(b"enough"))

    async def endless() -> bytes:
        await asyncio.sleep(0)
        return b"x" * 1000

    async with serving(serve) as (server, pod):
        body = RequestBody(endless, content_length=60 * MIB, buffered_bytes=10, max_bytes=64 * MIB)
        assert (await ask(upstream, pod, body)).data == b"enough"
        await server.until_closed(1)


@pytest.mark.parametrize("error", [ClientGone(), BodyTooLarge("too much")], ids=["client-gone", "too-large"])
async def test_body_that_ends_early(upstream: Upstream, error: Exception) -> None:
    """A body that its sender breaks off ends the request with that error, and the pod never sees it whole."""
    rest: list[bytes] = []

    async def serve(wire: Wire) -> None:
        await wire.head()
        await wire.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        rest.append(await wire.reader.read())

    async with serving(serve) as (server, pod):
        with pytest.raises(type(error)):
            await ask(upstream, pod, pieces(b"x" * 300_000, error=error))
        await server.until_closed(1)
    assert not any(each.endswith(b"0\r\n\r\n") for each in rest)
    assert pod.requests_in_flight == 0


async def test_pod_that_does_not_read(upstream: Upstream) -> None:
    """A pod that does not read makes the sender wait: the body is not gathered in memory."""
    taken = 0
    go = asyncio.Event()

    async def serve(wire: Wire) -> None:
        await wire.head()
        await wire.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await go.wait()
        await wire.reader.readexactly(40 * MIB)
        await wire.say(answer())

    async def read() -> bytes:
        nonlocal taken
        await asyncio.sleep(0)
        taken += MIB
        return b"x" * MIB if taken <= 40 * MIB else b""

    async with serving(serve) as (_, pod):
        body = RequestBody(read, content_length=40 * MIB, buffered_bytes=10, max_bytes=64 * MIB)
        task = asyncio.create_task(ask(upstream, pod, body))
        before = -1
        while taken != before:  # until it takes no more
            before = taken
            await asyncio.sleep(0.1)
        assert 0 < taken <= 16 * MIB, "what sockets hold, and little more"
        go.set()
        assert (await task).data == b"out"


async def test_reader_that_does_not_read(upstream: Upstream) -> None:
    """A caller that does not read makes the pod wait: its answer is not gathered in memory."""
    sent = 0

    async def serve(wire: Wire) -> None:
        nonlocal sent
        await wire.request()
        await wire.say(CHUNKED)
        for _ in range(40):
            await wire.say(b"%x\r\n" % MIB + b"x" * MIB + b"\r\n")
            sent += MIB
        await wire.say(b"0\r\n\r\n")
        await wire.request()
        await wire.say(answer())

    async with serving(serve) as (server, pod):
        reply = await ask(upstream, pod)
        before = -1
        while sent != before:  # until it can send no more
            before = sent
            await asyncio.sleep(0.1)
        assert sent <= 16 * MIB
        assert len(await whole(reply)) == 40 * MIB
        reply.close()
        assert (await ask(upstream, pod)).data == b"out"
        assert server.connections == 1
        assert pod.requests_in_flight == 0


async def test_connection_whose_last_part_came_at_once(upstream: Upstream) -> None:
    """An answer that is too much for its reader and ends in the same moment leaves a connection that is read again."""

    async def serve(wire: Wire) -> None:
        for _ in range(3):
            await wire.request()
            await wire.say(
                CHUNKED + b"".join(b"%x\r\n%b\r\n" % (60_000, b"x" * 60_000) for _ in range(20)) + b"0\r\n\r\n"
            )

    async with serving(serve) as (server, pod):
        for _ in range(3):
            reply = await ask(upstream, pod)
            async with asyncio.timeout(10):
                assert len(await whole(reply)) == 1_200_000
            reply.close()
        assert server.connections == 1


async def test_closing_while_a_request_is_under_way(upstream: Upstream) -> None:
    """A client that is closed lets a request end, and then closes its connection too."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def serve(wire: Wire) -> None:
        await wire.request()
        asked.set()
        await go.wait()
        await wire.say(answer())

    async with serving(serve) as (server, pod):
        task = asyncio.create_task(ask(upstream, pod))
        await asked.wait()
        await upstream.aclose()
        go.set()
        assert (await task).data == b"out"
        await server.until_closed(1)


async def test_large_answer_that_nobody_wants(upstream: Upstream) -> None:
    """Letting go of an answer before its end closes the connection."""

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(CHUNKED + b"5\r\nabcde\r\n")

    async with serving(serve) as (server, pod):
        reply = await ask(upstream, pod)
        assert [chunk async for chunk in first(reply)] == [b"abcde"]
        assert pod.requests_in_flight == 1
        reply.close()
        await server.until_closed(1)
        assert pod.requests_in_flight == 0


async def first(reply: Reply) -> AsyncIterator[bytes]:
    async for chunk in reply.chunks():
        yield chunk
        return


async def test_answer_without_an_outcome_is_bounded(upstream: Upstream) -> None:
    """What is no sidecar's answer is read as far as a problem may reach, and no further."""

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(CHUNKED.replace(b"X-Marway-Outcome: answered\r\n", b""))
        while True:
            await wire.say(b"%x\r\n" % MIB + b"x" * MIB + b"\r\n")

    async with serving(serve) as (server, pod):
        reply = await ask(upstream, pod)
        assert reply.outcome is None
        assert reply.data is not None
        assert len(reply.data) == 64 * 1024
        await server.until_closed(1)


async def test_nothing_is_left(upstream: Upstream) -> None:
    """After many requests of every kind of end no task and no connection is left behind."""

    async def serve(wire: Wire) -> None:
        while True:
            _, body = await wire.request()
            await wire.say(answer(body) if body != b"bad" else b"nonsense\r\n\r\n")

    def connections() -> int:
        gc.collect()
        return sum(type(each) is HttpClientConnection for each in gc.get_objects())

    async with serving(serve) as (server, pod):
        before = connections()
        for _ in range(20):
            for body in (b"good", b"bad"):
                try:
                    await ask(upstream, pod, of(body))
                except PodLost:
                    continue
        await upstream.aclose()
        await server.until_closed(server.connections)
        assert connections() == before
        running = [task.get_coro() for task in asyncio.all_tasks() if not task.done()]
        assert not any("upstream" in str(coro) for coro in running)
