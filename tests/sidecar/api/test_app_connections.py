"""Connections to the sidecar: several requests on one, requests in pieces, idle ones, and clients that leave."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, Pod, serving
from support.registry import publish, until

pytestmark = pytest.mark.timeout(60)


async def connected(pod: Pod) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(pod.url)
    return await asyncio.open_connection(address.hostname, address.port)


def request(body: bytes, path: str = "some") -> bytes:
    return b"POST /predict/%b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Return the next answer: its status, headers and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:-2])
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


class Gate:
    """A model server that echoes when it may."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.server = FakeServer(predict_with=self.answer)

    async def answer(self, model: ServedModel, row: Row) -> Answer:
        await self.open.wait()
        return Answer(200, row.parts[0].value, "bytes")


async def test_requests_that_are_sent_at_once_are_answered_in_order(registry: Registry, tmp_path: Path) -> None:
    """Requests behind one another on a connection are answered one after the other, whatever they are."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        await pod.predict("some")
        reader, writer = await connected(pod)
        writer.write(request(b"one") + request(b"two", "none") + request(b"three") + request(b"four"))
        answers = [await answer_of(reader) for _ in range(4)]
        assert [status for status, _, _ in answers] == [200, 404, 200, 200]
        assert [answers[at][2] for at in (0, 2, 3)] == [b"one", b"three", b"four"]
        assert all("date" in headers for _, headers, _ in answers)
        writer.close()


async def test_a_request_in_pieces(registry: Registry, tmp_path: Path) -> None:
    """A request that comes byte by byte is answered as one that comes at once."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        await pod.predict("some")
        reader, writer = await connected(pod)
        for byte in request(b"hello"):
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        status, _, body = await answer_of(reader)
        assert (status, body) == (200, b"hello")
        writer.close()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is counted from the last answer: while a request is served, it does not run."""
    monkeypatch.setattr("marway_http.http1.server._KEEP_ALIVE_S", 0.2)
    publish(registry, tmp_path, "some", "1.0")
    gate = Gate()
    gate.open.set()
    async with serving(registry, tmp_path, server=gate.server) as pod:
        reader, writer = await connected(pod)
        writer.write(request(b"one"))
        await answer_of(reader)
        gate.open.clear()
        writer.write(request(b"two"))
        _, idle = await connected(pod)  # the other one's timer is due before this one's
        late, late_writer = await connected(pod)
        late_writer.write(request(b"x", "none"))
        await answer_of(late)
        assert await late.read() == b""
        assert not reader.at_eof()
        gate.open.set()
        assert (await answer_of(reader))[2] == b"two"
        assert await reader.read() == b""
        for each in (writer, idle, late_writer):
            each.close()


async def test_a_client_that_leaves_the_queue_is_forgotten(registry: Registry, tmp_path: Path) -> None:
    """A request that waits for a worker goes with its client; one that is in a worker ends there."""
    publish(registry, tmp_path, "some", "1.0", serving={"max_workers": 1, "max_batch_rows": 1})
    gate = Gate()
    async with serving(registry, tmp_path, server=gate.server) as pod:
        await pod.client.post("/models/some/PROD/load")
        _, first = await connected(pod)
        first.write(request(b"in the worker"))
        await until(lambda: len(gate.server.rows) == 1)
        _, second = await connected(pod)
        second.write(request(b"waits"))
        await until(lambda: pod.sidecar.pool.statuses()[0].requests_queued == 1)
        for writer in (second, first):
            writer.transport.abort()
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        (status,) = pod.sidecar.pool.statuses()
        assert (status.requests_queued, status.requests_in_flight) == (0, 1)
        gate.open.set()
        await until(lambda: pod.sidecar.pool.statuses()[0].requests_in_flight == 0)
        assert [row.parts[0].value for row in gate.server.rows] == [b"in the worker"]


async def test_what_fails_without_a_task_is_told_as_with_one(registry: Registry, tmp_path: Path) -> None:
    """Errors of the handler, of its headers and of the deadline are problems for known versions, too."""

    async def answer(model: ServedModel, row: Row) -> Answer:
        match row.parts[0].value:
            case b"error":
                return Answer(507, b"too much", "error")
            case b"status":
                return Answer(99, b"", "text")
            case b"slow":
                await asyncio.Event().wait()
            case b"empty":
                return Answer(204, b"dropped", "text", headers={"X-Own": "yes", "Server": "no"})
            case b"bad name":
                return Answer(200, b"dropped", "text", headers={"bad\r\nname": "no"})
        return Answer(200, b"fine", "text", headers={"x-request-id": "not yours"})

    publish(registry, tmp_path, "some", "1.0", serving={"max_batch_rows": 1, "max_workers": 2})
    async with serving(registry, tmp_path, server=FakeServer(predict_with=answer)) as pod:
        fine = await pod.predict("some", x_request_id="mine")
        assert (fine.content, fine.headers.get_list("x-request-id")) == (b"fine", ["mine"])

        async def told(body: bytes, **headers: str) -> tuple[int, str, str]:
            said: httpx.Response = await pod.predict("some", body, **headers)
            return said.status_code, said.json()["code"], said.headers["x-marway-outcome"]

        assert await told(b"error") == (507, "model_error", "model_error")
        assert await told(b"status") == (500, "model_error", "model_error")
        assert await told(b"bad name") == (500, "model_error", "model_error")
        assert await told(b"fine", x_request_timeout_ms="0") == (400, "invalid_request", "refused")
        assert await told(b"slow", x_request_timeout_ms="100") == (504, "deadline_exceeded", "failed")
        empty = await pod.predict("some", b"empty")
        assert (empty.status_code, empty.content, empty.headers["x-own"]) == (204, b"", "yes")
        assert "server" not in empty.headers
        assert "content-length" not in empty.headers
        assert (await pod.predict("some")).content == b"fine"  # on the same connection
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)


async def test_groups_of_callers_take_turns(registry: Registry, tmp_path: Path) -> None:
    """Requests wait in the line of their `X-Request-Group-Id`, else of the caller, by a gateway or by address."""
    publish(registry, tmp_path, "some", "1.0", serving={"max_workers": 1, "max_batch_rows": 1})
    gate = Gate()
    async with serving(registry, tmp_path, server=gate.server) as pod:
        await pod.client.post("/models/some/PROD/load")
        tasks = [asyncio.create_task(pod.predict("some", b"first"))]
        await until(lambda: len(gate.server.rows) == 1)
        for at, (body, group) in enumerate(((b"1", ""), (b"2", ""), (b"3", "job"), (b"4", "job"), (b"5", "ci"))):
            headers = {"x_request_group_id": group} if group == "job" else {"x_marway_client": group} if group else {}
            tasks.append(asyncio.create_task(pod.predict("some", body, **headers)))
            await until(lambda count=at + 1: pod.sidecar.pool.statuses()[0].requests_queued == count)
        gate.open.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.headers.get("x-request-group-id") for answer in answers] == [
            None,
            None,
            None,
            "job",
            "job",
            None,
        ]
        assert [row.parts[0].value for row in gate.server.rows] == [b"first", b"1", b"3", b"5", b"2", b"4"]
        assert all("x-marway-client" not in row.headers for row in gate.server.rows)
