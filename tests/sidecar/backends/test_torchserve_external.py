"""The adapter on a real TorchServe that somebody else started: plain workers, with and without tokens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from marway.deadline import Deadline
from marway.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidSettings,
    MarwayError,
    ModelError,
    Overloaded,
    RuntimeDown,
)
from marway.records import VersionRecord
from marway.refs import server_name
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.settings import load_settings
from marway.wire.envelope import Answer, Part, Row
from marway_sidecar.backends.base import NotLoaded, ServedModel, WorkerDied
from marway_sidecar.backends.torchserve import TorchServeAdapter, TorchServeBackend
from marway_sidecar.backends.torchserve.management import Refused
from marway_sidecar.backends.watch import ServerWatch
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.settings import SidecarSettings
from support.pools import PoolRoom
from support.registry import publish, until
from support.torchserve import StockTorchServe, archive, served

# Extended: tests/e2e/test_own_torchserve.py serves through the same adapter.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.extended]

HANDLER = """
import json, os, time
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException

def handle(data, context):
    if data is None:
        return None
    return [answer(row, index, context, len(data)) for index, row in enumerate(data)]

def answer(row, index, context, rows):
    value = row.get("data") or row.get("body")
    text = bytes(value).decode() if isinstance(value, (bytes, bytearray)) else value
    if text == "raise":
        raise ValueError("on purpose")
    if text == "refuse":
        raise PredictionException("refused", 422)
    if text == "memory":
        raise MemoryError("on purpose")
    if text == "exit":
        os._exit(3)
    if text == "killed":
        os.kill(os.getpid(), 9)
    if text == "teapot":
        context.set_response_status(418, idx=index)
        context.set_response_header(index, "X-Kind", "teapot")
        context.set_response_content_type(index, "text/csv")
        return "a,b"
    if text == "pieces":
        send_intermediate_predict_response(["one,"], context.request_ids, "ok", 200, context)
        return ["two"][0]
    if isinstance(text, str) and text.startswith("wait "):
        deadline = time.monotonic() + 60
        while not os.path.exists(text[5:]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    return {
        "names": sorted(row),
        "type": type(value).__name__,
        "rows": rows,
        "tenant": context.get_request_header(index, "x-tenant"),
        "explain": context.get_request_header(index, "explain"),
    }
"""


def row(text: str, content_type: str | None = None, **headers: str) -> Row:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        given["content-type"] = content_type
    return Row("asked", [Part("data", text.encode(), content_type)], given)


def soon() -> Deadline:
    return Deadline.after(60)


@pytest.fixture(scope="module", params=[True, False], ids=["tokens", "no-tokens"])
def stock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockTorchServe]:
    with StockTorchServe(tmp_path_factory.mktemp("stock"), tokens=request.param, job_queue_size=1) as running:
        yield running


@pytest.fixture(scope="module")
def with_tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockTorchServe]:
    with StockTorchServe(tmp_path_factory.mktemp("tokens"), tokens=True) as running:
        yield running


def adapter_of(server: StockTorchServe, **facts: Any) -> TorchServeAdapter:
    return TorchServeAdapter(server.info, key_file=server.key_file if server.tokens else None, **facts)


@pytest_asyncio.fixture
async def adapter(stock: StockTorchServe) -> AsyncIterator[TorchServeAdapter]:
    made = adapter_of(stock)
    yield made
    await made.aclose()


@pytest_asyncio.fixture(params=["grpc", "rest"])
async def model(
    request: pytest.FixtureRequest, stock: StockTorchServe, adapter: TorchServeAdapter
) -> AsyncIterator[ServedModel]:
    """One version for all tests, asked over gRPC and over REST."""
    loaded = served(archive(stock.store, "plain", HANDLER), "plain", protocol=request.param)
    await adapter.load(loaded)
    yield loaded
    await ready(adapter, loaded)


async def ready(adapter: TorchServeAdapter, model: ServedModel) -> None:
    async with asyncio.timeout(60):
        while (found := await adapter.describe(model)) is None or found.ready_workers < found.workers:
            await asyncio.sleep(0.05)


async def ask(adapter: TorchServeAdapter, model: ServedModel, asked: Row) -> Answer:
    (answer,) = await adapter.predict(model, [asked], soon())
    return answer


async def test_row_no_worker(adapter: TorchServeAdapter, model: ServedModel) -> None:
    """Without a worker nothing was run, and another pod may be asked."""
    await adapter.scale(model, 0)
    try:
        with pytest.raises(Overloaded):
            await ask(adapter, model, row("x"))
    finally:
        assert (await adapter.scale(model, 1)).ready_workers == 1


async def test_row_queue_full(adapter: TorchServeAdapter, model: ServedModel, tmp_path: Path) -> None:
    """A full queue says the same as no worker, and those that were queued are answered."""
    gate = tmp_path / "gate"
    calls = [asyncio.create_task(ask(adapter, model, row(f"wait {gate}"))) for _ in range(6)]
    try:
        await until(lambda: any(call.done() for call in calls), within_s=30)
    finally:
        gate.touch()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in ended} == {Answer, Overloaded}


async def test_row_handler_exception(adapter: TorchServeAdapter, model: ServedModel) -> None:
    """A handler that raises is the request's own fault."""
    with pytest.raises(ModelError, match="Prediction failed") as raised:
        await ask(adapter, model, row("raise"))
    assert raised.value.status == 500
    assert (raised.value.model, raised.value.version) == ("plain", "1.0")


async def test_row_handler_refusal(adapter: TorchServeAdapter, model: ServedModel) -> None:
    """A `PredictionException` keeps its message, and its status as far as the protocol carries it."""
    with pytest.raises(ModelError, match="refused") as raised:
        await ask(adapter, model, row("refuse"))
    assert raised.value.status == (422 if model.protocol == "rest" else 400)


async def test_row_worker_died(adapter: TorchServeAdapter, model: ServedModel) -> None:
    """A worker that ends with the request in it may have been ended by it."""
    with pytest.raises(WorkerDied):
        await ask(adapter, model, row("exit"))


async def test_row_worker_killed(adapter: TorchServeAdapter, model: ServedModel) -> None:
    """A worker that is killed with the request in it is told as one that died."""
    with pytest.raises(WorkerDied):
        await ask(adapter, model, row("killed"))


async def test_row_python_out_of_memory(adapter: TorchServeAdapter, model: ServedModel) -> None:
    """A handler out of memory is the request's own fault, and never tried elsewhere."""
    with pytest.raises(ModelError, match="out of memory") as raised:
        await ask(adapter, model, row("memory"))
    assert raised.value.status == 507


async def test_row_unknown_model(adapter: TorchServeAdapter, model: ServedModel) -> None:
    """A name and a version that TorchServe does not have are told as not loaded."""
    for unknown in (
        served(model.archive, "nobody", protocol=model.protocol),
        served(model.archive, "plain", version="9", protocol=model.protocol),
    ):
        with pytest.raises(NotLoaded):
            await ask(adapter, unknown, row("x"))


async def test_row_oversized_request(adapter: TorchServeAdapter, model: ServedModel) -> None:
    """A request that is larger than TorchServe takes is refused and the worker lives."""
    with pytest.raises(BodyTooLarge):
        await ask(adapter, model, row("x" * 6_600_000))
    assert (await ask(adapter, model, row("x"))).status == 200


async def test_row_deadline(adapter: TorchServeAdapter, model: ServedModel, tmp_path: Path) -> None:
    """A deadline that passes during the call is told as such."""
    gate = tmp_path / "gate"
    try:
        with pytest.raises(DeadlineExceeded):
            await adapter.predict(model, [row(f"wait {gate}")], Deadline.after(0.5))
    finally:
        gate.touch()


async def test_row_duplicate_version(stock: StockTorchServe, adapter: TorchServeAdapter) -> None:
    """A second registration is refused by both protocols, and the adapter never makes one."""
    model = served(archive(stock.store, "twice", HANDLER), "twice")
    await adapter.load(model)
    with pytest.raises(Refused):
        await adapter._management.register(model)
    url = f"{stock.addresses['management']}/models"
    query = {"url": model.archive.name, "model_name": model.server_name}
    headers = stock.bearer("management")
    answer = httpx.post(url, params=query, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == 409
    assert (await adapter.load(model)).ready_workers == 1
    await adapter.unload(model)


@pytest.mark.parametrize("stock", [True], indirect=True, ids=["tokens"])
async def test_row_token_refused(stock: StockTorchServe, tmp_path: Path) -> None:
    """A key file of another TorchServe gives one clear error, whatever is asked."""
    other = tmp_path / "key_file.json"
    key = '{"key": "00000000", "expiration time": "2020-01-01T00:00:00Z"}'
    other.write_text(f'{{"management": {key}, "inference": {key}, "API": {{"key": "11111111"}}}}')
    model = served(archive(stock.store, "refused", HANDLER), "refused")
    adapter = TorchServeAdapter(stock.info, key_file=other)
    try:
        for call in (adapter.describe(model), adapter.unload(model), ask(adapter, model, row("x"))):
            with pytest.raises(MarwayError, match="refused to renew"):
                await call
    finally:
        await adapter.aclose()
    without = TorchServeAdapter(stock.info)
    try:
        with pytest.raises(MarwayError, match="refuses the token"):
            await ask(without, model, row("x"))
        with pytest.raises(MarwayError, match="refuses the token"):
            await ask(without, model, row("x", "text/plain"))
    finally:
        await without.aclose()


async def test_auto_goes_over_rest_when_grpc_would_lose_something(
    stock: StockTorchServe, adapter: TorchServeAdapter
) -> None:
    """Bytes go over gRPC; JSON, text, forms and a caller's headers over REST, so that the handler sees them."""
    model = served(archive(stock.store, "auto", HANDLER), "auto")
    await adapter.load(model)
    seen = {}
    for name, asked in {
        "bytes": row("x", "application/octet-stream"),
        "json": row('{"a": 1}', "application/json"),
        "text": row("x", "text/plain"),
        "header": row("x", x_tenant="blue"),
        "form": Row(
            "asked",
            [Part("left", b"1"), Part("right", b"[1]", "application/json")],
            {"content-type": "multipart/form-data"},
        ),
    }.items():
        said = await ask(adapter, model, asked)
        assert said.kind == "json"
        document = json.loads(said.body)
        seen[name] = (document["names"], document["type"], document["tenant"])
    assert seen == {
        "bytes": (["data"], "bytearray", None),
        "json": (["body"], "dict", None),
        "text": (["body"], "str", None),
        "header": (["body"], "bytearray", "blue"),
        "form": (["left", "right"], "NoneType", None),
    }
    teapot = await ask(adapter, model, row("teapot", "text/plain"))
    assert (teapot.status, teapot.body, teapot.content_type) == (418, b"a,b", "text/csv")
    assert {name.lower(): value for name, value in teapot.headers.items()} == {"x-kind": "teapot"}
    await adapter.unload(model)


async def test_an_explanation_goes_to_torchserves_own_route(stock: StockTorchServe, adapter: TorchServeAdapter) -> None:
    """A row that asks to explain reaches the handler as one of `/explanations`, whatever protocol the version names."""
    model = served(archive(stock.store, "explains", HANDLER), "explains", protocol="grpc")
    await adapter.load(model)
    said = [
        json.loads((await ask(adapter, model, asked)).body)["explain"] for asked in (row("x"), row("x", explain="True"))
    ]
    assert said == [None, "True"]
    await adapter.unload(model)


async def test_pieces_of_a_plain_worker(stock: StockTorchServe, adapter: TorchServeAdapter) -> None:
    """A version declared streaming streams from TorchServe's own workers too, and whole when asked so."""
    model = served(archive(stock.store, "pieces", HANDLER), "pieces", streaming=True)
    await adapter.load(model)
    pieces = [piece.body async for piece in adapter.predict_stream(model, row("pieces"), soon())]
    assert pieces == [b"one,", b"two"]
    assert (await ask(adapter, model, row("pieces"))).body == b"one,two"
    with pytest.raises(ModelError, match="Prediction failed"):
        _ = [piece async for piece in adapter.predict_stream(model, row("raise"), soon())]
    await adapter.unload(model)


async def test_status_says_what_is_there(stock: StockTorchServe, adapter: TorchServeAdapter) -> None:
    """Names and worker processes come from TorchServe itself, which gives no memory when it measures none."""
    model = served(archive(stock.store, "status", HANDLER), "status", workers=2)
    await adapter.load(model)
    await ready(adapter, model)
    status = await adapter.status()
    assert model.server_name in status.server_names
    mine = [worker for worker in status.workers if worker.server_name == model.server_name]
    assert len({worker.pid for worker in mine}) == 2
    assert {worker.mode for worker in mine} == {"plain"}
    assert all(Path(f"/proc/{worker.pid}").exists() for worker in mine)
    await adapter.unload(model)


async def test_it_makes_batches_itself_when_told_to(with_tokens: StockTorchServe) -> None:
    """With a batch delay, concurrent requests come to the handler together; each has its own answer."""
    adapter = adapter_of(with_tokens, batch_delay_ms=500)
    try:
        model = served(archive(with_tokens.store, "batches", HANDLER), "batches", batch_rows=4)
        await adapter.load(model)
        answers = await adapter.predict(model, [row(str(index)) for index in range(4)], soon())
        assert [b'"rows": 4' in answer.body for answer in answers] == [True] * 4
        await adapter.unload(model)
    finally:
        await adapter.aclose()


async def test_a_token_that_was_replaced_is_read_again(with_tokens: StockTorchServe) -> None:
    """Keys that TorchServe replaced meanwhile are refused once, read again, and renewed where the file is old too."""
    adapter = adapter_of(with_tokens)
    try:
        model = served(archive(with_tokens.store, "tokens", HANDLER), "tokenizer", server_name="mv_tokenizer")
        await adapter.load(model)
        assert (await ask(adapter, model, row("x"))).status == 200
        before = with_tokens.bearer("inference")
        for kind in ("inference", "management"):
            url = f"{with_tokens.addresses['management']}/token?type={kind}"
            assert httpx.get(url, headers=with_tokens.bearer("API"), trust_env=False).status_code == 200
        assert with_tokens.bearer("inference") != before
        for asked in (row("x"), row("x", "text/plain")):  # gRPC, then REST
            assert (await ask(adapter, model, asked)).status == 200
        # The file now holds what is refused: as after an hour, the adapter has a new one made.
        token = with_tokens.bearer("inference")["authorization"].removeprefix("Bearer ")
        stale = with_tokens.key_file.read_text().replace(token, "00000000")
        with_tokens.key_file.write_text(stale)
        fresh = adapter_of(with_tokens)
        try:
            assert (await ask(fresh, model, row("x", "text/plain"))).status == 200
        finally:
            await fresh.aclose()
        assert with_tokens.bearer("inference") != {"authorization": "Bearer 00000000"}
        await adapter.unload(model)
    finally:
        await adapter.aclose()


# --- the watch ---


def pool_for(room: PoolRoom, server: StockTorchServe) -> ModelPool:
    """Return a pool whose archives are where this server reads them."""
    return room.pool(archives=room.archives(root=server.store))


def published(registry: Registry, directory: Path, name: str) -> VersionRecord:
    """Publish a version with an archive that a TorchServe can load."""
    return publish(registry, directory, name, "1.0", data=archive(directory / "made", name, HANDLER).read_bytes())


def settings_for(server: StockTorchServe, **facts: object) -> SidecarSettings:
    addresses = server.addresses
    return load_settings(
        SidecarSettings,
        torchserve_inference=addresses["inference"],
        torchserve_management=addresses["management"],
        torchserve_grpc_inference=addresses["grpc_inference"],
        torchserve_grpc_management=addresses["grpc_management"],
        torchserve_key_file=server.key_file if server.tokens else None,
        torchserve_probe_interval_s=0.05,
        archive_store=server.store,
        **facts,
    )


@asynccontextmanager
async def watching(watch: ServerWatch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run(), name="watch")
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_row_jvm_gone_and_the_watch_follows_it(tmp_path: Path, room: PoolRoom, registry: Registry) -> None:
    """A killed TorchServe is told as down and let go of; started again, with new tokens, it has a new boot id."""
    record = published(registry, tmp_path, "gone")
    with StockTorchServe(tmp_path / "stock", tokens=True) as server:
        pool = pool_for(room, server)
        watch = ServerWatch(
            TorchServeBackend(settings_for(server, torchserve_probe_timeout_s=1.0)), pool.attach, poll_s=0.05
        )
        async with watching(watch):
            await until(lambda: watch.info is not None, within_s=30)
            assert watch.info is not None
            first = watch.info.boot_id
            await pool.load(record, ServingSettings(), Deadline.after(60))

            os.kill(server.pid, signal.SIGSTOP)  # it still accepts connections
            await until(lambda: watch.info is None and pool.server is None, within_s=30)
            os.kill(server.pid, signal.SIGCONT)
            await until(lambda: watch.info is not None, within_s=30)
            assert watch.info is not None
            second = watch.info.boot_id
            assert second != first
            assert (await pool.load(record, ServingSettings(), Deadline.after(60))).workers == 1

            info = server.info
            server.kill()
            for protocol in ("grpc", "rest"):
                gone = served(tmp_path, "gone", protocol=protocol)
                direct = TorchServeAdapter(info, key_file=server.key_file)
                with pytest.raises(RuntimeDown):
                    await ask(direct, gone, row("x"))
                with pytest.raises(RuntimeDown):
                    await direct.describe(gone)
                await direct.aclose()
            await until(lambda: watch.info is None and pool.server is None, within_s=30)
            server.start()
            await until(lambda: watch.info is not None, within_s=60)
            assert watch.info is not None
            assert watch.info.boot_id not in {first, second}


async def test_a_lost_version_means_a_restart(
    tmp_path: Path, with_tokens: StockTorchServe, room: PoolRoom, registry: Registry
) -> None:
    """When a version that we registered is gone, it counts as another TorchServe, and one we unloaded does not."""
    record = published(registry, tmp_path, "lost")
    pool = pool_for(room, with_tokens)
    watch = ServerWatch(TorchServeBackend(settings_for(with_tokens)), pool.attach, poll_s=0.05)
    async with watching(watch):
        await until(lambda: watch.info is not None, within_s=30)
        assert watch.info is not None
        first = watch.info.boot_id
        adapter = pool.server
        assert isinstance(adapter, TorchServeAdapter)
        await pool.load(record, ServingSettings(), Deadline.after(60))
        await pool.unload(record.id, Deadline.after(60))
        assert await adapter.is_same(timeout_s=30)
        await pool.load(record, ServingSettings(), Deadline.after(60))
        assert watch.info.boot_id == first
        url = f"{with_tokens.addresses['management']}/models/{server_name(record.id)}/1.0"
        headers = with_tokens.bearer("management")
        assert httpx.delete(url, headers=headers, timeout=30, trust_env=False).status_code == 200
        await until(lambda: watch.info is not None and watch.info.boot_id != first, within_s=30)


def test_an_address_that_is_missing_is_named(tmp_path: Path) -> None:
    """Settings that name a part of a TorchServe say which part is missing; none mean the runtime directory."""
    half = load_settings(SidecarSettings, torchserve_inference="http://127.0.0.1:8080")
    with pytest.raises(InvalidSettings, match="torchserve_management, torchserve_grpc_inference"):
        TorchServeBackend(half)
    none = TorchServeBackend(load_settings(SidecarSettings, runtime_dir=tmp_path))
    assert none.connect() is None
    assert f"{tmp_path}/runtime.json is not there" in none.trouble(found=False)
