"""Calls with large rows, which go to a real TorchServe over REST: the same answers and errors as over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from marway.deadline import Deadline
from marway.errors import BodyTooLarge, DeadlineExceeded, MarwayError
from marway.wire.envelope import Answer, Part, Row
from marway_sidecar.backends.base import NotLoaded, ServedModel, WorkerDied
from marway_sidecar.backends.torchserve import TorchServeAdapter, calls
from support.torchserve import OurTorchServe, archive, served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
MIB = 2**20
TELLING = """
import os, time, zlib

def handle(data, context):
    if data is None:
        return None
    answers = []
    for index, row in enumerate(data):
        value = row["data"]
        if value == "die":
            os._exit(3)
        if value == "raise":
            raise ValueError("no")
        if value == "wait":
            time.sleep(3)
        context.set_response_status(202, idx=index)
        context.set_response_header(index, "X-Id", context.get_request_id(index))
        said = zlib.crc32(value) if isinstance(value, bytearray) else value
        answers.append([type(value).__name__, len(value), said, context.get_request_header(index, "x-own")])
        if isinstance(value, bytearray):
            value[:] = b""  # it is the handler's own
    return answers
"""


def row(name: str, value: bytes, content_type: str = "application/octet-stream") -> Row:
    headers = {"content-type": content_type, "x-own": f"of {name}"}
    return Row(name, [Part("data", value, content_type)], headers)


def large(name: str = "large", size: int = MIB) -> Row:
    return row(name, bytes(number % 251 for number in range(1000)) * (size // 1000 + 1))


def soon() -> Deadline:
    return Deadline.after(60)


@pytest.fixture(scope="module")
def torchserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OurTorchServe]:
    with OurTorchServe(tmp_path_factory.mktemp("ours"), max_request_bytes=8 * MIB) as running:
        yield running


@pytest_asyncio.fixture
async def adapter(torchserve: OurTorchServe) -> AsyncIterator[TorchServeAdapter]:
    made = TorchServeAdapter(torchserve.info, runtime_dir=torchserve.runtime_dir)
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def model(torchserve: OurTorchServe, adapter: TorchServeAdapter) -> AsyncIterator[ServedModel]:
    made = served(archive(torchserve.store, "telling", TELLING), "telling")
    await adapter.load(made)
    yield made
    await adapter.unload(made)


async def either_way(
    adapter: TorchServeAdapter, model: ServedModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> list[list[Answer]]:
    """Return the answers over REST and those over gRPC."""
    answers = []
    for least in (1, 2**40):
        monkeypatch.setattr(calls, "_REST_FROM_BYTES", least)
        answers.append(await adapter.predict(model, rows, soon()))
    return answers


async def test_rows_mean_the_same_either_way(
    adapter: TorchServeAdapter, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, ids, headers, statuses and the answers to them do not depend on the way, for small and large rows."""
    rows = [
        row("empty", b""),
        large(),
        row("text", "ü".encode(), "text/plain"),
        row("json", b"[1]", "application/json"),
    ]
    for given in (rows, rows[:1], rows[1:2], [large("more", 5 * MIB)]):
        over_rest, over_grpc = await either_way(adapter, model, given, monkeypatch)
        assert over_rest == over_grpc
        assert [answer.status for answer in over_rest] == [202] * len(given)
        assert [answer.headers for answer in over_rest] == [{"X-Id": each.request_id} for each in given]


async def test_a_handler_that_raises_fails_its_rows(
    adapter: TorchServeAdapter, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a handler raised is the answer to each of its rows, either way."""
    rows = [large(), row("bad", b"raise", "text/plain")]
    over_rest, over_grpc = await either_way(adapter, model, rows, monkeypatch)
    assert over_rest == over_grpc
    assert [(answer.kind, answer.status, answer.body) for answer in over_rest] == [
        ("error", 500, b"ValueError: no")
    ] * 2


async def test_what_goes_wrong_as_a_whole(torchserve: OurTorchServe, adapter: TorchServeAdapter) -> None:
    """A worker that dies, a version that is not there, a body that is too large and a deadline have errors of ours."""
    model = served(archive(torchserve.store, "fragile", TELLING), "fragile")
    with pytest.raises(NotLoaded):
        await adapter.predict(model, [large()], soon())
    await adapter.load(model)
    cases: list[tuple[list[Row], type[MarwayError]]] = [
        ([large("huge", 9 * MIB)], BodyTooLarge),
        ([large(), row("bad", b"die", "text/plain")], WorkerDied),
    ]
    for rows, error in cases:
        with pytest.raises(error):
            await adapter.predict(model, rows, soon())
    with pytest.raises(DeadlineExceeded):
        await adapter.predict(model, [large(), row("slow", b"wait", "text/plain")], Deadline.after(0.2))
    (answer,) = await adapter.predict(model, [large()], soon())
    assert answer.status == 202
    await adapter.unload(model)


async def test_a_call_that_is_cancelled_harms_no_other(adapter: TorchServeAdapter, model: ServedModel) -> None:
    """Who gives a large call up leaves the connection to nobody, and the next call has its own answer."""
    given_up = asyncio.create_task(adapter.predict(model, [large(), row("slow", b"wait", "text/plain")], soon()))
    await asyncio.wait({given_up}, timeout=0.5)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    (answer,) = await adapter.predict(model, [large("next")], soon())
    assert answer.headers == {"X-Id": "next"}
