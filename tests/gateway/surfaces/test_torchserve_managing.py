"""TorchServe's management API on the admin port, over pods that note what they are asked: REST and gRPC alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from aiohttp import web

from gateway.admin_pod import AdminPod
from gateway.fakes import Running, running
from marway.errors import LoadFailed
from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.registry import Registry
from marway.settings import load_settings
from marway.wire.pods import ModelStatus
from marway_archiver.publishing.registering import register_archive
from marway_gateway.proto.torchserve import management_pb2 as messages
from marway_gateway.proto.torchserve import management_pb2_grpc
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.torchserve.managing import versions, workers
from marway_gateway.surfaces.torchserve.managing.parameters import Parameters
from marway_gateway.surfaces.torchserve.managing.refusals import Refused
from marway_gateway.surfaces.torchserve.managing.sources import Sources
from support.registry import publish, until
from support.torchserve import archive
from support.torchserve_collection import COLLECTION, DIFFERENT, MODELS

HANDLER = "def handle(data, context):\n    return data and ['ok'] * len(data)\n"


class WorkingPod(AdminPod):
    """A pod that has as many workers of a version as its serving settings say."""

    async def _load(self, request: web.Request) -> web.Response:
        answer = await super()._load(request)
        record = self._record(request)
        self.asked.pop()
        assert self.registry is not None
        count = self.registry.state(record.name).serving_for(record).min_workers
        told = [
            model.model_copy(update={"workers": max(1, count)}) if model.id == record.id else model
            for model in self.models
        ]
        self.models = tuple(told)
        self.tell(models=self.models)
        return answer

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/models/{name}/{version}/load", self._load)
        app.router.add_post("/models/{name}/{version}/compare", self._compare)
        app.router.add_post("/models/{name}/{version}/unload", self._unload)


@asynccontextmanager
async def managed(registry: Registry, **flags: object) -> AsyncIterator[tuple[Running, WorkingPod]]:
    """A gateway with the API on, and its one pod."""
    pod = WorkingPod("a", registry=registry)
    await pod.start()
    try:
        settings = {"torchserve_management": True, "admin_grpc_port": 0, "health_interval_s": 0.05, **flags}
        async with running(pod, registry=registry, **settings) as gateway:
            admin, headers = gateway.admin, {"authorization": "Bearer secret-1"}
            while not (await admin.get("/pods", headers=headers)).json()[0]["status"]:
                await asyncio.sleep(0.005)
            yield gateway, pod
    finally:
        await pod.stop()


def refused(status: int, kind: str) -> Any:
    """Return what the document of a refusal is like, whatever its message."""

    class Like:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, dict) and (other["code"], other["type"]) == (status, kind)

        def __hash__(self) -> int:
            return 0

        def __repr__(self) -> str:
            return f"{status} {kind}"

    return Like()


async def test_versions_of_the_registry_are_managed(registry: Registry, tmp_path: Path) -> None:
    """Register loads and releases, scale sets workers, set-default moves PROD with proof, unregister unloads."""
    publish(registry, tmp_path, version="1.0", label=None)
    publish(registry, tmp_path, version="2.0", label=None)
    async with managed(registry) as (gateway, pod):
        admin = gateway.admin
        assert (await admin.get("/models/intent")).json() == refused(404, "ModelVersionNotFoundException")
        done = await admin.post("/models", params={"url": "intent/1.0", "initial_workers": "2", "queue_timeout": "9"})
        assert done.status_code == 200, done.text
        assert done.json()["status"].startswith(
            'Model "intent" Version: 1.0 registered with 2 initial workers (queue_timeout has no effect here: '
        )
        assert registry.state("intent").labels == {"PROD": "1.0"}
        assert "POST /models/intent/1.0/load?prove=true" in pod.asked
        again = await admin.post("/models", params={"url": f"{registry.url}/intent/1.0"})
        assert (again.status_code, again.json()["message"]) == (
            *(409, "Model version 1.0 is already registered for model intent"),
        )
        (shown,) = (await admin.get("/models/intent")).json()
        assert [worker["status"] for worker in shown["workers"]] == ["READY", "READY"]
        assert (shown["modelName"], shown["modelVersion"], shown["modelUrl"], shown["minWorkers"]) == (
            *("intent", "1.0", "intent/1.0", 2),
        )
        scaled = await admin.put("/models/intent/1.0", params={"min_worker": "3", "synchronous": "true"})
        assert scaled.json() == {"status": "Workers scaled to 3 for model: intent, version: 1.0"}
        assert len((await admin.get("/models/intent/1.0/")).json()[0]["workers"]) == 3
        moved = await admin.put("/models/intent/2.0/set-default", headers={"from": "ana@laptop"})
        assert moved.json() == {"status": 'Default version successfully updated for model "intent" to "2.0"'}
        newest = registry.state("intent").history[-1]
        assert (newest.label, newest.to_version, newest.by) == ("PROD", "2.0", "ana@laptop")
        assert [each["modelVersion"] for each in (await admin.get("/models/intent/all")).json()] == ["1.0", "2.0"]
        gone = await admin.delete("/models/intent/1.0")
        assert (gone.status_code, gone.json()) == (200, {"status": 'Model "intent" unregistered'})
        assert (await admin.get("/models/intent/1.0")).json()[0]["workers"] == []
        pod.refusal = LoadFailed("no weights")
        failed = await admin.put("/models/intent/1.0", params={"min_worker": "1", "synchronous": "true"})
        assert failed.json() == refused(500, "InternalServerException")
        assert failed.json()["message"] == "Failed to start workers for model intent version: 1.0: pod a: no weights"
        later = await admin.put("/models/intent/1.0", params={"min_worker": "1"})
        assert (later.status_code, later.json()) == (202, {"status": "Processing worker updates..."})


async def test_marways_own_routes_stay(registry: Registry, tmp_path: Path) -> None:
    """The admin port's other routes and the whole public port answer as ever; refusals are in TorchServe's form."""
    publish(registry, tmp_path, version="1.0")
    async with managed(registry) as (gateway, _):
        admin, public = gateway.admin, gateway.client
        listed = await admin.get("/models")
        assert listed.json() == {"models": [{"modelName": "intent", "modelUrl": "intent/1.0"}]}
        assert (await public.get("/models")).json()["models"][0]["labels"] == {"PROD": "1.0"}
        assert (await public.get("/models/intent")).json()["versions"] == ["1.0"]
        assert (await public.post("/models")).status_code == 405
        assert (await admin.get("/models/intent/serving")).json()["name"] == "intent"
        assert (await admin.get("/models/intent/contracts")).status_code == 200
        assert (await admin.get("/models/intent/versions/1.0")).json()["labels"] == ["PROD"]
        assert "marway graph import" in (await admin.post("/workflows")).json()["message"]
        wrong = await admin.delete("/models")
        assert (wrong.json(), wrong.headers["allow"]) == (
            *(refused(405, "MethodNotAllowedException"), "GET, POST, HEAD"),
        )
        sent = {"content": b"x", "headers": {"content-type": "text/plain"}}
        assert (await admin.post("/models", **sent)).status_code == 415  # type: ignore[arg-type]
        assert (await admin.post("/models", json=[1])).json() == refused(400, "BadRequestException")
        paths = (await admin.get("/openapi.json")).json()["paths"]
        assert "/models/{model}/versions/{version}" in paths
        assert "/models" not in paths


@pytest.mark.extended  # unregister and refusals by themselves: the tests above
async def test_a_tombstone_is_for_good(registry: Registry, tmp_path: Path) -> None:
    """With `tombstone` unregister deletes: not the default while there are others, and it does not come back."""
    publish(registry, tmp_path, version="1.0")
    publish(registry, tmp_path, version="2.0", label=None)
    publish(registry, tmp_path, "rows", backend="table", kind="bundle")
    async with managed(registry, torchserve_management_unregister="tombstone") as (gateway, _):
        admin = gateway.admin
        assert (await admin.delete("/models/intent")).json() == refused(403, "InvalidModelVersionException")
        assert (await admin.delete("/models/intent/2.0")).status_code == 200
        assert (await admin.delete("/models/intent")).status_code == 200
        assert (await admin.get("/models/intent/1.0")).json() == refused(404, "ModelVersionNotFoundException")
        assert set(registry.state("intent").tombstones) == {"1.0", "2.0"}
        scaled = await admin.put("/models/rows", params={"min_worker": "2"})
        assert (scaled.status_code, "is a table, which gateways answer for" in scaled.json()["message"]) == (400, True)
        assert (await admin.delete("/models/rows")).status_code == 200


@pytest.mark.extended  # what publishes it: `test_an_archive_keeps_its_name_or_gets_another`
async def test_an_archive_in_the_body_is_registered(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload is published under the name of the call, and loaded; one that is too large, or no archive, is not."""
    registry.create()
    in_process(monkeypatch)
    data = archive(tmp_path, "echo", HANDLER).read_bytes()
    headers = {"content-type": "application/octet-stream"}
    async with managed(registry, torchserve_management_archive_bytes=len(data)) as (gateway, _):
        admin = gateway.admin
        done = await admin.post("/models", params={"model_name": "mine"}, content=data, headers=headers)
        assert done.json() == {"status": 'Model "mine" Version: 1.0 registered with 1 initial workers'}
        assert registry.state("mine").labels == {"PROD": "1.0"}
        large = await admin.post("/models", content=data + b"x", headers=headers)
        assert large.json() == refused(413, "RequestEntityTooLargeException")
        none = await admin.post("/models", content=b"no archive", headers=headers)
        assert none.json() == refused(400, "InvalidModelException")
        given = {"params": {"handler": "gone.py:Handler"}, "content": data, "headers": headers}
        missing = await admin.post("/models", **given)
        assert (missing.status_code, "'gone.py' is missing" in missing.json()["message"]) == (400, True)


def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have archives published in this process; `test_torchserve_management` has a process of its own do it."""

    async def published(path: Path, *, registry: str, **given: Any) -> VersionRecord:
        return await asyncio.to_thread(register_archive, path, registry, **given)

    monkeypatch.setattr(versions, "publish", published)
    monkeypatch.setattr(workers, "_TOLD_S", 0.02)


@pytest.mark.extended  # each call by itself: the tests above
async def test_torchserves_own_collection(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of TorchServe's Postman collection 72 of 82 requests are answered as it says, the others as is listed."""
    registry.create()
    in_process(monkeypatch)
    for name in MODELS:
        archive(tmp_path / "store", name, HANDLER, file=f"{name}.mar")
    url = f"file://{tmp_path}/store/"
    async with managed(registry, torchserve_management_sources=url) as (gateway, _):
        other = {}
        for asked in COLLECTION:
            answer = await gateway.admin.request(asked.method, "/" + asked.path.format(url=url))
            if answer.status_code != asked.status:
                other[asked.about] = answer.status_code
    assert other == {about: status for about, (status, _) in DIFFERENT.items()}
    assert len(COLLECTION) - len(other) == 72


async def test_grpc_says_the_same(registry: Registry, tmp_path: Path) -> None:
    """The service answers in `msg` what REST answers, and refuses by status with the exception's name; others none."""
    publish(registry, tmp_path, version="1.0")
    tokens = tmp_path / "tokens"
    tokens.write_text("ana: secret-1\n")
    tokens.chmod(0o600)
    async with managed(registry, admin_tokens_file=tokens) as (gateway, _), channel(gateway) as stub:
        ana = (("authorization", "Bearer secret-1"),)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.ListModels(messages.ListModelsRequest())
        assert unknown.value.code() is grpc.StatusCode.UNAUTHENTICATED
        listed = await stub.ListModels(messages.ListModelsRequest(limit=10), metadata=ana)
        assert json.loads(listed.msg) == {"models": [{"modelName": "intent", "modelUrl": "intent/1.0"}]}
        request = messages.RegisterModelRequest(url="intent/1.0", synchronous=True)
        assert (await stub.RegisterModel(request, metadata=ana)).msg.startswith(
            'Model "intent" Version: 1.0 registered'
        )
        shown = await stub.DescribeModel(messages.DescribeModelRequest(model_name="intent"), metadata=ana)
        assert json.loads(shown.msg)[0]["modelVersion"] == "1.0"
        scale = messages.ScaleWorkerRequest(model_name="intent", min_worker=2, synchronous=True)
        assert (await stub.ScaleWorker(scale, metadata=ana)).msg == "Workers scaled to 2 for model: intent"
        assert registry.state("intent").history[-1].by == "ana"
        default = messages.SetDefaultRequest(model_name="intent", model_version="9")
        for call, code, kind in (
            (stub.RegisterModel(messages.RegisterModelRequest(), metadata=ana), "INVALID_ARGUMENT", "BadRequest"),
            (stub.RegisterModel(request, metadata=ana), "ALREADY_EXISTS", "ConflictStatus"),
            (stub.SetDefault(default, metadata=ana), "NOT_FOUND", "ModelVersionNotFound"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert raised.value.code().name == code
            assert raised.value.details().endswith(f"\norg.pytorch.serve.http.{kind}Exception")  # type: ignore[union-attr]
        gone = messages.UnregisterModelRequest(model_name="intent")
        assert (await stub.UnregisterModel(gone, metadata=ana)).msg == 'Model "intent" unregistered'


@asynccontextmanager
async def channel(gateway: Running) -> AsyncIterator[Any]:
    """Give a stub of the management service."""
    assert gateway.addresses.admin_grpc is not None
    async with grpc.aio.insecure_channel(gateway.addresses.admin_grpc) as opened:
        yield management_pb2_grpc.ManagementAPIsServiceStub(opened)  # type: ignore[no-untyped-call]


def test_parameters_are_read_as_torchserve_reads_them() -> None:
    """What is no number counts as not given, and the answer says so, as it does of what is no parameter."""
    given = Parameters({"min_worker": "nan", "max_worker": "2", "synchronous": "-1", "colour": "red", "timeout": ""})
    assert (given.number("min_worker"), given.number("max_worker"), given.flag("synchronous", default=True)) == (
        *(None, 2, False),
    )
    given.without_effect(timeout="of something", number_gpu="of another thing")
    assert given.phrase("Done") == (
        "Done (min_worker 'nan' is no whole number, and counts as not given; "
        "synchronous '-1' is neither true nor false, and counts as false; timeout has no effect here: of something; "
        "'colour' is no parameter of this call)"
    )
    assert Parameters.of_json({"synchronous": True, "url": None}, {"url": "x"}).text("synchronous") == "true"


async def test_archives_come_from_places_that_are_named(tmp_path: Path) -> None:
    """A file below a directory that is named, by name or by URL; nothing else, whatever leads there."""
    store, outside = tmp_path / "store", tmp_path / "outside.mar"
    (store / "below").mkdir(parents=True)
    outside.write_bytes(b"o")
    (store / "a.mar").write_bytes(b"a")
    (store / "below" / "b.mar").write_bytes(b"b")
    (store / "link.mar").symlink_to(outside)
    found = Sources((f"file://{store}/",), registry_url="s3://models", max_bytes=10)
    for url in ("a.mar", "/elsewhere/model_store/a.mar", f"file://{store}/a.mar", f"file://{store}/below/b.mar"):
        assert found.reference(url) is None
        async with found.archive(url) as path:
            assert path.parent in (store, store / "below")
    for url, kind in (
        ("../outside.mar", "ModelNotFoundException"),
        ("none.mar", "ModelNotFoundException"),
        ("link.mar", "ModelNotFoundException"),
        (f"file://{outside}", "ModelNotFoundException"),
        (f"file://{store}/none.mar", "DownloadArchiveException"),
        ("https://models.example.com/a.mar", "ModelNotFoundException"),
    ):
        with pytest.raises(Refused) as raised:
            async with found.archive(url):
                pass
        assert raised.value.kind == kind, url
    assert str(found.reference("s3://models/intent/1.0")) == "intent/1.0"


async def test_a_download_is_bounded_and_follows_nothing(tmp_path: Path) -> None:
    """An archive is fetched from a beginning that is named; a redirect, another status or too much is refused."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/m/moved.mar":
            raise web.HTTPFound("/m/a.mar")
        if request.path == "/m/a.mar":
            return web.Response(body=b"archive")
        return web.Response(body=b"x" * 11) if request.path == "/m/large.mar" else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host = f"http://127.0.0.1:{runner.addresses[0][1]}"
        found = Sources((f"{host}/m/",), registry_url="file:///r", max_bytes=10)
        async with found.archive(f"{host}/m/a.mar") as path:
            assert path.read_bytes() == b"archive"
        assert not path.exists()
        for name, status in (("m/moved.mar", 400), ("m/none.mar", 400), ("m/large.mar", 413), ("other.mar", 404)):
            with pytest.raises(Refused) as raised:
                async with found.archive(f"{host}/{name}"):
                    pass
            assert raised.value.status == status, name
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("value", ["model-store", "s3://bucket/", "file://host/x", "https://", "file:///a/../b"])
def test_a_place_that_is_none_is_refused(value: str) -> None:
    """A source is a directory or the beginning of an address; the error says what to give."""
    with pytest.raises(Exception, match="no place of archives"):
        load_settings(GatewaySettings, torchserve_management_sources=value)


def test_an_archive_keeps_its_name_or_gets_another(tmp_path: Path) -> None:
    """An archive of somebody else's is published canonically; with another name and handler that is in its manifest."""
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    registry.create()
    made = archive(tmp_path, "echo", HANDLER, files={"other.py": HANDLER})
    first = register_archive(made, registry.url, publisher="ana")
    again = register_archive(made, registry.url, publisher="ben")
    other = register_archive(made, registry.url, model_name="mine", handler="other.py", publisher="ana")
    assert (first.name, first.handler, again.publisher, other.name, other.handler) == (
        *("echo", "handler.py", "ana", "mine", "other.py"),
    )
    assert first.archive.sha256 != other.archive.sha256


@pytest.mark.extended  # unregister by itself: the first test here
async def test_pods_that_tell_late_are_waited_for(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unregister that comes while workers are started behind an answer leaves nothing of the version loaded."""
    record = publish(registry, tmp_path, version="1.0")
    monkeypatch.setattr(workers, "_TOLD_S", 0.02)
    async with managed(registry) as (gateway, pod):
        await gateway.admin.post("/models", params={"url": "intent", "synchronous": "false"})
        assert (await gateway.admin.delete("/models/intent")).status_code == 200
        gone = ModelStatus(id=record.id, name="intent", version="1.0", state="ready")
        await until(lambda: gone.id not in {model.id for model in pod.models})
