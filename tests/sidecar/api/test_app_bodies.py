"""Large bodies: held up to a bound, waiting unread beyond it, and let go of in every case."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from marway.registry import Registry
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Part, Row, decode_answers, encode_rows
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, Pod, serving
from support.registry import publish, until

pytestmark = pytest.mark.timeout(60)
KIB = 1024
LARGE = 100 * KIB


class Worker:
    """A model server that answers when it may, and notes the most bytes that were held meanwhile."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.server = FakeServer(predict_with=self.answer)
        self.server.batches = False
        self.pod: Pod | None = None
        self.most_bytes = 0

    async def answer(self, model: ServedModel, row: Row) -> Answer:
        assert self.pod is not None
        self.most_bytes = max(self.most_bytes, self.pod.sidecar.bodies.held_bytes)
        await self.may_answer.wait()
        return Answer(200, str(len(row.parts[0].value)).encode(), "text")


@contextlib.asynccontextmanager
async def worker_of(
    registry: Registry, scratch: Path, *, budget_bytes: int, max_body_bytes: int = LARGE, **settings: object
) -> AsyncIterator[tuple[Worker, Pod]]:
    """Serve the version `some` with so much memory for bodies."""
    publish(registry, scratch, "some", "1.0", serving={"max_workers": 1})
    worker = Worker()
    bounds = {"body_memory_bytes": budget_bytes, "max_body_bytes": max_body_bytes, **settings}
    async with serving(registry, scratch, server=worker.server, **bounds) as pod:
        worker.pod = pod
        await pod.client.post("/models/some/PROD/load")
        yield worker, pod


def held(pod: Pod) -> tuple[int, int]:
    """Return the bytes that are held, and how many bodies wait to be read."""
    return pod.sidecar.bodies.held_bytes, pod.sidecar.bodies.waiting


async def begun(pod: Pod, size: int, sent: int, **headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the head of a request, and the first bytes of its body."""
    address = urlsplit(pod.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    writer.write(f"POST /predict/some HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n{more}\r\n".encode())
    writer.write(b"x" * sent)
    return reader, writer


async def test_bytes_are_bounded(registry: Registry, tmp_path: Path) -> None:
    """However many large bodies come, no more bytes are held than may be, and all are answered."""
    async with worker_of(registry, tmp_path, budget_bytes=3 * LARGE) as (worker, pod):
        tasks = [asyncio.create_task(pod.predict("some", b"x" * LARGE)) for _ in range(10)]
        await until(lambda: held(pod)[1] >= 7)
        assert LARGE <= await pod.metric("marway_sidecar_body_bytes") <= 3 * LARGE
        worker.may_answer.set()
        answers = await asyncio.gather(*tasks)
        assert {(answer.status_code, answer.content) for answer in answers} == {(200, str(LARGE).encode())}
        await until(lambda: held(pod) == (0, 0))
        assert LARGE <= worker.most_bytes <= 3 * LARGE


async def test_small_bodies_wait_for_no_memory(registry: Registry, tmp_path: Path) -> None:
    """A body that a connection holds anyway is taken while all memory for large ones is."""
    async with worker_of(registry, tmp_path, budget_bytes=LARGE) as (worker, pod):
        large = [asyncio.create_task(pod.predict("some", b"x" * LARGE)) for _ in range(2)]
        await until(lambda: held(pod) == (LARGE, 1))
        small = asyncio.create_task(pod.predict("some", b"x" * KIB))
        await until(lambda: pod.sidecar.draining.requests_in_flight == 3)
        assert held(pod) == (LARGE, 1)
        worker.may_answer.set()
        assert [answer.content for answer in await asyncio.gather(*large, small)] == [b"102400", b"102400", b"1024"]


async def test_what_waits_is_not_read(registry: Registry, tmp_path: Path) -> None:
    """A client whose body has no place yet is held up in its own kernel, and goes on when there is one."""
    size = 32 * 1024 * KIB  # more than the kernel takes for both ends
    async with worker_of(registry, tmp_path, budget_bytes=size, max_body_bytes=size) as (worker, pod):
        first = asyncio.create_task(pod.predict("some", b"x" * LARGE))
        await until(lambda: held(pod) == (LARGE, 0))
        reader, writer = await begun(pod, size, size)
        sending = asyncio.create_task(writer.drain())
        await until(lambda: held(pod) == (LARGE, 1))
        assert not sending.done()
        worker.may_answer.set()
        assert (await first).content == b"102400"
        await sending
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await until(lambda: held(pod) == (0, 0))
        assert worker.most_bytes == size


async def test_waiting_ends_at_the_deadline(registry: Registry, tmp_path: Path) -> None:
    """A body whose turn does not come in time is refused like any that is late, and takes no place."""
    async with worker_of(registry, tmp_path, budget_bytes=LARGE) as (worker, pod):
        first = asyncio.create_task(pod.predict("some", b"x" * LARGE))
        await until(lambda: held(pod) == (LARGE, 0))
        late = await pod.predict("some", b"x" * LARGE, x_request_timeout_ms="200")
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        assert held(pod) == (LARGE, 0)
        worker.may_answer.set()
        assert (await first).status_code == 200


async def test_a_client_that_leaves_while_it_waits(registry: Registry, tmp_path: Path) -> None:
    """It is noticed though nothing of it is read, and the next one's turn comes before it."""
    async with worker_of(registry, tmp_path, budget_bytes=LARGE) as (worker, pod):
        first = asyncio.create_task(pod.predict("some", b"x" * LARGE))
        await until(lambda: held(pod) == (LARGE, 0))
        _, writer = await begun(pod, LARGE, LARGE - 1)
        await until(lambda: held(pod) == (LARGE, 1))
        writer.transport.abort()
        await until(lambda: held(pod) == (LARGE, 0))
        await until(lambda: pod.sidecar.draining.requests_in_flight == 1)
        worker.may_answer.set()
        assert (await first).status_code == 200
        assert len(worker.server.rows) == 1


async def test_a_call_holds_its_body_until_it_ends(registry: Registry, tmp_path: Path) -> None:
    """A client that leaves lets go of its body only when the worker has, which has it still."""
    async with worker_of(registry, tmp_path, budget_bytes=LARGE) as (worker, pod):
        _, writer = await begun(pod, LARGE, LARGE)
        await until(lambda: len(worker.server.rows) == 1)
        writer.transport.abort()
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        assert held(pod) == (LARGE, 0)
        worker.may_answer.set()
        await until(lambda: held(pod) == (0, 0))


async def test_a_body_of_unknown_size(registry: Registry, tmp_path: Path) -> None:
    """What comes in chunks counts as what came of it."""
    async with worker_of(registry, tmp_path, budget_bytes=100 * LARGE, max_body_bytes=10 * LARGE) as (worker, pod):
        go_on = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"x" * LARGE
            await go_on.wait()
            yield b"x" * LARGE

        asked = asyncio.create_task(pod.client.post("/predict/some", content=chunks()))
        await until(lambda: held(pod) == (LARGE, 0))
        go_on.set()
        await until(lambda: held(pod) == (2 * LARGE, 0))
        worker.may_answer.set()
        assert (await asked).content == b"204800"
        assert held(pod) == (0, 0)


async def test_many_rows_are_held_as_one_body(registry: Registry, tmp_path: Path) -> None:
    """An envelope of rows takes its own size until its last row is answered."""
    async with worker_of(registry, tmp_path, budget_bytes=100 * LARGE, max_body_bytes=10 * LARGE) as (worker, pod):
        rows = [Row(str(number), [Part("data", b"x" * LARGE)]) for number in range(3)]
        body = encode_rows(rows)
        asked = asyncio.create_task(pod.predict("some", body, content_type=ROWS_CONTENT_TYPE))
        await until(lambda: held(pod) == (len(body), 0))
        worker.may_answer.set()
        answers = decode_answers((await asked).content)
        assert [answer.body for answer in answers] == [b"102400"] * 3
        await until(lambda: held(pod) == (0, 0))


@pytest.mark.parametrize("case", ["too large on the way", "cut off", "refused"])
async def test_nothing_stays_held(registry: Registry, tmp_path: Path, case: str) -> None:
    """A body that does not come whole, or is not taken, gives back what it had."""
    async with worker_of(registry, tmp_path, budget_bytes=10 * LARGE, max_body_bytes=4 * LARGE) as (_, pod):
        if case == "too large on the way":

            async def chunks() -> AsyncIterator[bytes]:
                for _ in range(5):
                    yield b"x" * LARGE

            assert (await pod.client.post("/predict/some", content=chunks())).status_code == 413
        elif case == "cut off":
            _, writer = await begun(pod, 3 * LARGE, LARGE)
            await until(lambda: held(pod) == (LARGE, 0))
            writer.transport.abort()
        else:
            refused = await pod.predict("some", b"x" * LARGE, content_type=ROWS_CONTENT_TYPE)
            assert refused.status_code == 400
        await until(lambda: held(pod) == (0, 0))
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)


async def test_fault_slow_clients_hold_nobody_up(registry: Registry, tmp_path: Path) -> None:
    """However many clients announce the largest body and send little of it, others' bodies are taken at once."""
    async with worker_of(registry, tmp_path, budget_bytes=40 * LARGE, max_body_bytes=10 * LARGE) as (worker, pod):
        worker.may_answer.set()
        slow = [await begun(pod, 10 * LARGE, LARGE) for _ in range(20)]
        await until(lambda: held(pod)[0] == 20 * LARGE)
        for _ in range(10):
            assert (await pod.predict("some", b"x" * LARGE)).status_code == 200
        assert held(pod) == (20 * LARGE, 0)
        for _, writer in slow:
            writer.transport.abort()
        await until(lambda: held(pod) == (0, 0))


async def test_fault_a_slow_client_makes_room_for_those_who_wait(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends nothing more is refused when its memory is wanted, to be sent again by who likes; others go on."""
    monkeypatch.setattr("marway_sidecar.memory.body_budget._LOOK_S", 0.05)
    async with worker_of(registry, tmp_path, budget_bytes=LARGE) as (worker, pod):
        worker.may_answer.set()
        reader, writer = await begun(pod, LARGE, LARGE - 1)
        await until(lambda: held(pod) == (LARGE - 1, 0))
        assert (await pod.predict("some", b"x" * LARGE)).status_code == 200
        said = await reader.read()  # to its end: the connection is closed
        assert said.startswith(b"HTTP/1.1 429 ")
        assert b"x-marway-outcome: not_accepted" in said
        writer.close()
        await until(lambda: held(pod) == (0, 0))


@pytest.mark.parametrize("length", [b"content-length: 100000", b"content-length: 1000", b"transfer-encoding: chunked"])
async def test_fault_slow_body(registry: Registry, tmp_path: Path, length: bytes) -> None:
    """A client that sends a body too slowly is told so and closed, as by a gateway, long before its deadline."""
    async with worker_of(registry, tmp_path, budget_bytes=20 * LARGE, body_timeout_s=0.5) as (_, pod):
        address = urlsplit(pod.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"POST /predict/some HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n" % length)
        saying = asyncio.create_task(reader.read())
        async with asyncio.timeout(20):
            while not saying.done():
                writer.write(b"1\r\nx\r\n")
                await asyncio.wait({saying}, timeout=0.05)
        head, _, body = saying.result().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in head
        assert b"x-marway-outcome: refused" in head
        assert json.loads(body)["code"] == "request_too_slow"
        writer.close()
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        assert held(pod) == (0, 0)


async def test_time_in_which_a_body_is_not_read_is_not_counted(registry: Registry, tmp_path: Path) -> None:
    """A body that waits for memory longer than its client may be silent is taken all the same."""
    async with worker_of(registry, tmp_path, budget_bytes=LARGE, body_timeout_s=0.5) as (worker, pod):
        first = asyncio.create_task(pod.predict("some", b"x" * LARGE))
        await until(lambda: held(pod) == (LARGE, 0))
        second = asyncio.create_task(pod.predict("some", b"x" * LARGE))
        await until(lambda: held(pod) == (LARGE, 1))
        await asyncio.wait({second}, timeout=1.5)
        assert held(pod) == (LARGE, 1)
        worker.may_answer.set()
        assert [(await each).status_code for each in (first, second)] == [200, 200]


async def test_a_coded_body_is_not_for_a_pod(registry: Registry, tmp_path: Path) -> None:
    """Gateways decode what clients send compressed; a pod refuses it, for its handlers would read it as it is."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        for _ in range(2):  # before it is loaded, and on the short way
            refused = await pod.predict("some", b"\x1f\x8b", content_encoding="gzip")
            assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media")
            assert (await pod.predict("some", b"plain", content_encoding="identity")).content == b"plain"
