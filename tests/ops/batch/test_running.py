"""A run over a transport in place of a gateway: parts, shards, waiting, what is tried again and what is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway import errors
from marway.client import AsyncClient
from marway.objects import open_store
from marway.refs import parse_reference
from marway.wire.problems import CONTENT_TYPE, problem_of
from marway_ops.batch import BatchRun, Done, requests
from marway_ops.batch.job import Job
from marway_ops.batch.output import Output
from marway_ops.batch.pace import Pace
from marway_ops.batch.requests import Asker, Target
from marway_ops.batch.rows import Question
from marway_ops.batch.running import Shard
from marway_ops.batch.sources import find_sources

Behave = Callable[[int, int], httpx.Response]


def refused(error: errors.MarwayError) -> httpx.Response:
    problem, headers = problem_of(error)
    return httpx.Response(problem.status, content=problem.body(), headers={**headers, "content-type": CONTENT_TYPE})


def answered(n: int, by: str = "mv_1") -> httpx.Response:
    return httpx.Response(200, json={"n": n}, headers={"x-model-id": by, "x-prediction-id": f"P{n}"})


@asynccontextmanager
async def asking_of(gateway: Callable[[httpx.Request], Any]) -> AsyncIterator[AsyncClient]:
    """Give a client of what stands for a gateway."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(gateway)) as http:
        yield AsyncClient("http://gateway", timeout_s=5, retries=0, http_client=http)


class Batch:
    """A job of some rows whose gateway behaves as is said: by row, and how often it was asked before."""

    def __init__(self, path: Path, behave: Behave, *, rows: int = 10, give_up_s: float = 30) -> None:
        self.asked: list[int] = []
        lines = path / "in.jsonl"
        lines.write_text("".join(f"{n}\n" for n in range(1, rows + 1)))
        self._sources = find_sources([str(lines)])
        self.job = Job(
            reference="intent",
            model="intent",
            version="1.0",
            model_id="mv_1",
            inputs=tuple(each.input for each in self._sources),
            input_format="jsonl",
            output_format="jsonl",
            part_rows=3,
            part_bytes=1000,
        )
        self.path = path / "out"
        self.output = Output(open_store(str(self.path)))
        self.output.begin(self.job)
        self._behave, self._give_up_s = behave, give_up_s

    def run(self, *shard: int) -> Done:
        async def asked(request: httpx.Request) -> httpx.Response:
            n = int(request.content)
            self.asked.append(n)
            return self._behave(n, self.asked.count(n) - 1)

        async def run() -> Done:
            async with asking_of(asked) as client:
                asker = Asker(client, Pace(8), give_up_s=self._give_up_s)
                return await BatchRun(self.job, self._sources, self.output, asker, Shard(*shard or (0, 1))).run()

        return asyncio.run(run())

    def rows(self, pattern: str = "part-*") -> list[int]:
        return [
            json.loads(line)["row"]
            for path in sorted(self.path.glob(pattern))
            for line in path.read_text().splitlines()
        ]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_WAIT_S", 0.001)
    monkeypatch.setattr(requests, "_WAIT_MAX_S", 0.002)


def test_tries_again_what_may_pass(tmp_path: Path) -> None:
    """No room, a gateway that is not there or says nothing, and another version's answer are waited for; what was too
    slow is tried four times; the model's own refusal, in whose words ever, once.
    """

    def behave(n: int, before: int) -> httpx.Response:
        if before < 6 and n == 1:
            return refused(errors.Overloaded("64 requests wait", retry_after_s=1))
        if not before and n == 2:
            raise httpx.ConnectError("refused")
        if not before and n == 3:
            return answered(n, by="mv_small")
        if n == 4:
            return refused(errors.DeadlineExceeded("no answer within 5 s"))
        if n == 5:
            return refused(errors.ModelError("KeyError: 'text'", status=422))
        if before < 5 and n == 6:
            raise httpx.ReadTimeout("late")
        if n == 7:
            return httpx.Response(503, json={"error": "no such user"}, headers={"x-model-name": "intent"})
        return answered(n)

    batch = Batch(tmp_path, behave)
    done = batch.run()
    assert (done.rows, done.failed, done.fraction) == (7, 3, 1.0)
    assert [batch.asked.count(n) for n in range(1, 9)] == [7, 2, 2, 4, 1, 6, 1, 1]
    assert batch.rows() == [1, 2, 3, 6, 8, 9, 10]
    written = "".join(path.read_text() for path in sorted(batch.path.glob("_failed/*")))
    failed = [json.loads(line) for line in written.splitlines()]
    assert [(each["row"], each["code"], each["status"]) for each in failed] == [
        (4, "deadline_exceeded", 504),
        (5, "model_error", 422),
        (7, "model_error", 503),
    ]


def test_shards_and_going_on(tmp_path: Path) -> None:
    """Shards do each N-th part; a run behind them does what is left, and whoever does the last writes the manifest."""
    fatal = True

    def behave(n: int, before: int) -> httpx.Response:
        return refused(errors.Unauthenticated("no token")) if fatal and n == 10 else answered(n)

    batch = Batch(tmp_path, behave)
    assert batch.run(0, 2).manifest is None
    assert batch.rows() == [1, 2, 3, 7, 8, 9]
    with pytest.raises(errors.Unauthenticated):
        batch.run(1, 2)
    fatal = False
    done = batch.run()
    assert done.manifest is not None
    assert batch.rows() == list(range(1, 11))
    assert not {1, 2, 3, 7, 8, 9} & set(batch.asked[7:])


def test_gives_up(tmp_path: Path) -> None:
    """Where nothing is answered for too long it stops, and no row has failed of it."""
    batch = Batch(tmp_path, lambda n, before: refused(errors.NoPodAvailable("no pod is ready")), give_up_s=0.02)
    with pytest.raises(errors.Unavailable, match=r"nothing was answered for 0.02 s: no pod is ready; start the same"):
        batch.run()
    assert not batch.rows()
    assert not batch.rows("_failed/*")


async def test_time_before_the_first_refusal_does_not_count() -> None:
    """A run that reads for long past what is done does not give up at the first row that has to wait."""
    replies = iter([refused(errors.Overloaded("full")), answered(1)])
    async with asking_of(lambda request: next(replies)) as client:
        asker = Asker(client, Pace(1), give_up_s=0.02)
        await asyncio.sleep(0.03)
        assert isinstance(await asker.ask(Question("f", 1, b"1"), Target("intent", "1.0", "mv_1")), requests.Answer)


async def test_room_that_grew_is_taken() -> None:
    """Rows that wait take all the room that there is, and not only that of the row that ended."""
    pace, ended, running = Pace(10), asyncio.Event(), 0

    async def row() -> None:
        nonlocal running
        async with pace:
            running += 1
            await ended.wait()

    async with pace:
        rows = [asyncio.create_task(row()) for _ in range(8)]
        await asyncio.sleep(0.01)
        assert running == 3
        for _ in range(60):
            pace.answered()
    await asyncio.sleep(0.01)
    assert running == 8
    ended.set()
    await asyncio.gather(*rows)


async def test_pace() -> None:
    """The limit grows by one a round of answers, halves once for rows that are refused together, and is never 0."""
    pace = Pace(10)
    for _ in range(60):
        pace.answered()
    assert pace.limit == 10
    for _ in range(3):
        pace.no_room(0.0)
    assert pace.limit == 5


async def test_resolves() -> None:
    """A name means its version at PROD, and an id the version that has it."""

    def gateway(request: httpx.Request) -> httpx.Response:
        found = {"/models/mv_2": {"name": "intent", "versions": ["1.0", "1.1"]}}
        versions = {"1.0": "mv_1", "1.1": "mv_2", "PROD": "mv_1"}
        version = request.url.path.rpartition("/")[2]
        shown = {"name": "intent", "version": version, "id": versions.get(version), "backend": "torchserve"}
        shown |= {"created_at": "2026-01-01T00:00:00Z", "labels": []}
        return httpx.Response(200, json=found.get(request.url.path, shown))

    async with asking_of(gateway) as client:
        asker = Asker(client, Pace(1), give_up_s=5)
        assert (await asker.resolve(parse_reference("intent"))).id == "mv_1"
        assert await asker.resolve(parse_reference("mv_2")) == Target("intent", "1.1", "mv_2")
