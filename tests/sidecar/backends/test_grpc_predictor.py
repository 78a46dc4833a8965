"""The backend `grpc-predictor`: the contract, what goes to a predictor and comes back, and its model directory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from marway.deadline import Deadline
from marway.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidRequest,
    InvalidSettings,
    LoadFailed,
    MarwayError,
    ModelError,
    RuntimeDown,
    Unavailable,
    Unimplemented,
)
from marway.settings import load_settings
from marway.wire.envelope import Answer, Part, Row
from marway_sidecar.backends.base import Busy, NotLoaded, NotSent, ServedModel
from marway_sidecar.backends.contract import CHECKS, Check, run_check
from marway_sidecar.backends.grpc_predictor import GrpcPredictorBackend
from marway_sidecar.backends.grpc_predictor.documents import answer_of, document_of
from marway_sidecar.backends.grpc_predictor.proto import predictor_pb2
from marway_sidecar.backends.grpc_predictor.server import PredictorServer, _Run
from marway_sidecar.settings import SidecarSettings
from support.bundles import write_bundle
from support.predictor import Predictor, predictor_backend, predictor_running


class Subject:
    """The backend as the contract suite sees it."""

    streams = workers_die = False

    def __init__(self, predictor: Predictor, scratch: Path) -> None:
        self.backend = predictor_backend(predictor)
        self._predictor = predictor
        self._scratch = scratch
        self._numbers = itertools.count()

    def model(self, name: str, *, streaming: bool = False, broken: bool = False) -> ServedModel:
        server_name = f"{name}-{next(self._numbers)}"
        files = {"readme.txt" if broken else "model.txt": b"a model"}
        bundle = write_bundle(self._scratch / f"{server_name}.bundle", "grpc-predictor", files, name=name)
        return ServedModel(server_name, name, "1.0", bundle, 1, 2.0, 10.0, streaming=streaming)

    async def restart(self) -> None:
        await self._predictor.stop()
        await self._predictor.start()


@pytest_asyncio.fixture
async def predictor(tmp_path: Path) -> AsyncIterator[Predictor]:
    async with predictor_running(tmp_path / "models") as running:
        yield running


@asynccontextmanager
async def connected(predictor: Predictor, **settings: object) -> AsyncIterator[PredictorServer]:
    server = predictor_backend(predictor, **settings).connect()
    try:
        assert await server.is_same(timeout_s=5)
        yield server
    finally:
        await server.aclose()


def version(scratch: Path, number: str = "1.0") -> ServedModel:
    path = scratch / f"{number}.bundle"
    if not path.exists():
        write_bundle(path, "grpc-predictor", {"model.txt": b"x", "sub/vocab.txt": b"y"}, version=number)
    return ServedModel(f"mv_{number}", "tiny", number, path, 1, 1.0, 10.0)


def row(text: str | bytes, content_type: str | None = "text/plain", **headers: str) -> Row:
    data = text.encode() if isinstance(text, str) else text
    return Row("asked", [Part("data", data, content_type)], headers)


async def ask(server: PredictorServer, model: ServedModel, asked: Row, within_s: float = 10) -> Answer:
    (answer,) = await server.predict(model, [asked], Deadline.after(within_s))
    return answer


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, predictor: Predictor, tmp_path: Path) -> None:
    """Each check of the contract suite holds for a predictor."""
    await run_check(check, Subject(predictor, tmp_path))


async def test_a_version_is_a_directory(predictor: Predictor, tmp_path: Path) -> None:
    """Loaded, its files lie below its id, which predictions name; it is asked once before its first caller."""
    model, directory = version(tmp_path), predictor.models / "mv_1.0"
    async with connected(predictor) as server:
        found = await server.load(model)
        assert (found.scales, found.calls_per_worker) == (False, 10)
        assert (directory / "model.txt").read_bytes() == b"x"
        assert (directory / "sub" / "vocab.txt").read_bytes() == b"y"
        assert predictor.asked == [("mv_1.0", "hello")]
        answer = await ask(server, model, row("wake me up"))
        assert (answer.body, answer.kind) == (b'{"asked": "wake me up"}', "json")
        assert predictor.asked[1:] == [("mv_1.0", "wake me up")]
        await server.unload(model)
        assert [each.name for each in predictor.models.iterdir()] == [".marway"]
        with pytest.raises(NotLoaded):
            await ask(server, model, row("x"))


async def test_what_a_dead_sidecar_left_is_removed(predictor: Predictor, tmp_path: Path) -> None:
    """What it had loaded is nobody's any more; what others have put into the directory stays."""
    async with connected(predictor) as server:
        await server.load(version(tmp_path))
    (predictor.models / "mine").mkdir()
    assert (predictor.models / "mv_1.0").is_dir()
    async with connected(predictor) as server:
        assert {each.name for each in predictor.models.iterdir()} == {".marway", "mine"}
        assert (await server.status()).server_names == frozenset()


async def test_a_version_that_cannot_answer_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    """The first document tells a bad model, and one that does not load in time; without it none is sent."""
    model = version(tmp_path)
    never = f"wait {tmp_path / 'never'}"
    for document, told in {"fail": "cannot be loaded: asked 'fail'", never: "was not loaded within 1 s"}.items():
        async with connected(predictor, grpc_predictor_first_document=document) as server:
            with pytest.raises(LoadFailed, match=told):
                await server.load(model)
            assert not (predictor.models / "mv_1.0").exists()
    predictor.asked.clear()
    async with connected(predictor, grpc_predictor_first_document="") as server:
        await server.load(model)
        assert predictor.asked == []


async def test_a_predictor_that_keeps_its_models_itself(predictor: Predictor, tmp_path: Path) -> None:
    """It is asked for the run that a version's bundle names, if it has that, and nothing is put there or removed."""
    (predictor.models / "17").mkdir(parents=True)
    (predictor.models / "17" / "model.txt").touch()
    async with connected(predictor, grpc_predictor_manage=False, grpc_predictor_models=None) as server:
        with pytest.raises(LoadFailed, match=r"does not say which run it is .*: pack it with --server-model RUN"):
            await server.load(version(tmp_path))
        for run in ("17", "18"):
            write_bundle(tmp_path / f"{run}.bundle", "grpc-predictor", server_model=run)
        theirs, absent = (ServedModel(n, "tiny", n, tmp_path / f"{n}.bundle", 1, 1.0, 10.0) for n in ("17", "18"))
        with pytest.raises(Unavailable, match=r"does not have tiny 18: .* \(run '18'\)"):
            await server.load(absent)
        await server.load(theirs)
        assert (await ask(server, theirs, row("say x"))).body == b"x"
        assert predictor.asked[-1] == ("17", "say x")
        await server.unload(theirs)
    assert [each.name for each in predictor.models.iterdir()] == ["17"]


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        ("INVALID_ARGUMENT", ModelError, 400),
        ("PERMISSION_DENIED", ModelError, 403),
        ("UNAUTHENTICATED", ModelError, 401),
        ("ABORTED", ModelError, 409),
        ("INTERNAL", ModelError, 500),
        ("UNKNOWN", ModelError, 500),
        ("NOT_FOUND", NotLoaded, None),
        ("UNAVAILABLE", RuntimeDown, None),
        ("RESOURCE_EXHAUSTED", Busy, None),
        ("DEADLINE_EXCEEDED", DeadlineExceeded, None),
        ("UNIMPLEMENTED", MarwayError, None),
    ],
)
async def test_what_a_predictors_status_means(
    code: str, kind: type[MarwayError], status: int | None, predictor: Predictor, tmp_path: Path
) -> None:
    """Each status of gRPC is one error of ours, with what the predictor said."""
    model = version(tmp_path)
    async with connected(predictor) as server:
        await server.load(model)
        with pytest.raises(MarwayError) as caught:
            await ask(server, model, row(f"refuse {code}"))
        assert type(caught.value) is kind
        assert caught.value.model == "tiny"
        assert "on purpose" in caught.value.message or kind is DeadlineExceeded
        if isinstance(caught.value, ModelError):
            assert caught.value.status == status


async def test_what_is_too_large(predictor: Predictor, tmp_path: Path) -> None:
    """A document beyond what is sent or taken is the caller's fault, an answer beyond what is taken the model's."""
    model = version(tmp_path)
    async with connected(predictor, grpc_predictor_max_message_bytes=1_500_000) as server:
        await server.load(model)
        for size in (1_200_000, 2_000_000):
            with pytest.raises(BodyTooLarge, match="larger than the predictor takes"):
                await ask(server, model, row("x" * size))
        with pytest.raises(ModelError, match="grpc_predictor_max_message_bytes"):
            await ask(server, model, row("large"))
        assert (await ask(server, model, row("say y"))).body == b"y"


async def test_a_predictor_that_goes(predictor: Predictor, tmp_path: Path) -> None:
    """A call that it takes with it is lost; then nothing is sent; one that is back is another predictor."""
    model = version(tmp_path)
    async with connected(predictor) as server:
        await server.load(model)
        call = asyncio.ensure_future(ask(server, model, row(f"wait {tmp_path / 'never'}")))
        await asyncio.sleep(0.1)
        await predictor.stop()
        with pytest.raises(RuntimeDown):
            await call
        with pytest.raises(RuntimeDown):
            await ask(server, model, row("x"))
    away = predictor_backend(predictor).connect()
    with pytest.raises(RuntimeDown, match="does not answer"):
        await away.is_same(timeout_s=1)
    away._runs[model.server_name] = _Run(model.server_name, "1.0")  # as if it went between two looks
    with pytest.raises(NotSent):
        await ask(away, model, row("x"))
    await away.aclose()
    with pytest.raises(RuntimeDown):
        await ask(away, model, row("x"))
    await predictor.start()
    async with connected(predictor) as server:
        await server.load(model)
        await predictor.stop()
        await predictor.start()
        async with asyncio.timeout(10):
            while await server.is_same(timeout_s=5):
                await asyncio.sleep(0.01)


async def test_who_leaves_is_seen_by_the_predictor(predictor: Predictor, tmp_path: Path) -> None:
    """A call that is cancelled and a deadline that passes end the call at the predictor."""
    model, never = version(tmp_path), f"wait {tmp_path / 'never'}"
    async with connected(predictor) as server:
        await server.load(model)
        call = asyncio.ensure_future(ask(server, model, row(never)))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(DeadlineExceeded):
            await ask(server, model, row(never), within_s=0.1)
        async with asyncio.timeout(10):
            while predictor.left < 2:
                await asyncio.sleep(0.01)
        assert call.cancelled()


async def test_health(tmp_path: Path) -> None:
    """A predictor that says that it does not serve is down; one without a health service is well while it answers."""
    predictor = Predictor(tmp_path / "models")
    predictor.serving = False
    await predictor.start()
    server = predictor_backend(predictor).connect()
    with pytest.raises(RuntimeDown, match="says that it is not serving"):
        await server.is_same(timeout_s=5)
    await server.aclose()
    await predictor.stop()
    predictor.serving = None
    await predictor.start()
    async with connected(predictor):
        pass
    await predictor.stop()


def test_documents() -> None:
    """Text as it is, a JSON string as what it holds, other JSON as it is written, the one field of a form."""
    assert document_of(row("a\n")) == "a\n"
    assert document_of(row("é", None)) == "é"
    assert document_of(row('"a\\n"', "application/json; charset=utf-8")) == "a\n"
    assert document_of(row('{"a": 1}', "application/json")) == '{"a": 1}'
    assert document_of(Row("r", [Part("document", b"field")], {"content-type": "multipart/form-data"})) == "field"
    for bad, told in [
        (row(b"\xff"), "no UTF-8"),
        (row("{", "application/json"), "says that it is JSON"),
        (row("x", url_path="a"), "has nothing at 'a'"),
        (Row("r", [Part("a", b""), Part("b", b"")]), "takes one text, and the form has 2 fields"),
    ]:
        with pytest.raises(InvalidRequest, match=told):
            document_of(bad)
    with pytest.raises(Unimplemented):
        document_of(row("x", explain="True"))


def test_answers() -> None:
    """A response that is an object or a list is JSON, any other text; one without a character is an empty text."""
    assert [answer_of(text).kind for text in ('{"a": 1}', "[1]", "timer", "1", "{no", "")] == [
        "json", "json", "text", "text", "text", "text",
    ]  # fmt: skip


def test_settings_that_are_missing() -> None:
    """A predictor needs its address and its directory."""
    with pytest.raises(InvalidSettings, match=r"needs grpc_predictor_address, .* and grpc_predictor_models"):
        GrpcPredictorBackend(load_settings(SidecarSettings, grpc_predictor_address="h:1"))
    both = {"grpc_predictor_address": "h:1", "grpc_predictor_models": "/m", "grpc_predictor_manage": False}
    with pytest.raises(InvalidSettings, match="nothing is put into grpc_predictor_models: unset it"):
        GrpcPredictorBackend(load_settings(SidecarSettings, **both))


def test_names_and_numbers_are_the_books() -> None:
    """Clients and predictors that were made from the book's file understand ours."""
    file = predictor_pb2.DESCRIPTOR
    assert [f"{file.package}.{name}" for name in file.services_by_name] == ["prediction.Predictor"]
    fields = {f"{m.name}.{f.name}": f.number for m in file.message_types_by_name.values() for f in m.fields}
    assert fields == {
        "PredictorPredictRequest.runId": 1,
        "PredictorPredictRequest.document": 2,
        "PredictorPredictResponse.response": 1,
    }
