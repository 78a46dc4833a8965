"""Bearer tokens on the admin, the public and the gRPC port."""

import io
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.fakes import FakePod, Running, running
from marway.errors import InvalidSettings
from marway.registry import Registry
from marway.tokens import bearer, first_token, parse_tokens
from marway_gateway.access.authentication import TokenFile
from marway_gateway.gateway import open_gateway
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from marway_http.pages.routes import API_PAGE_PATHS
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]
TOKEN = "7Yk0-first.token~"
OTHER = "second/token+=="


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)
    publish(registry, tmp_path, version="1.1", label=None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A token file with one token that has no name and one that has."""
    path = tmp_path / "tokens"
    path.write_text(f"# who may\n{TOKEN}\n\nci: {OTHER}  # the pipeline\n")
    path.chmod(0o600)
    return path


@asynccontextmanager
async def guarded(*pods: FakePod, registry: Registry, file: Path) -> AsyncIterator[Running]:
    async with running(*pods, registry=registry, admin_tokens_file=file, predict_tokens_file=file) as gateway:
        yield gateway


def with_token(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("sent", [{}, {"authorization": "Basic YTpi"}, with_token("wrong"), with_token("two words")])
async def test_without_a_token(registry: Registry, file: Path, sent: dict[str, str]) -> None:
    """Every route of both HTTP ports but health, metrics and the API's description refuses who has no known token."""
    async with guarded(registry=registry, file=file) as gateway:
        answers = [
            await gateway.admin.get("/pods", headers=sent),
            await gateway.admin.put("/models/intent/labels/PROD", json={"version": "1.1"}, headers=sent),
            await gateway.admin.get("/nothing", headers=sent),
            await gateway.client.post("/predict/intent", content=b"x" * 2_000_000, headers=sent),
            await gateway.client.post("/predict/itnent", content=b"x", headers=sent),  # nor is it told what is meant
            await gateway.client.get("/models", headers=sent),
            await gateway.client.options("/models", headers=sent),
        ]
        opened = [await gateway.client.get(path) for path in ("/healthz", "/readyz", "/metrics")]
        opened.append(await gateway.admin.get("/healthz"))
        # What routes Marway has is no secret, and the API page could not ask for a token otherwise.
        for client in (gateway.client, gateway.admin):
            about = [await client.get(path, headers=sent) for path in ("/", "/openapi.json", *API_PAGE_PATHS)]
            assert [answer.status_code for answer in about] == [200] * len(about)
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert "did you mean" not in answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith('Bearer realm="marway"')
        assert ("invalid_token" in answer.headers["www-authenticate"]) == bool(sent)
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert [answer.status_code for answer in opened] == [200, 503, 200, 200]  # 503: it has no pods
    assert registry.state("intent").labels == {"PROD": "1.0"}


async def test_with_a_token(registry: Registry, make_pod: MakePod, file: Path) -> None:
    """A known token is let through, never reaches a pod, and its name stands in the history."""
    pod = await make_pod()
    async with guarded(pod, registry=registry, file=file) as gateway:
        answer = await gateway.client.post("/predict/intent", content=b"hello", headers=with_token(TOKEN))
        body = {"version": "1.1", "force": True}
        url = "/models/intent/labels/PROD"
        named = await gateway.admin.put(url, json=body, headers={**with_token(OTHER), "from": "ana@laptop"})
        unnamed = await gateway.admin.put(url, json=body, headers={**with_token(TOKEN), "from": "ana@laptop"})
    assert (answer.status_code, answer.content) == (200, b"hello")
    assert not [value for value in pod.requests[0].headers.values() if TOKEN in value]
    assert [each.json()["by"] for each in (named, unnamed)] == ["ci", "ana@laptop"]


async def test_each_surface_refuses_in_its_own_form(registry: Registry, file: Path) -> None:
    """TorchServe's clients get TorchServe's error body."""
    async with guarded(registry=registry, file=file) as gateway:
        answer = await gateway.client.post("/predictions/intent", content=b"x")
    assert answer.status_code == 401
    assert (answer.json()["code"], answer.json()["type"]) == (401, "InvalidKeyException")


async def test_grpc(registry: Registry, make_pod: MakePod, file: Path) -> None:
    """gRPC calls, reflection too, need the token in their metadata; health checks do not."""
    pod = await make_pod()
    async with (
        guarded(pod, registry=registry, file=file) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        request = prediction_pb2.PredictRequest(runId="intent", document="wake me")
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Predict(request, metadata=metadata, timeout=10)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert "Bearer" in str(refused.value.trailing_metadata())
        assert pod.requests == []
        answer = await stub.Predict(request, metadata=(("authorization", f"Bearer {TOKEN}"),), timeout=10)
        assert answer.response == "wake me"
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = reflect.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        unknown = channel.unary_unary("/no.Such/Method")
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await unknown(b"", timeout=10)
        assert missing.value.code() == grpc.StatusCode.UNIMPLEMENTED
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)


async def test_tokens_are_replaced_without_a_restart(registry: Registry, file: Path) -> None:
    """When the file is replaced, new tokens are accepted and old ones are refused, with no restart."""
    async with guarded(registry=registry, file=file) as gateway:

        async def status(token: str) -> int:
            return (await gateway.admin.get("/pods", headers=with_token(token))).status_code

        assert [await status(TOKEN), await status("third")] == [200, 401]
        new = file.with_name("new")
        new.write_text("third\n")
        new.replace(file)
        while await status("third") != 200:
            pass
        assert await status(TOKEN) == 401


def test_a_file_is_followed(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong with a changed file is said once, without what stands in it; the last tokens stay."""
    followed = TokenFile(file)
    file.write_text("two words of a secret\n")
    for _ in range(3):
        followed.look()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "line 1" in caplog.text
    assert "secret" not in caplog.text
    assert followed.tokens.owner(TOKEN) == (True, None)
    file.unlink()
    followed.look()
    assert followed.tokens.owner(OTHER) == (True, "ci")
    file.write_text("# all revoked\n")
    followed.look()
    assert followed.tokens.owner(TOKEN) == (False, None)


def test_a_file_that_others_can_read(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A token file that others than its owner can read is used, with a warning."""
    TokenFile(file)
    assert caplog.records == []
    file.chmod(0o640)
    TokenFile(file)
    assert "chmod 600" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "holds no token"), ("# none\n", "holds no token"), ("a b\n", "line 1"), ("x: y: z\n", "line 1")],
)
async def test_a_file_that_cannot_be_used(registry: Registry, file: Path, text: str, says: str) -> None:
    """A gateway does not start with a token file that is empty or holds something else."""
    file.write_text(text)
    with pytest.raises(InvalidSettings, match=says):
        async with guarded(registry=registry, file=file):
            raise AssertionError
    file.unlink()
    with pytest.raises(InvalidSettings, match="cannot read the token file"):
        async with guarded(registry=registry, file=file):
            raise AssertionError


async def test_an_admin_port_for_everybody_wants_tokens(registry: Registry, file: Path) -> None:
    """A gateway refuses to open its admin port beyond loopback without a token file, and does it with one."""
    with pytest.raises(InvalidSettings, match=r"open to everybody on 0\.0\.0\.0.*admin_tokens_file"):
        async with running(registry=registry, admin_host="0.0.0.0"):
            raise AssertionError
    async with running(registry=registry, admin_host="0.0.0.0", admin_tokens_file=file) as gateway:
        port = gateway.addresses.admin.rpartition(":")[2]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/pods")).status_code == 401
            assert (await client.get("/pods", headers=with_token(TOKEN))).status_code == 200


async def test_no_token_is_logged(registry: Registry, file: Path) -> None:
    """Access log lines hold neither the token that was sent nor those of the file."""
    from marway.settings import load_settings
    from marway_gateway.app import create_app
    from marway_gateway.settings import GatewaySettings

    log = io.StringIO()
    settings = load_settings(GatewaySettings, registry=registry.url, predict_tokens_file=file)
    async with open_gateway(settings, log_stream=log) as gateway:
        transport = httpx.ASGITransport(create_app(settings, gateway=gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for token in (TOKEN, "guessed-token"):
                await client.get("/models", headers=with_token(token))
    assert log.getvalue().count('"path":') == 2
    assert "token" not in log.getvalue()


def test_forms_of_tokens() -> None:
    """Tokens are told from comments and names; a header's token is found whatever the case of its scheme."""
    tokens = parse_tokens(f"ci:{TOKEN}#x\n", source="file")
    assert (len(tokens), tokens.owner(TOKEN)) == (1, (True, "ci"))
    assert first_token(f"# me\n ana : {OTHER}\n{TOKEN}\n", source="file") == OTHER
    assert bearer(f"bEARER  {TOKEN} ") == TOKEN
    assert [bearer(each) for each in (None, "", "Bearer", "Bearer a b", "Basic abc")] == [None] * 5
    assert os.environ.get("MARWAY_TOKEN") is None


async def test_the_pod_is_told_who_asks(registry: Registry, file: Path, make_pod: MakePod) -> None:
    """A token's name, or the address where it has none, tells pods whose requests take turns, over gRPC as well."""
    pod = await make_pod()
    async with guarded(pod, registry=registry, file=file) as gateway:
        for token in (OTHER, TOKEN):
            assert (await gateway.client.post("/predict/intent", content=b"x", headers=with_token(token))).is_success
        async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            request = prediction_pb2.PredictRequest(runId="intent", document="x")
            await stub.Predict(request, metadata=(("authorization", f"Bearer {OTHER}"),))
    assert [each.headers["x-marway-client"] for each in pod.requests] == ["ci", "127.0.0.1", "ci"]
