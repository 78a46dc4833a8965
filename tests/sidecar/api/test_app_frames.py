"""Predictions over frames at the sidecar's end: many at once, answered as they are ready, or declined unbegun."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from marway.errors import Unavailable
from marway.registry import Registry
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Part, Row, encode_rows
from marway_http.frames import PART_BYTES, UPGRADE, WINDOW_PARTS, Frame, FrameReader, Kind, frame_header
from marway_sidecar.api.framed import FramedConnection
from marway_sidecar.backends.base import ServedModel, WorkerDied
from support.pod import FakeServer, Pod, serving
from support.registry import publish, until

pytestmark = pytest.mark.timeout(60)

ASK = f"GET /frames HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: {UPGRADE}\r\n\r\n".encode()
Said = tuple[int, dict[str, str], bytes]


def request(
    number: int, body: bytes = b"hello", path: str = "/predict/some", *, headers: dict[str, str] | None = None
) -> bytes:
    """Return the frame of a request."""
    sent = {"host": "x", "content-length": str(len(body)), **(headers or {})}
    head = "".join((f"{path}\r\n", *(f"{name}: {value}\r\n" for name, value in sent.items()))).encode("latin-1")
    return frame_header(Kind.REQUEST, number, head=len(head), body=len(body)) + head + body


def cancel(number: int) -> bytes:
    return frame_header(Kind.CANCEL, number)


def more(number: int, parts: int) -> bytes:
    return frame_header(Kind.WINDOW_UPDATE, number, status=parts)


class Gateway:
    """One connection with frames, as a gateway has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self._frames = FrameReader()
        self._come: deque[Frame] = deque()

    @classmethod
    async def to(cls, pod: Pod, **options: Any) -> Self:
        address = urlsplit(pod.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, **options)
        writer.write(ASK)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return cls(reader, writer)

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def frame(self) -> Frame:
        """Return the next frame of the sidecar."""
        while not self._come:
            data = await self._reader.read(65536)
            if not data:
                raise EOFError
            self._come += self._frames.feed(data)
        return self._come.popleft()

    async def answer(self) -> tuple[int, Said]:
        """Return the next answer, which comes whole, and whose it is."""
        kind, number, status, head, body = await self.frame()
        assert kind == Kind.ANSWER
        lines = [line for line in head.decode("latin-1").split("\r\n") if line]
        return number, (status, dict(line.split(": ", 1) for line in lines), body)

    async def ended(self) -> bool:
        """Wait for the end; return whether nothing came before it."""
        try:
            await self.frame()
        except (EOFError, ConnectionResetError):
            return True
        return False

    def close(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def gateway_of(pod: Pod, **options: Any) -> AsyncIterator[Gateway]:
    gateway = await Gateway.to(pod, **options)
    try:
        async with asyncio.timeout(20):
            yield gateway
    finally:
        gateway.close()


class Held:
    """A model server that echoes, what begins with "hold" only when it may."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.server = FakeServer(predict_with=self.answer)

    async def answer(self, model: ServedModel, row: Row) -> Answer:
        value = row.parts[0].value
        if value.startswith(b"hold"):
            await self.go.wait()
        return Answer(200, value, "bytes")

    @property
    def values(self) -> list[bytes]:
        """What it was given."""
        return [bytes(row.parts[0].value) for row in self.server.rows]


@asynccontextmanager
async def loaded(
    registry: Registry, tmp_path: Path, server: FakeServer | None = None, *, serve: Any = None, **flags: Any
) -> AsyncIterator[tuple[Pod, Gateway]]:
    """A pod that has its model, and a gateway's connection to it."""
    publish(registry, tmp_path, "some", "1.0", serving=serve or {})
    flags = {"golden_warm_examples": 0, **flags}
    async with serving(registry, tmp_path, server=server, **flags) as pod:
        assert (await pod.predict("some", b"warm")).status_code == 200
        pod.server.rows.clear()
        async with gateway_of(pod) as gateway:
            yield pod, gateway


# -- changing to frames ------------------------------------------------------------------------------------------


async def said_to(pod: Pod, *data: bytes, answers: int = 1) -> list[bytes]:
    """Send something on a connection of its own; return the beginnings of the answers."""
    address = urlsplit(pod.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    heads = []
    for each in data:
        writer.write(each)
    for _ in range(answers):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = [line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
        if length:
            await reader.readexactly(int(length[0].partition(b": ")[2]))
        heads.append(head)
    writer.close()
    return heads


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (ASK, 101),
        (ASK.replace(b"marway-frames/1", b"Marway-Frames/1").replace(b": upgrade", b": keep-alive, Upgrade"), 101),
        (ASK.replace(b"marway-frames/1", b"marway-frames/2"), 404),
        (ASK.replace(b"marway-frames/1", b"websocket"), 404),
        (ASK.replace(b"marway-frames/1", b"h2c"), 404),
        (ASK.replace(b"connection: upgrade\r\n", b""), 404),
        (ASK.replace(b"upgrade: marway-frames/1\r\n", b""), 404),
        (ASK.replace(b"GET /frames", b"GET /frames/more"), 404),
        (ASK.replace(b"GET /frames", b"GET /"), 200),
        (ASK.replace(b"GET /frames", b"GET /healthz"), 200),
        (ASK.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\ncontent-length: 0\r\n\r\n"), 404),
        (ASK.replace(b"GET", b"PUT"), 404),
    ],
)
async def test_who_changes_to_frames(registry: Registry, tmp_path: Path, asked: bytes, status: int) -> None:
    """Only who asks for these frames, at their path, gets them; all else is a request like any other."""
    async with serving(registry, tmp_path) as pod:
        (head,) = await said_to(pod, asked)
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert (b"upgrade: marway-frames/1" in head) == (status == 101)


async def test_no_change_while_a_request_waits(registry: Registry, tmp_path: Path) -> None:
    """A connection changes to frames behind a request that was answered, never behind one that waits."""
    held = Held()
    held.go.set()
    ask = b"POST /predict/some HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nhold"
    async with loaded(registry, tmp_path, held.server) as (pod, _):
        address = urlsplit(pod.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(ask)
        assert (await reader.readuntil(b"\r\n\r\nhold")).startswith(b"HTTP/1.1 200 ")
        writer.write(ASK)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        gateway = Gateway(reader, writer)
        gateway.send(request(1))
        assert (await gateway.answer())[1][2] == b"hello"
        gateway.close()
        held.go.clear()
        asking = asyncio.create_task(said_to(pod, ask, ASK, answers=2))
        await until(lambda: held.values.count(b"hold") == 2)
        held.go.set()
        heads = await asking
        assert [head.split()[1] for head in heads] == [b"200", b"404"]


# -- answers -----------------------------------------------------------------------------------------------------


async def of_all_kinds(model: ServedModel, row: Row) -> Answer:
    """Answer, or fail, as the input says."""
    match bytes(row.parts[0].value):
        case b"error":
            return Answer(507, b"too much", "error")
        case b"status":
            return Answer(99, b"", "text")
        case b"slow":
            await asyncio.Event().wait()
        case b"died":
            raise WorkerDied("the worker died during the call")
        case b"full":
            raise Unavailable("no room")
        case b"bug":
            raise ZeroDivisionError
        case b"empty":
            return Answer(204, b"dropped", "text", headers={"X-Own": "yes", "Server": "no"})
        case b"bad name":
            return Answer(200, b"x", "text", headers={"bad\r\nname": "no"})
        case b"300 headers":
            return Answer(200, b"x", "text", headers={f"x-{number}": "1" for number in range(300)})
        case b"headers":
            return Answer(418, b"x", "text", "text/csv", {"x-request-id": "not yours", "Set-Cookie": "a=1"})
        case b"seen":
            return Answer(200, repr((row.request_id, sorted(row.headers.items()), row.parts)).encode(), "text")
    return Answer(200, b"fine", "json")


SAID = ("error", "status", "died", "full", "bug", "empty", "bad name", "300 headers", "headers", "fine")
ALIKE: dict[str, tuple[bytes, dict[str, str]]] = {
    **{each: (each.encode(), {}) for each in SAID},
    "late": (b"slow", {"x-request-timeout-ms": "100"}),
    "seen": (b"seen", {"content-type": "text/x; a=b", "x-request-group-id": "g", "cookie": "a=b", "accept": "x/y"}),
    "of a gateway": (b"seen", {"x-marway-client": "ci", "authorization": "Bearer x", "x-own": "\xe4 b"}),
    "explained": (b"seen", {"x-marway-explain": "1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}),
    "no trace": (b"seen", {"traceparent": "nonsense", "tracestate": "a=b"}),
}
VARYING = {"date", "server-timing", "x-marway-run"}


async def test_answers_alike(registry: Registry, tmp_path: Path) -> None:
    """Whatever is asked, a handler sees the same over frames as over HTTP, and status, headers and body are the same,
    errors with their outcome among them."""
    serve = {"max_batch_rows": 1, "max_workers": 8}  # those that are late keep theirs
    async with loaded(registry, tmp_path, FakeServer(predict_with=of_all_kinds), serve=serve) as (pod, gateway):
        for number, (name, (body, more_headers)) in enumerate(ALIKE.items()):
            headers = {"x-request-id": "mine", **more_headers}
            raw = {key: value.encode("latin-1") for key, value in headers.items()}
            others = dict.fromkeys(("user-agent", "accept-encoding", "connection", "accept"), "z") | headers
            raw |= {key: value.encode("latin-1") for key, value in others.items()} | {"host": b"x"}
            plain = await pod.client.post("/predict/some", content=body, headers=raw)
            gateway.send(request(number, body, headers=others))
            answered, (status, said, data) = await gateway.answer()
            assert (answered, status, data) == (number, plain.status_code, plain.content), name
            expected = {key: value for key, value in plain.headers.items() if key not in VARYING}
            assert {key: value for key, value in said.items() if key not in VARYING} == expected, name
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        statuses = {name: (await _outcome(pod, *asked)) for name, asked in ALIKE.items()}
        assert statuses["error"] == (507, "model_error")
        assert statuses["bad name"] == statuses["300 headers"] == (500, "model_error")
        assert statuses["died"][1] == "worker_died"
        assert statuses["late"] == (504, "failed")
        assert statuses["seen"] == (200, "answered")


async def _outcome(pod: Pod, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """Return what an answer over frames says, on a connection of its own."""
    async with gateway_of(pod) as gateway:
        gateway.send(request(1, body, headers=headers))
        _, (status, said, data) = await gateway.answer()
        assert (said["content-type"] == "application/problem+json") == (b'"code"' in data)
        return status, said["x-marway-outcome"]


async def test_answers_as_they_are_ready(registry: Registry, tmp_path: Path) -> None:
    """A request that takes long holds up none that came behind it."""
    held = Held()
    serve = {"max_batch_rows": 1, "max_workers": 4}
    async with loaded(registry, tmp_path, held.server, serve=serve) as (_, gateway):
        gateway.send(request(7, b"hold"), *(request(number, b"%d" % number) for number in range(6)))
        assert sorted([await gateway.answer() for _ in range(6)], key=lambda each: each[0])[5][1][2] == b"5"
        held.go.set()
        number, (status, _, body) = await gateway.answer()
        assert (number, status, body) == (7, 200, b"hold")


async def test_a_request_in_pieces(registry: Registry, tmp_path: Path) -> None:
    """A frame that comes byte by byte is a frame."""
    async with loaded(registry, tmp_path) as (_, gateway):
        for byte in request(1) + request(2):
            gateway.send(bytes((byte,)))
            await gateway.writer.drain()
            await asyncio.sleep(0)
        assert [(await gateway.answer())[0] for _ in range(2)] == [1, 2]


async def test_what_is_declined(registry: Registry, tmp_path: Path) -> None:
    """What is no prediction, and an answer in pieces, which no frame carries, is declined; nothing of it was begun."""
    publish(registry, tmp_path, "streams", "1.0", serving={"streaming": True})
    paths = ["/predict/streams", "/predict/some/1.0/more", "/predict", "/predict/", "/models/some/1.0/load", "", "x"]
    async with loaded(registry, tmp_path) as (pod, gateway):
        assert (await pod.predict("streams", b"a b")).status_code == 200
        pod.server.rows.clear()
        for path in paths:
            gateway.send(request(1, path=path))
            assert await gateway.frame() == (Kind.DECLINED, 1, 0, b"", b"")
        assert pod.server.rows == []
        assert pod.sidecar.draining.requests_in_flight == 0
        gateway.send(request(1))
        assert (await gateway.answer())[1][2] == b"hello"


ROWS = encode_rows([Row(str(number), [Part("data", b"x", "text/plain")]) for number in range(20)])
FORM = b"--b\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--b--\r\n"
EVERYTHING: dict[str, tuple[int, str, bytes, dict[str, str]]] = {
    "loaded first": (200, "/predict/idle", b"hello", {}),
    "form": (200, "/predict/some", b"a=b", {"content-type": "application/x-www-form-urlencoded"}),
    "parts": (200, "/predict/some", FORM, {"content-type": "multipart/form-data; boundary=b"}),
    "rows": (200, "/predict/some", ROWS, {"content-type": ROWS_CONTENT_TYPE}),
    "rows for one that streams": (200, "/predict/streams", ROWS, {"content-type": ROWS_CONTENT_TYPE}),
    "nothing on purpose": (200, "/predict/some", b"", {"x-marway-nothing": "1"}),
    "no rows": (400, "/predict/some", b"hello", {"content-type": ROWS_CONTENT_TYPE}),
    "no parts": (400, "/predict/some", b"--b\r\n\r\n--b--", {"content-type": "multipart/form-data; boundary=b"}),
    "no model": (404, "/predict/none", b"hello", {}),
    "no version": (404, "/predict/some/7.0", b"hello", {}),
    "no name": (400, "/predict/in valid", b"hello", {}),
    "no body": (400, "/predict/some", b"", {}),
    "too large": (413, "/predict/some", b"x" * 8001, {}),
    "compressed": (415, "/predict/some", b"x", {"content-encoding": "gzip"}),
    "no time": (400, "/predict/some", b"x", {"x-request-timeout-ms": "0"}),
    "no number": (400, "/predict/some", b"x", {"x-request-timeout-ms": "soon"}),
}


async def test_all_small_predictions_are_served(registry: Registry, tmp_path: Path) -> None:
    """Whatever is asked, and wherever it fails, the answer is the one that HTTP has; only one in pieces is declined."""
    publish(registry, tmp_path, "streams", "1.0", serving={"streaming": True})
    publish(registry, tmp_path, "idle", "1.0")
    server = FakeServer()
    async with loaded(registry, tmp_path, server, max_body_bytes=8000) as (pod, gateway):
        for name, (expected, path, body, more_headers) in EVERYTHING.items():
            headers = {"x-request-id": "mine", **more_headers}
            gateway.send(request(1, body, path, headers=headers))
            _, (status, said, data) = await gateway.answer()
            plain = await pod.client.post(path, content=body, headers=headers)
            assert (status, data, status) == (plain.status_code, plain.content, expected), name
            unlike = {*VARYING, "connection"}
            assert {key: value for key, value in said.items() if key not in unlike} == {
                key: value for key, value in plain.headers.items() if key not in unlike
            }, name
        assert len(server.loaded) == 3
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)


async def test_a_full_queue_refuses(registry: Registry, tmp_path: Path) -> None:
    """A request for which there is no room is told so, and when to come again; another pod may take it."""
    held = Held()
    serve = {"max_batch_rows": 1, "max_workers": 1}
    async with loaded(registry, tmp_path, held.server, serve=serve, queue_limit=2) as (pod, gateway):
        gateway.send(*(request(number, b"hold") for number in range(8)))
        number, first = await gateway.answer()
        refused = await pod.predict("some")
        assert (refused.status_code, refused.headers["x-marway-outcome"]) == (429, "not_accepted")
        held.go.set()
        answers = [first] + [(await gateway.answer())[1] for _ in range(7)]
        assert [status for status, *_ in answers].count(200) == number
        others = [headers for status, headers, _ in answers if status == 429]
        assert len(others) == 8 - number
        assert all(headers["x-marway-outcome"] == "not_accepted" and headers["retry-after"] for headers in others)


# -- large answers -----------------------------------------------------------------------------------------------


def bytes_of(size: int) -> bytes:
    return bytes(number % 251 for number in range(1000)) * (size // 1000) + b"z" * (size % 1000)


class Large(FakeServer):
    """Answers "large" with many parts."""

    def __init__(self, size: int) -> None:
        super().__init__(predict_with=self._answer)
        self.body = bytes_of(size)

    async def _answer(self, model: ServedModel, row: Row) -> Answer:
        value = bytes(row.parts[0].value)
        return Answer(200, self.body if value == b"large" else value, "bytes")


@pytest.mark.parametrize("size", [PART_BYTES, PART_BYTES + 1, 4 * PART_BYTES, 4 * PART_BYTES + 1, 20 * PART_BYTES - 1])
async def test_large_answers(registry: Registry, tmp_path: Path, size: int) -> None:
    """A large answer comes in parts, no more of them than the gateway wants, and others between them."""
    server = Large(size)
    async with loaded(registry, tmp_path, server) as (pod, gateway):
        gateway.send(request(1, b"large"))
        number, (status, headers, body) = await gateway.answer()
        assert (number, status, headers["content-length"], len(body)) == (1, 200, str(size), min(size, PART_BYTES))
        got, wanted = [body], WINDOW_PARTS - 1
        while sum(map(len, got)) < size:
            for _ in range(wanted):
                if sum(map(len, got)) == size:
                    break
                kind, number, _, head, body = await gateway.frame()
                assert (kind, number, head, 0 < len(body) <= PART_BYTES) == (Kind.PART, 1, b"", True)
                got.append(body)
            gateway.send(request(2, b"small"))
            assert (await gateway.answer())[0] == 2  # and no part more that was not asked for
            wanted = 1 if wanted != 1 else 2
            gateway.send(more(1, wanted))
        assert b"".join(got) == server.body
        gateway.send(request(1, b"again"))  # its id is free
        assert (await gateway.answer())[1][2] == b"again"
        assert pod.sidecar.draining.requests_in_flight == 0


async def test_a_large_answer_that_nobody_wants(registry: Registry, tmp_path: Path) -> None:
    """Of an answer that is given up no more comes, whatever is asked for; its id is free again."""
    async with loaded(registry, tmp_path, Large(20 * PART_BYTES)) as (_, gateway):
        gateway.send(request(1, b"large"))
        for _ in range(WINDOW_PARTS):
            assert (await gateway.frame())[1] == 1
        gateway.send(cancel(1), more(1, 5), cancel(1), more(9, 9), request(1, b"small"))
        assert (await gateway.answer())[1][2] == b"small"


# -- requests that are given up ----------------------------------------------------------------------------------


async def test_requests_that_are_given_up(registry: Registry, tmp_path: Path) -> None:
    """A request that waits for a worker goes when it is given up; one that is in a worker ends there, unheard."""
    held = Held()
    serve = {"max_workers": 1, "max_batch_rows": 1}
    async with loaded(registry, tmp_path, held.server, serve=serve) as (pod, gateway):
        gateway.send(request(1, b"hold"), request(2, b"waits"), request(3, b"stays"))
        await until(lambda: pod.sidecar.pool.statuses()[0].requests_queued == 2)
        gateway.send(cancel(2))
        await until(lambda: pod.sidecar.pool.statuses()[0].requests_queued == 1)
        gateway.send(cancel(1), cancel(77))
        await until(lambda: pod.sidecar.draining.requests_in_flight == 1)
        assert pod.sidecar.pool.statuses()[0].requests_in_flight == 1
        held.go.set()
        number, (_, _, body) = await gateway.answer()
        assert (number, body, held.values) == (3, b"stays", [b"hold", b"stays"])
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)


@pytest.mark.parametrize("how", ["closes", "aborts", "nonsense"])
async def test_a_gateway_that_leaves(registry: Registry, tmp_path: Path, how: str) -> None:
    """All that waits for a gateway goes with its connection; what another one asked stays."""
    held = Held()
    serve = {"max_workers": 1, "max_batch_rows": 1}
    async with loaded(registry, tmp_path, held.server, serve=serve) as (pod, gateway), gateway_of(pod) as other:
        gateway.send(request(1, b"hold"))
        await until(lambda: held.values)
        gateway.send(*(request(number, b"waits") for number in range(2, 8)))
        other.send(request(1, b"stays"))
        await until(lambda: pod.sidecar.pool.statuses()[0].requests_queued == 7)
        if how == "closes":
            gateway.writer.close()
        elif how == "aborts":
            gateway.close()
        else:
            gateway.send(b"\xff" * 16)
        await until(lambda: pod.sidecar.pool.statuses()[0].requests_queued == 1)
        held.go.set()
        assert (await other.answer())[1][2] == b"stays"
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        assert held.values == [b"hold", b"stays"]


async def test_what_waits_elsewhere_is_given_up(registry: Registry, tmp_path: Path) -> None:
    """Who is given up while the version is being loaded, or with many rows, waits no more, wherever that was."""
    held = Held()
    publish(registry, tmp_path, "idle", "1.0")
    serve = {"max_workers": 1, "max_batch_rows": 1}
    async with loaded(registry, tmp_path, held.server, serve=serve) as (pod, gateway):
        pod.server.may_load.clear()
        rows = encode_rows([Row(str(number), [Part("data", b"hold")]) for number in range(9)])
        gateway.send(request(1, path="/predict/idle"))
        gateway.send(request(2, rows, headers={"content-type": ROWS_CONTENT_TYPE}))
        await until(lambda: [each.requests_queued for each in pod.sidecar.pool.statuses()] == [1, 3])
        assert pod.sidecar.draining.requests_in_flight == 2
        gateway.send(cancel(1), cancel(2))
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        assert [each.requests_queued for each in pod.sidecar.pool.statuses()] == [0, 0]
        held.go.set()
        pod.server.may_load.set()
        await until(lambda: pod.sidecar.pool.in_flight == 0)
        assert held.values == [b"hold"]


# -- gateways that misbehave -------------------------------------------------------------------------------------


def headed(head: bytes) -> bytes:
    return frame_header(Kind.REQUEST, 5, head=len(head)) + head


BAD = {
    "http": b"POST /predict/some HTTP/1.1\r\nhost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 20,
    "kind": frame_header(9, 1),
    "answer": frame_header(Kind.ANSWER, 1),
    "part": frame_header(Kind.PART, 1),
    "declined": frame_header(Kind.DECLINED, 1),
    "large-body": frame_header(Kind.REQUEST, 1, body=PART_BYTES + 1),
    "large-head": frame_header(Kind.REQUEST, 1, head=65537),
    "id-in-use": request(77, b"waits"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_request(registry: Registry, tmp_path: Path, name: str) -> None:
    """What is no frame or no request closes the connection that it came over, and no other."""
    held = Held()
    async with loaded(registry, tmp_path, held.server) as (pod, gateway), gateway_of(pod) as other:
        gateway.send(request(77, b"hold"))
        await until(lambda: held.values)
        gateway.send(BAD[name])
        assert await gateway.ended()
        held.go.set()
        other.send(request(1))
        assert (await other.answer())[1][2] == b"hello"
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)


FAULTY = {
    "no-head": headed(b""),
    "no-end": headed(b"/predict/some\r\nhost: x"),
    "no-line": headed(b"/predict/some"),
    "no-colon": headed(b"/predict/some\r\nhost\r\n"),
    "empty-line": headed(b"/predict/some\r\n\r\nhost: x\r\n"),
    "many-headers": headed(b"/predict/some\r\n" + b"".join(b"h%d: x\r\n" % number for number in range(101))),
}
"""Frames that are frames, with a head that no request can have."""


@pytest.mark.parametrize("name", FAULTY)
async def test_a_request_that_is_none_costs_no_other(registry: Registry, tmp_path: Path, name: str) -> None:
    """What is wrong with the head of one request is said over HTTP; others on the connection are answered."""
    held = Held()
    async with loaded(registry, tmp_path, held.server) as (pod, gateway):
        gateway.send(request(77, b"hold"))
        await until(lambda: held.values)
        gateway.send(FAULTY[name], request(6))
        assert await gateway.frame() == (Kind.DECLINED, 5, 0, b"", b"")
        assert (await gateway.answer())[0] == 6
        held.go.set()
        assert (await gateway.answer())[0] == 77
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)


async def test_as_many_headers_as_over_http(registry: Registry, tmp_path: Path) -> None:
    """A hundred headers are taken."""
    async with loaded(registry, tmp_path) as (pod, gateway):
        gateway.send(request(1, headers={f"h{number}": "x" for number in range(98)}))
        assert (await gateway.answer())[1][0] == 200
        assert len([name for name in pod.server.rows[0].headers if name.startswith("h")]) == 98 + 1


async def test_a_gateway_that_does_not_read(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a gateway that reads no answers no more requests are taken, so that it costs little memory; all are answered
    once it reads."""
    held_back: list[int] = []
    pause = FramedConnection.pause_writing

    def counted(self: FramedConnection) -> None:
        held_back.append(self._transport.get_write_buffer_size())
        pause(self)

    monkeypatch.setattr(FramedConnection, "pause_writing", counted)
    count, size = 800, 60_000
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        await pod.predict("some", b"warm")
        pod.server.rows.clear()
        async with gateway_of(pod, limit=1024) as gateway:
            gateway.send(*(request(number, b"%3d" % number + b"x" * size) for number in range(count)))
            await until(lambda: held_back)

            async def settled() -> int:
                """Return how many requests were taken, once no more are."""
                while True:
                    before = len(pod.server.rows)
                    for _ in range(20):  # other connections are served, this one would be, too
                        assert (await pod.predict("some")).status_code == 200
                    if len(pod.server.rows) == before + 20:
                        return before

            taken = await settled()
            assert taken < count / 2
            assert max(held_back) < 10 * size + PART_BYTES
            answers = [await gateway.answer() for _ in range(count)]
            # In any order: the autoscaler may have given the waiting requests a second worker.
            assert sorted(number for number, _ in answers) == list(range(count))
            assert all(body == b"%3d" % number + b"x" * size for number, (_, _, body) in answers)
            gateway.send(request(1))
            assert (await gateway.answer())[1][2] == b"hello"


# -- the end of connections --------------------------------------------------------------------------------------


async def test_idle_connections_are_closed(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection over which nothing comes for a while is closed, but never one with a request on it."""
    monkeypatch.setattr("marway_sidecar.api.framed._IDLE_S", 0.1)
    looked = 0
    look = FramedConnection._close_if_idle

    def counted(self: FramedConnection) -> None:
        nonlocal looked
        looked += 1
        look(self)

    monkeypatch.setattr(FramedConnection, "_close_if_idle", counted)
    held = Held()
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=held.server) as pod:
        await pod.predict("some", b"warm")
        async with gateway_of(pod) as gateway:
            gateway.send(request(1, b"hold"))
            await until(lambda: b"hold" in held.values)
            before = looked
            await until(lambda: looked >= before + 3)
            held.go.set()
            assert (await gateway.answer())[1][2] == b"hold"
            assert await gateway.ended()


async def test_a_drain(registry: Registry, tmp_path: Path) -> None:
    """On a stop what was begun is answered, new requests are refused, connections are closed and the process ends."""
    held = Held()
    async with loaded(registry, tmp_path, held.server, serve={"max_workers": 1, "max_batch_rows": 1}) as (pod, gateway):
        gateway.send(request(1, b"hold"), request(2, b"waits"))
        await until(lambda: pod.sidecar.draining.requests_in_flight == 2)
        async with gateway_of(pod) as idle:
            pod.stop.set()
            await until(lambda: pod.sidecar.draining.refusing)
            gateway.send(request(3))
            number, (status, headers, _) = await gateway.answer()
            assert (number, status, headers["x-marway-outcome"]) == (3, 503, "not_accepted")
            idle.send(request(1))
            assert (await idle.answer())[1][1]["x-marway-outcome"] == "not_accepted"
            held.go.set()
            answers = [await gateway.answer() for _ in range(2)]
            assert [(number, said[2]) for number, said in answers] == [(1, b"hold"), (2, b"waits")]
            assert await gateway.ended()
            assert await idle.ended()
        await asyncio.wait_for(pod.task, 20)


async def test_a_lame_duck_takes_requests(registry: Registry, tmp_path: Path) -> None:
    """Before anybody can have heard of the stop, requests are begun over frames as over HTTP."""
    async with loaded(registry, tmp_path, lame_duck_s=3) as (pod, gateway):
        pod.stop.set()
        await until(lambda: pod.sidecar.draining.stopping)
        gateway.send(request(1))
        assert (await gateway.answer())[1][2] == b"hello"
        await until(lambda: pod.sidecar.draining.refusing)
        gateway.send(request(2))
        assert (await gateway.answer())[1][1]["x-marway-outcome"] == "not_accepted"
        assert await gateway.ended()


@pytest.mark.parametrize("given_up", [False, True])
async def test_what_never_ends_is_cut_off(registry: Registry, tmp_path: Path, given_up: bool) -> None:
    """A request that outlasts the drain is told so, and the process ends; one that was given up holds nothing up."""
    held = Held()
    async with loaded(registry, tmp_path, held.server, drain_timeout_s=0.3 if not given_up else 20) as (pod, gateway):
        gateway.send(request(1, b"hold"))
        await until(lambda: held.values)
        pod.stop.set()
        await until(lambda: pod.sidecar.draining.refusing)
        if given_up:
            gateway.send(cancel(1))
        else:
            number, (status, headers, body) = await gateway.answer()
            assert (number, status, headers["x-marway-outcome"]) == (1, 503, "runtime_down")
            assert b'"draining"' in body
        assert await gateway.ended()
        await asyncio.wait_for(pod.task, 20)


@pytest.mark.parametrize("where", ["a load", "many rows"])
async def test_who_waits_when_time_is_over_is_told(registry: Registry, tmp_path: Path, where: str) -> None:
    """At the end of a drain every request is refused, wherever it waits; one that no worker has may go elsewhere."""
    held = Held()
    publish(registry, tmp_path, "idle", "1.0")
    async with loaded(registry, tmp_path, held.server, drain_timeout_s=0.3, lame_duck_s=0.3) as (pod, gateway):
        pod.server.may_load.clear()
        if where == "a load":
            gateway.send(request(1, path="/predict/idle"))
        else:
            rows = encode_rows([Row("", [Part("data", b"hold")])])
            gateway.send(request(1, rows, headers={"content-type": ROWS_CONTENT_TYPE}))
        await until(lambda: pod.sidecar.draining.requests_in_flight == 1)
        pod.stop.set()
        number, (status, headers, body) = await gateway.answer()
        outcome = "not_accepted" if where == "a load" else "runtime_down"
        assert (number, status, headers["x-marway-outcome"]) == (1, 503, outcome)
        assert b'"draining"' in body
        assert await gateway.ended()
        pod.server.may_load.set()
        await asyncio.wait_for(pod.task, 20)
