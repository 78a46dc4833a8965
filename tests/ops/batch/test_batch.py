"""`marway batch` through a gateway: each row once, whatever label is moved and whoever has no room meanwhile.

tests/e2e/test_batch.py kills it, before a real pod.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.fakes import FakePod, running
from marway.errors import ModelError, Overloaded
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from marway.wire.problems import problem_of
from support.in_process import Marway, Said
from support.registry import publish as publish_into

MakePod = Callable[..., Awaitable[FakePod]]


@pytest.fixture
def released(registry: Registry, tmp_path: Path) -> Registry:
    """intent 1.0, which PROD is at, and 1.1."""
    publish_into(registry, tmp_path, "intent", "1.0")
    publish_into(registry, tmp_path, "intent", "1.1")
    registry.release("intent", "1.0", by="ci")
    return registry


async def label_of(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Say which version was asked about which row; every seventh row is refused by the model."""
    n = json.loads(await request.read())["n"]
    if n % 7 == 0:
        problem, headers = problem_of(ModelError("KeyError: 'text'", status=422))
        headers |= {OUTCOME: Outcome.MODEL_ERROR, "content-type": "application/problem+json"}
        return web.Response(body=problem.body(), status=problem.status, headers=headers)
    said = {"n": n, "by": request.path.rpartition("/")[2]}
    headers = {OUTCOME: Outcome.ANSWERED, "content-type": "application/json"}
    return web.Response(body=json.dumps(said).encode(), headers=headers)


def written(path: Path, rows: int) -> Path:
    path.write_text("".join(json.dumps({"n": n, "id": f"r{n}"}) + "\n" for n in range(1, rows + 1)))
    return path


def lines(paths: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(paths) for line in path.read_text().splitlines()]


async def run(marway: Marway, gateway: Any, tmp_path: Path, *options: str, code: int = 0) -> Said:
    where = ("--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out"))
    url = gateway.addresses.gateway
    said = await asyncio.to_thread(marway, "batch", "intent", *where, "--gateway", url, "--part-rows", "10", *options)
    assert said.code == code, said.err
    return said


@pytest.mark.extended  # starts a gateway; test_running.py has the same over a transport
async def test_each_row_is_answered_once(released: Registry, marway: Marway, make_pod: MakePod, tmp_path: Path) -> None:
    """Rows are answered at the lowest priority by one version, whose label may move meanwhile; those that fail are
    named with the reason; done again, nothing is asked; and another job is refused there.
    """
    written(tmp_path / "in.jsonl", 45)
    pod = await make_pod("a", behave=label_of)
    async with running(pod, registry=released) as gateway:
        said = await run(marway, gateway, tmp_path, "--shard", "1/2", "--keep", "id")
        assert "others are not done" in said.out
        released.release("intent", "1.1", by="ci")
        told = json.loads((await run(marway, gateway, tmp_path, "--keep", "id", "--json")).out)
        assert (told["finished"], told["version"], told["rows"], told["failed"]) == (True, "1.0", 39, 6)
        assert told["asked_now"] == 25, "the shard's parts were asked about again"
        sent = len(pod.requests)
        await run(marway, gateway, tmp_path, "--keep", "id")
        assert len(pod.requests) == sent
        said = await run(marway, gateway, tmp_path, "--keep", "n", code=1)
        assert "has the output of another job: its keep is ('id',), not ('n',)" in said.err
        written(tmp_path / "in.jsonl", 46)
        assert "in.jsonl has changed since" in (await run(marway, gateway, tmp_path, "--keep", "id", code=1)).err
    answers, failures = lines((tmp_path / "out").glob("part-*")), lines((tmp_path / "out/_failed").iterdir())
    assert [each["row"] for each in answers] == [n for n in range(1, 46) if n % 7]
    assert {each["prediction"]["by"] for each in answers} == {pod.requests[0].path.rpartition("/")[2]}
    assert all(each["id"] == f"r{each['row']}" and each["prediction_id"] for each in answers)
    assert [each["row"] for each in failures] == list(range(7, 46, 7))
    assert {(each["code"], each["status"], each["reason"]) for each in failures} == {
        ("model_error", 422, "KeyError: 'text'")
    }
    assert all(each["prediction_id"] and each["request_id"] for each in failures)
    assert {seen.headers["x-marway-priority"] for seen in pod.requests} == {"batch"}
    manifest = json.loads((tmp_path / "out/_manifest.json").read_text())
    assert [part["part"]["last_row"] for part in manifest["parts"]] == [10, 20, 30, 40, 45]


@pytest.mark.extended  # waits; test_running.py has the same over a transport
async def test_waits_for_room_and_gives_up(
    released: Registry, marway: Marway, make_pod: MakePod, tmp_path: Path
) -> None:
    """Where there is no room it waits, and no row fails of that; where nothing is answered for long it stops, and goes
    on later.
    """
    written(tmp_path / "in.jsonl", 6)
    refused = 0

    async def full(pod: FakePod, request: web.Request) -> web.StreamResponse:
        nonlocal refused
        if refused < most:
            refused += 1
            problem, headers = problem_of(Overloaded("64 requests wait", retry_after_s=1))
            headers |= {OUTCOME: Outcome.NOT_ACCEPTED, "content-type": "application/problem+json"}
            return web.Response(body=problem.body(), status=problem.status, headers=headers)
        return await label_of(pod, request)

    pod = await make_pod("a", behave=full)
    async with running(pod, registry=released, queue_timeout_s=0.1) as gateway:
        most = 10_000
        said = await run(marway, gateway, tmp_path, "--give-up", "1", code=1)
        assert "nothing was answered for 1 s" in said.err
        assert "goes on where it was" in said.err
        most = refused + 2
        told = json.loads((await run(marway, gateway, tmp_path, "--json")).out)
        assert (told["rows"], told["failed"]) == (6, 0)
