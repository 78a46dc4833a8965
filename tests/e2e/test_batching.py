"""Batches over real TorchServe: what waits goes as one call, and every row keeps what is its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway_archiver import publish
from support.up import Up, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HANDLER = Path(__file__).parent / "models" / "batched.py"
LONG_S = 60


@pytest.fixture(scope="module")
def url(up: Up) -> str:
    """The predict route, on one pod, of a version with one worker whose golden examples prove its batches."""
    record = publish(
        model_name="batched",
        version="1.0",
        handler=str(HANDLER),
        registry=up.registry,
        record={"serving": {"max_workers": 1}},
        examples=[{"say": "a"}, {"say": "b"}],
        label="PROD",
    )
    assert record.serving.max_batch_rows > 1
    return f"{up.ready['pods'][0]['url']}/predict/batched"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def ask(url: str, row: dict[str, Any], **headers: str) -> httpx.Response:
    sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.post(url, content=json.dumps(row).encode(), headers=sent, timeout=LONG_S, trust_env=False)


def together(
    threads: ThreadPoolExecutor, url: str, path: Path, rows: list[dict[str, Any]], **headers: str
) -> list[httpx.Response]:
    """Send rows one after the other while the worker is busy, then let it go; return their answers."""
    holding = threads.submit(ask, url, {"hold": str(path)})
    wait_until(path.with_name(f"{path.name}.reached").exists, timeout_s=LONG_S, what="the worker is busy")
    asked: list[Future[httpx.Response]] = []
    for number, row in enumerate(rows):
        mine = {name: f"{value}{number}" for name, value in headers.items()}
        asked.append(threads.submit(ask, url, row, **mine))
        wait_until(lambda: queued(url) == len(asked), timeout_s=LONG_S, what="the request waits")
    path.touch()
    answers = [each.result(LONG_S) for each in asked]
    assert holding.result(LONG_S).text == "held"
    return answers


def queued(url: str) -> int:
    status = httpx.get(url.replace("/predict/batched", "/models/batched/1.0"), timeout=LONG_S, trust_env=False)
    return int(status.json()["requests_queued"])


def test_every_row_keeps_its_own(url: str, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    """Rows of one call have their own ids and headers in, and their own status, headers and content type out."""
    rows = [{"say": "one"}, {"say": "two", "status": 418}, {"say": "three", "status": 202}]
    answers = together(threads, url, tmp_path / "go", rows, x_request_id="id-", x_of_mine="mine-")
    assert [answer.text for answer in answers] == ["said one", "said two", "said three"]
    assert [answer.status_code for answer in answers] == [200, 418, 202]
    assert [answer.headers["x-rows"] for answer in answers] == ["3", "3", "3"]
    assert [answer.headers["x-saw-id"] for answer in answers] == ["id-0", "id-1", "id-2"]
    assert [answer.headers["x-request-id"] for answer in answers] == ["id-0", "id-1", "id-2"]
    assert [answer.headers["x-saw-header"] for answer in answers] == ["mine-0", "mine-1", "mine-2"]
    assert [answer.headers["content-type"] for answer in answers][1:] == ["text/csv", "text/csv"]


def test_one_alone_waits_for_nobody(url: str) -> None:
    """A request that meets a free worker goes at once, alone."""
    assert ask(url, {"say": "hello"}).headers["x-rows"] == "1"


@pytest.mark.parametrize(("bad", "status"), [("raise", 500), ("die", 503)])
def test_one_bad_row_fails_alone(url: str, threads: ThreadPoolExecutor, tmp_path: Path, bad: str, status: int) -> None:
    """A row that makes the handler fail, or kills its worker, leaves its neighbours their answers."""
    rows: list[dict[str, Any]] = [{"say": "one"}, {bad: True}, {"say": "three"}]
    answers = together(threads, url, tmp_path / "go", rows)
    assert [answer.status_code for answer in answers] == [200, status, 200], [answer.text for answer in answers]
    assert [answers[0].text, answers[2].text] == ["said one", "said three"]
    assert answers[0].headers["x-rows"] == answers[2].headers["x-rows"] == "1"
