"""The adapter on a real TorchServe that our runtime started: loads, scales, streams, and limits."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from marway.deadline import Deadline
from marway.errors import LoadFailed, RuntimeDown
from marway.wire.envelope import Part, Row
from marway_sidecar.backends.base import ServedModel, WorkerDied
from marway_sidecar.backends.torchserve import TorchServeAdapter
from support.torchserve import OurTorchServe, archive, served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

STREAMING = """
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response

def wait_for(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)

def handle(data, context):
    if data is None:
        return None
    asked = data[0]["data"]
    if asked.get("status"):
        context.set_response_status(asked["status"], idx=0)
        context.set_response_header(0, "X-Pieces", "two")
        context.set_response_content_type(0, "text/event-stream")
    if asked["how"] == "none":
        return ["whole"]
    send_intermediate_predict_response(["first"], context.request_ids, "ok", 200, context)
    if "gate" in asked:
        wait_for(asked["gate"])
    if asked["how"] == "raise":
        raise ValueError("after the first piece")
    if asked["how"] == "many":
        for number in range(50):
            send_intermediate_predict_response([{"n": number}], context.request_ids, "ok", 200, context)
    return ["last"]
"""
SIZES = """
def handle(data, context):
    if data is None:
        return None
    return ["x" * row["data"]["bytes"] for row in data]
"""
FRAGILE = """
import os

class Fragile:
    def initialize(self, context):
        if os.path.exists({flag!r}):
            raise RuntimeError("the flag says no")

    def handle(self, data, context):
        if data[0]["data"] == "die":
            os._exit(3)
        return [os.getpid() for _ in data]
"""


def json_row(text: str) -> Row:
    return Row("asked", [Part("data", text.encode(), "application/json")], {"content-type": "application/json"})


def soon() -> Deadline:
    return Deadline.after(60)


@pytest.fixture(scope="module")
def torchserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OurTorchServe]:
    """One TorchServe for all of them; its messages end at 2 MiB."""
    with OurTorchServe(tmp_path_factory.mktemp("ours"), max_request_bytes=2 * 1024 * 1024) as running:
        yield running


@pytest_asyncio.fixture
async def adapter(torchserve: OurTorchServe) -> AsyncIterator[TorchServeAdapter]:
    made = TorchServeAdapter(torchserve.info, runtime_dir=torchserve.runtime_dir)
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def streaming(torchserve: OurTorchServe, adapter: TorchServeAdapter) -> AsyncIterator[ServedModel]:
    model = served(archive(torchserve.store, "pieces", STREAMING), "pieces", streaming=True)
    await adapter.load(model)
    yield model
    await adapter.unload(model)


async def test_the_first_piece_comes_before_the_last_is_computed(
    adapter: TorchServeAdapter, streaming: ServedModel, tmp_path: Path
) -> None:
    """A piece reaches the caller while the handler still waits for what the caller does then."""
    gate = tmp_path / "gate"
    row = json_row(f'{{"how": "two", "status": 202, "gate": "{gate}"}}')
    async with aclosing(adapter.predict_stream(streaming, row, soon())) as stream:
        first = await anext(stream)
        assert (first.body, first.kind, first.status) == (b"first", "text", 202)
        assert first.content_type == "text/event-stream"
        assert first.headers == {"X-Pieces": "two"}
        gate.touch()
        assert [piece.body async for piece in stream] == [b"last"]


async def test_pieces_come_in_order(adapter: TorchServeAdapter, streaming: ServedModel) -> None:
    """Every piece of a long answer comes, in the order in which it was sent, encoded as a whole answer would be."""
    stream = adapter.predict_stream(streaming, json_row('{"how": "many"}'), soon())
    bodies = [piece.body async for piece in stream]
    assert bodies == [b"first", *(b'{\n  "n": %d\n}' % number for number in range(50)), b"last"]


async def test_a_failure_after_some_pieces_ends_them_with_an_error(
    adapter: TorchServeAdapter, streaming: ServedModel
) -> None:
    """The pieces that were sent come, then one of kind error, and the worker goes on."""
    before = (await adapter.predict(streaming, [json_row('{"how": "two"}')], soon()))[0]
    pieces = [piece async for piece in adapter.predict_stream(streaming, json_row('{"how": "raise"}'), soon())]
    assert [(piece.kind, piece.body) for piece in pieces] == [
        ("text", b"first"),
        ("error", b"ValueError: after the first piece"),
    ]
    after = (await adapter.predict(streaming, [json_row('{"how": "two"}')], soon()))[0]
    assert before.body == after.body == b"firstlast"


async def test_a_handler_that_sends_no_pieces_streams_its_answer_as_one(
    adapter: TorchServeAdapter, streaming: ServedModel
) -> None:
    """A stream of one answer is one piece, and restarts no worker, as TorchServe's own would."""
    entry = await adapter._management.describe(streaming.server_name)
    assert entry is not None
    for _ in range(2):
        pieces = [piece async for piece in adapter.predict_stream(streaming, json_row('{"how": "none"}'), soon())]
        assert [piece.body for piece in pieces] == [b"whole"]
    again = await adapter._management.describe(streaming.server_name)
    assert again is not None
    assert [worker["pid"] for worker in again["workers"]] == [worker["pid"] for worker in entry["workers"]]


async def test_a_client_that_leaves_a_stream_harms_nobody(
    adapter: TorchServeAdapter, streaming: ServedModel, tmp_path: Path
) -> None:
    """After a stream was left in its middle, the worker finishes its pieces and answers the next call."""
    gate = tmp_path / "gate"
    row = json_row(f'{{"how": "many", "gate": "{gate}"}}')
    async with aclosing(adapter.predict_stream(streaming, row, soon())) as stream:
        assert (await anext(stream)).body == b"first"
    gate.touch()
    (answer,) = await adapter.predict(streaming, [json_row('{"how": "two"}')], soon())
    assert answer.body == b"firstlast"


async def test_pieces_without_a_declaration_are_the_models_error(
    torchserve: OurTorchServe, adapter: TorchServeAdapter
) -> None:
    """A handler that sends pieces for a version that is not declared streaming fails with what to do about it."""
    model = served(archive(torchserve.store, "undeclared", STREAMING), "undeclared")
    await adapter.load(model)
    (answer,) = await adapter.predict(model, [json_row('{"how": "two"}')], soon())
    assert answer.kind == "error"
    assert b"not declared streaming" in answer.body
    (answer,) = await adapter.predict(model, [json_row('{"how": "none"}')], soon())
    assert answer.body == b"whole"
    await adapter.unload(model)


async def test_an_answer_that_is_too_large_is_an_error_and_the_worker_lives(
    torchserve: OurTorchServe, adapter: TorchServeAdapter
) -> None:
    """Of rows in one call only those whose answers do not fit fail, and the same worker answers on."""
    model = served(archive(torchserve.store, "sizes", SIZES), "sizes")
    await adapter.load(model)
    entry = await adapter._management.describe(model.server_name)
    rows = [json_row(f'{{"bytes": {size}}}') for size in (10, 3 * 1024 * 1024, 20)]
    answers = await adapter.predict(model, rows, soon())
    assert [(answer.kind, answer.status) for answer in answers] == [("text", 200), ("error", 507), ("text", 200)]
    assert b"3145728 bytes is too large" in answers[1].body
    (largest,) = await adapter.predict(model, [json_row(f'{{"bytes": {2 * 1024 * 1024 - 8192}}}')], soon())
    assert (largest.status, len(largest.body)) == (200, 2 * 1024 * 1024 - 8192)
    assert entry == await adapter._management.describe(model.server_name)
    await adapter.unload(model)


async def test_scaled_to_none_and_back(torchserve: OurTorchServe, adapter: TorchServeAdapter) -> None:
    """A version scaled to zero stays registered without workers, and has as many as asked for afterwards."""
    model = served(archive(torchserve.store, "scaled", SIZES), "scaled")
    assert (await adapter.load(model)).workers == 1
    for workers in (0, 2, 1):
        found = await adapter.scale(model, workers)
        assert (found.workers, found.ready_workers) == (workers, workers)
    assert model.server_name in (await adapter.status()).server_names
    await adapter.unload(model)
    await adapter.unload(model)
    assert await adapter.describe(model) is None
    assert model.server_name not in (await adapter.status()).server_names


async def test_many_loads_of_one_version_register_it_once(
    torchserve: OurTorchServe, adapter: TorchServeAdapter
) -> None:
    """Concurrent loads make one registration, which leaves one unpacked archive."""
    unpacked = torchserve.runtime_dir / "tmp" / "t" / "models"
    before = {path.name for path in unpacked.iterdir()} if unpacked.exists() else set()
    model = served(archive(torchserve.store, "once", SIZES), "once")
    found = await asyncio.gather(*(adapter.load(model) for _ in range(10)))
    assert {description.ready_workers for description in found} == {1}
    assert len({path.name for path in unpacked.iterdir()} - before) == 1
    await adapter.unload(model)


async def test_a_failed_load_leaves_nothing_and_says_why(
    torchserve: OurTorchServe, adapter: TorchServeAdapter, tmp_path: Path
) -> None:
    """A handler that does not initialise and a manifest of another version fail with the reason, and nothing stays."""
    flag = tmp_path / "flag"
    flag.touch()
    broken = served(archive(torchserve.store, "broken", FRAGILE.format(flag=str(flag))), "broken", load_timeout_s=20)
    with pytest.raises(LoadFailed, match="the flag says no"):
        await adapter.load(broken)
    assert await adapter.describe(broken) is None
    other = served(archive(torchserve.store, "other", SIZES, version="2.0"), "other", version="1.0")
    with pytest.raises(LoadFailed, match="another version"):
        await adapter.load(other)
    names = (await adapter.status()).server_names
    assert not {broken.server_name, other.server_name} & names


async def test_fault_archive_lies_about_workers(torchserve: OurTorchServe, adapter: TorchServeAdapter) -> None:
    """An archive that asks for more workers than its version may have is refused before one of them starts; one that
    asks for other than it is given, and not too many, gets what it is given."""
    config = "minWorkers: 3\nmaxWorkers: 3\n"
    liar = served(archive(torchserve.store, "liar", SIZES, config=config), "liar", max_workers=2)
    with pytest.raises(LoadFailed, match=r"start 3 workers \(minWorkers .* allow 2"):
        await adapter.load(liar)
    assert liar.server_name not in (await adapter.status()).server_names
    config = "minWorkers: 2\nmaxWorkers: 2\n"
    eager = served(archive(torchserve.store, "eager", SIZES, config=config), "eager", max_workers=2)
    assert (await adapter.load(eager)).workers == 1
    await adapter.unload(eager)


async def test_workers_that_torchserve_gave_up_on_are_replaced(
    torchserve: OurTorchServe, adapter: TorchServeAdapter, tmp_path: Path
) -> None:
    """Dead workers still count when no more retries are made; scaling starts new ones in their place."""
    flag = tmp_path / "flag"
    source = FRAGILE.format(flag=str(flag))
    path = archive(
        torchserve.store, "given-up", source, config="maxRetryTimeoutInSec: 1\nminWorkers: 1\nmaxWorkers: 1\n"
    )
    model = served(path, "given-up")
    await adapter.load(model)
    text = Row("asked", [Part("data", b"die", "text/plain")])
    flag.touch()
    with pytest.raises(WorkerDied):
        await adapter.predict(model, [text], soon())
    async with asyncio.timeout(60):
        while (found := await adapter.describe(model)) is None or found.ready_workers:
            await asyncio.sleep(0.05)
    assert found.workers == 1, "the dead one counts"
    flag.unlink()
    found = await adapter.scale(model, 1)
    assert (found.workers, found.ready_workers) == (1, 1)
    (answer,) = await adapter.predict(model, [Row("asked", [Part("data", b"well", "text/plain")])], soon())
    assert int(answer.body) > 0
    await adapter.unload(model)


async def test_names_come_page_by_page(torchserve: OurTorchServe, adapter: TorchServeAdapter) -> None:
    """More versions than one page holds are all in the status."""
    models = [served(archive(torchserve.store, f"page{index}", SIZES), f"page{index}", workers=0) for index in range(3)]
    for model in models:
        await adapter._management.register(model)
    names = await adapter._management.names(page=1)
    assert {model.server_name for model in models} <= names
    for model in models:
        await adapter.unload(model)


async def test_a_frozen_torchserve_is_down(torchserve: OurTorchServe, adapter: TorchServeAdapter) -> None:
    """A stopped Java still accepts connections; asking it with a deadline tells."""
    os.kill(torchserve.info.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RuntimeDown, match="does not answer"):
            await adapter.is_same(timeout_s=0.5)
    finally:
        os.kill(torchserve.info.pid, signal.SIGCONT)
    assert await adapter.is_same(timeout_s=30)
