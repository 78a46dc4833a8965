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
        ("/invocations", b"x", 400, "BadRequestException", "model_name"),
        ("/models/itent/invoke", b"x", 404, "ModelNotFoundException", "intent"),
        ("/predictions", b"x", 404, "ResourceNotFoundException", "/predictions"),
        ("/predictions//", b"x", 404, "ResourceNotFoundException", "/predictions"),
        ("/workflows/x", b"x", 404, "ResourceNotFoundException", "/workflows"),
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


@pytest.mark.parametrize(
    ("method", "path", "asked", "url_path"),
    [
        ("POST", "/predictions/intent/", "1.0", None),
        ("POST", "/predictions/intent/PROD/", "1.0", None),
        ("GET", "/predictions/intent", "1.0", None),
        ("POST", "/predictions/intent/1.0/a%20b/%C3%BC/", "1.0", "a%20b/%C3%BC"),
        ("PUT", "/explanations/intent/1.0/x", "1.0", "x"),
        ("POST", "/models/intent/invoke", "1.0", None),
        ("POST", "/models/intent/invoke/", "1.0", None),
        ("POST", "/invocations?model_name=intent", "1.0", None),
    ],
)
async def test_other_paths(
    registry: Registry, make_pod: MakePod, method: str, path: str, asked: str, url_path: str | None
) -> None:
    """Whatever path TorchServe predicts by does so here; what stands behind the version reaches the pod."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        content = None if method == "GET" else b"x"
        answer = await gateway.client.request(method, path, content=content)
    assert (answer.status_code, answer.content) == (200, content or b"")
    assert pod.requests[0].path == f"/predict/intent/{asked}"
    assert pod.requests[0].headers.get("x-marway-url-path") == url_path
    assert pod.requests[0].headers.get("x-marway-explain") == ("1" if "explanations" in path else None)


async def test_an_empty_body_is_a_body(registry: Registry, make_pod: MakePod) -> None:
    """TorchServe's clients may send nothing, which the pod is told is meant so; a native request may not."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        empty = await gateway.client.post("/predictions/intent", content=b"")
        native = await gateway.client.post("/predict/intent", content=b"", headers={"x-marway-nothing": "1"})
    assert (empty.status_code, pod.requests[0].headers["x-marway-nothing"]) == (200, "1")
    assert (native.status_code, len(pod.requests)) == (400, 1)


async def test_a_path_behind_the_version_is_bounded(registry: Registry, make_pod: MakePod) -> None:
    """A path that would not fit into what a pod takes is refused."""
    async with running(await make_pod(), registry=registry) as gateway:
        answer = await gateway.client.post("/predictions/intent/1.0/" + "a" * 9000, content=b"x")
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PATCH", "/predictions/intent", "GET, HEAD, POST, PUT"), ("DELETE", "/invocations", "GET, HEAD, POST, PUT")],
)
async def test_methods_that_there_are_not(registry: Registry, method: str, path: str, allowed: str) -> None:
    """Another method is answered with TorchServe's exception, and with all methods that the path takes."""
    async with running(registry=registry) as gateway:
        answer = await gateway.client.request(method, path, content=b"x")
    assert (answer.status_code, answer.json()["type"]) == (405, "MethodNotAllowedException")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(("method", "path"), [("OPTIONS", "/"), ("GET", "/api-description")])
async def test_the_api_describes_itself(registry: Registry, method: str, path: str) -> None:
    """Where TorchServe has the description of its API stands this gateway's."""
    async with running(registry=registry) as gateway:
        answer = await gateway.client.request(method, path)
    assert answer.status_code == 200
    assert "/predictions/{model}" in answer.json()["paths"]


@pytest.mark.parametrize("port", ["client", "admin"])
@pytest.mark.parametrize(
    ("method", "path", "verb", "allowed"),
    [
        ("POST", "/models?url=intent.mar&initial_workers=1", "marway publish", "GET, HEAD"),
        ("PUT", "/models/intent?min_worker=2", "marway serving", "GET, HEAD"),
        ("PUT", "/models/intent/1.0?min_worker=2", "marway serving", ""),
        ("PUT", "/models/intent/1.0/set-default", "marway release", ""),
        ("DELETE", "/models/intent", "marway delete", "GET, HEAD"),
        ("DELETE", "/models/intent/1.0", "marway delete", ""),
        ("GET", "/models/intent/1.0", "marway show", ""),
    ],
)
async def test_management_says_which_verb_does_it(
    registry: Registry, port: str, method: str, path: str, verb: str, allowed: str
) -> None:
    """Calls of TorchServe's management API have its form of error, and the verb in it; Marway's own routes stay."""
    async with running(registry=registry) as gateway:
        client = getattr(gateway, port)
        refused = await client.request(method, path)
        own = await client.get("/models/intent")
    assert refused.status_code == 405
    assert refused.headers["allow"] == allowed
    document = refused.json()
    assert (document["code"], document["type"]) == (405, "MethodNotAllowedException")
    assert f"`{verb}" in document["message"]
    assert own.json()["name"] == "intent"


async def test_a_handler_describes_its_model(registry: Registry, make_pod: MakePod) -> None:
    """`?customized=true` asks the pod, which no header of a caller's does, and answers in TorchServe's form."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        asked = {"x-marway-describe": "1", "describe": "True"}
        described = await gateway.client.get("/models/intent/1.0?customized=true", headers={"x-tenant": "blue"})
        await gateway.client.post("/predictions/intent", content=b"x", headers=asked)
        refused = await gateway.client.get("/models/intent/1.0?customized=false")
        unknown = await gateway.client.get("/models/itent/1.0?customized=true")
    assert described.status_code == 200
    ((document,),) = [described.json()]
    assert (document["modelName"], document["modelVersion"]) == ("intent", "1.0")
    assert "customizedMetadata" in document
    assert [seen.headers.get("x-marway-describe") for seen in pod.requests] == ["1", None]
    assert pod.requests[0].headers["x-tenant"] == "blue"
    assert "describe" not in pod.requests[1].headers
    assert refused.status_code == 405
    assert (unknown.status_code, unknown.json()["type"]) == (404, "ModelNotFoundException")


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
