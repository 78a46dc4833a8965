"""TorchServe's REST inference API on the gateway."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, broken_model, busy, running
from marway.registry import Registry
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, model_id="run-7")


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("path", ["/predictions/intent", "/predictions/intent/1.0", "/predictions/intent/PROD"])
async def test_prediction(registry: Registry, make_pod: MakePod, method: str, path: str) -> None:
    """POST and PUT reach the version, and the model's answer comes back as it is."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        headers = {"content-type": "application/x-any"}
        answer = await gateway.client.request(method, path, content=b"\x00hello", headers=headers)
        counted = await gateway.metric(
            'marway_gateway_request_duration_seconds_count{model="intent",outcome="ok",surface="torchserve",version="1.0"}'
        )
    assert (answer.status_code, answer.content) == (200, b"\x00hello")
    assert answer.headers["content-type"] == "application/x-any"
    assert pod.requests[0].path == "/predict/intent/1.0"
    assert counted == 1


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("path", ["/explanations/intent", "/explanations/intent/1.0", "/explanations/intent/PROD"])
async def test_explanation(registry: Registry, make_pod: MakePod, method: str, path: str) -> None:
    """An explanation is a prediction that asks the pod to explain, which no header of a caller's does."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        asked = {"x-marway-explain": "1", "explain": "True"}
        explained = await gateway.client.request(method, path, content=b"x")
        await gateway.client.request(method, path.replace("explanations", "predictions"), headers=asked, content=b"x")
        missing = await gateway.client.request(method, "/explanations/itent", content=b"x")
    assert explained.status_code == 200
    assert [seen.path for seen in pod.requests] == ["/predict/intent/1.0"] * 2
    assert [seen.headers.get("x-marway-explain") for seen in pod.requests] == ["1", None]
    assert "explain" not in pod.requests[1].headers
    assert (missing.status_code, missing.json()["type"]) == (404, "ModelNotFoundException")


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "named"),
    [
        ("/predictions/itent", b"x", 404, "ModelNotFoundException", "intent"),
        ("/predictions/intent/9", b"x", 404, "ModelVersionNotFoundException", "1.0"),
        ("/predictions/intent/STG", b"x", 404, "ModelVersionNotFoundException", "PROD"),
        ("/predictions/in%20tent", b"x", 400, "BadRequestException", "in tent"),
        ("/predictions/intent", b"", 400, "BadRequestException", "no body"),
        ("/predictions/intent", b"x" * 2000, 413, "RequestEntityTooLargeException", "2000"),
    ],
)
async def test_wrong_requests(
    registry: Registry, make_pod: MakePod, path: str, body: bytes, status: int, kind: str, named: str
) -> None:
    """A wrong request is answered in TorchServe's form, with the exception's name and what to do."""
    async with running(await make_pod(), registry=registry, max_body_bytes=1000) as gateway:
        refused = await gateway.client.post(path, content=body)
    assert refused.headers["content-type"] == "application/json"
    document = refused.json()
    assert set(document) == {"code", "type", "message"}
    assert (refused.status_code, document["code"], document["type"]) == (status, status, kind)
    assert named in document["message"]


async def test_failures(registry: Registry, make_pod: MakePod) -> None:
    """What a model or a pod fails with keeps its status and Retry-After, in TorchServe's form."""
    pod = await make_pod(behave=broken_model)
    async with running(pod, registry=registry) as gateway:
        failed = await gateway.client.post("/predictions/intent", content=b"x")
        pod.behave = busy
        full = await gateway.client.post("/predictions/intent", content=b"x")
    assert (failed.status_code, failed.json()) == (
        422,
        {"code": 422, "type": "InternalServerException", "message": "KeyError: 'text'"},
    )
    assert full.status_code in (429, 503)
    assert full.json()["type"] == "ServiceUnavailableException"
    assert full.headers["retry-after"] == "7"


async def test_ping(registry: Registry, make_pod: MakePod) -> None:
    """`/ping` says Healthy while the gateway can serve and Unhealthy, with 500, while it cannot."""
    pod = await make_pod(ready=False)
    async with running(pod, registry=registry, health_interval_s=0.25) as gateway:
        sick = await gateway.client.get("/ping")
        assert (sick.status_code, sick.json()) == (500, {"status": "Unhealthy"})
        pod.ready = True
        while (well := await gateway.client.get("/ping")).status_code != 200:
            pass
    assert well.json() == {"status": "Healthy"}
