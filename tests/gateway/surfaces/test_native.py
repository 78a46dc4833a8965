import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from gateway.fakes import FakePod, hang_up, running
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from marway_gateway.predict.pipeline import Predictor
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, model_id="run-7")


@pytest.mark.parametrize("path", ["/predict/intent", "/predict/intent/PROD", "/predict/intent/1.0", "/predict/run-7"])
async def test_answer(registry: Registry, make_pod: MakePod, path: str) -> None:
    """A name, a label, a version and an id all reach the version, whose body and content type come back."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        answer = await gateway.predict(path, b"\x00hello", content_type="application/x-any")
    assert (answer.status_code, answer.content) == (200, b"\x00hello")
    assert answer.headers["content-type"] == "application/x-any"
    assert answer.headers["x-model-name"] == "intent"
    assert answer.headers["x-model-version"] == "1.0"
    assert answer.headers["x-model-id"] == "run-7"
    assert pod.requests[0].path == "/predict/intent/1.0"


async def test_server_timing(registry: Registry, make_pod: MakePod) -> None:
    """An answer says in milliseconds what resolving, the pod and all of it took."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        timing = (await gateway.predict()).headers["server-timing"]
    parts = re.fullmatch(r"resolve;dur=([\d.]+), pod;dur=([\d.]+), total;dur=([\d.]+)", timing)
    assert parts is not None
    resolve, pod_ms, total = map(float, parts.groups())
    assert resolve + pod_ms <= total


async def test_request_ids(registry: Registry, make_pod: MakePod) -> None:
    """The caller's ids come back and reach the pod."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        answer = await gateway.predict(x_request_id="req/1:a", x_request_group_id="group-9")
        missing = await gateway.client.get("/nowhere", headers={"x-request-id": "req-2"})
    assert answer.headers["x-request-id"] == pod.requests[0].headers["x-request-id"] == "req/1:a"
    assert answer.headers["x-request-group-id"] == pod.requests[0].headers["x-request-group-id"] == "group-9"
    assert "x-marway-client" not in pod.requests[0].headers
    assert missing.headers["x-request-id"] == missing.json()["request_id"] == "req-2"


@pytest.mark.parametrize("given", [None, "two words", 'quo"te', "x" * 129, ""])
async def test_request_id_is_made(registry: Registry, make_pod: MakePod, given: str | None) -> None:
    """A request without an id, or with one that is not safe to log, gets a new one; a bad group id is dropped."""
    pod = await make_pod()
    headers = {} if given is None else {"x-request-id": given, "x-request-group-id": given}
    async with running(pod, registry=registry) as gateway:
        answer = await gateway.predict(**headers)
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert pod.requests[0].headers["x-request-id"] == answer.headers["x-request-id"]
    assert "x-request-group-id" not in answer.headers
    assert "x-request-group-id" not in pod.requests[0].headers


async def test_headers_to_the_pod(registry: Registry, make_pod: MakePod) -> None:
    """A caller's headers reach the pod, but credentials, the connection's, and those by which Marway's parts talk."""
    pod = await make_pod()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with running(pod, registry=registry) as gateway:
        await gateway.predict(
            content_type="text/plain",
            content_encoding="identity",
            accept="application/json",
            traceparent=trace,
            tracestate="vendor=1",
            authorization="Bearer secret",
            proxy_authorization="Basic secret",
            cookie="a=b",
            origin="https://shop.example",
            connection="x-private",
            x_private="of this connection",
            te="trailers",
            explain="True",
            x_customer_key="blue",
            user_agent="theirs/1",
            x_marway_outcome="answered",
            x_marway_client="somebody-else",
            x_anything="/token",
        )
    sent = pod.requests[0].headers
    assert set(sent) == {
        *("host", "content-type", "content-length", "accept", "traceparent", "tracestate"),
        *("x-request-id", "x-request-timeout-ms", "x-marway-client"),
        *("x-customer-key", "x-anything", "user-agent", "accept-encoding"),
    }
    assert sent["x-customer-key"] == "blue"
    assert sent["x-marway-client"] == "127.0.0.1"
    assert sent["traceparent"] == trace
    assert (sent["content-type"], sent["accept"]) == ("text/plain", "application/json")


@pytest.mark.parametrize(("number", "size", "fewer"), [(62, 1, 55), (5, 4000, 4)], ids=["many", "large"])
async def test_fault_headers_without_end(
    registry: Registry, make_pod: MakePod, number: int, size: int, fewer: int
) -> None:
    """More headers than a pod takes are that request's fault; a few less reach the handler, over frames and HTTP."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        many = {f"x-h{index}": "v" * size for index in range(number)}
        refused = await gateway.client.post("/predict/intent", content=b"x", headers=many)
        few = dict(list(many.items())[:fewer])
        taken = await gateway.client.post("/predict/intent", content=b"x", headers=few)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert "passed on" in refused.json()["detail"]
    assert taken.status_code == 200
    assert few.items() <= pod.requests[0].headers.items()


async def test_broken_trace_context(registry: Registry, make_pod: MakePod) -> None:
    """A traceparent that is none is not passed on, and no tracestate without one."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        await gateway.predict(traceparent="00-xyz", tracestate="vendor=1")
    assert not {"traceparent", "tracestate"} & set(pod.requests[0].headers)


async def test_headers_to_the_client(registry: Registry, make_pod: MakePod) -> None:
    """The model's headers come back, but not those of the connection, of the wire contract or those that are ours."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        answer = web.Response(body=b"{}", status=207, headers={OUTCOME: Outcome.ANSWERED, "x-handler": "yes"})
        answer.headers.add("set-cookie", "a=1")
        answer.headers.add("set-cookie", "b=2")
        answer.headers["connection"] = "keep-alive, x-private"
        answer.headers["x-private"] = "no"
        answer.headers["x-marway-later"] = "no"
        answer.headers["x-request-id"] = "the pod's"
        answer.headers["server"] = "pod"
        return answer

    pod = await make_pod(behave=behave)
    async with running(pod, registry=registry) as gateway:
        answer = await gateway.predict(x_request_id="mine")
    assert answer.status_code == 207
    assert answer.headers["x-handler"] == "yes"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert answer.headers.get_list("content-length") == ["2"]
    assert len(answer.headers.get_list("date")) == 1
    assert not {"x-private", "x-marway-later", "x-marway-outcome", "server", "connection"} & set(answer.headers)


@pytest.mark.parametrize("status", [204, 302, 404, 503])
async def test_status_of_the_model(registry: Registry, make_pod: MakePod, status: int) -> None:
    """The status that a model chose comes back as it is, and is not taken for trouble of the pod."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        body = None if status == 204 else b"model's words"
        return web.Response(body=body, status=status, headers={OUTCOME: Outcome.ANSWERED, "location": "/elsewhere"})

    pods = [await make_pod("a", behave=behave), await make_pod("b", behave=behave)]
    async with running(*pods, registry=registry) as gateway:
        answer = await gateway.predict()
    assert answer.status_code == status
    assert answer.content == (b"" if status == 204 else b"model's words")
    assert len(pods[0].requests) + len(pods[1].requests) == 1


@pytest.mark.parametrize("given", ["0", "-5", "soon", "1.5", "1e3", "٣", "9" * 20, ""])
async def test_bad_deadline(registry: Registry, make_pod: MakePod, given: str) -> None:
    """A deadline that is no positive whole number of milliseconds is a 400 that says so, and no pod is asked."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        headers = {b"x-request-timeout-ms": given.encode()}
        refused = await gateway.client.post("/predict/intent", content=b"x", headers=headers)
    assert refused.status_code == 400
    assert refused.json()["code"] == "invalid_request"
    assert "X-Request-Timeout-Ms" in refused.json()["detail"]
    assert not pod.requests


async def test_default_and_longest_deadline(registry: Registry, make_pod: MakePod) -> None:
    """Without a deadline the default holds, and one that is too long is cut to the longest."""
    pod = await make_pod()
    async with running(pod, registry=registry, default_timeout_s=7, max_timeout_s=9) as gateway:
        await gateway.predict()
        await gateway.predict(x_request_timeout_ms="100000")
    left = [int(seen.headers["x-request-timeout-ms"]) for seen in pod.requests]
    assert 6000 < left[0] <= 7000
    assert 8000 < left[1] <= 9000


@pytest.mark.parametrize(
    ("path", "status", "code", "says"),
    [
        ("/predict/nix", 404, "model_not_found", "the registry has intent"),
        ("/predict/intent/9.9", 404, "version_not_found", "it has 1.0"),
        ("/predict/intent/STG", 404, "label_not_found", "its labels are PROD → 1.0"),
        ("/predict/run-7/PROD", 404, "version_not_found", "leave 'PROD' away"),
        ("/predict/in%20tent", 400, "invalid_reference", "cannot be a model id"),
        ("/predict/intent/a%20b", 400, "invalid_reference", "cannot be a version"),
        ("/predict/intent/1.0/more", 404, "not_found", "nothing at POST"),
        ("/predict/intent/", 404, "not_found", "nothing at POST"),
        ("/predict", 404, "not_found", "nothing at POST"),
    ],
)
async def test_wrong_references(
    registry: Registry, make_pod: MakePod, path: str, status: int, code: str, says: str
) -> None:
    """Each wrong reference is a problem document with its own code, naming what there is, and no pod is asked."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        refused = await gateway.predict(path)
    assert refused.status_code == status
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert (problem["code"], problem["status"]) == (code, status)
    assert says in problem["detail"]
    assert problem["request_id"] == refused.headers["x-request-id"]
    assert not pod.requests


async def test_wrong_methods(registry: Registry) -> None:
    """A route asked with another method is a 405 problem that names the right one."""
    async with running(registry=registry) as gateway:
        refused = await gateway.client.get("/predict/intent")
        deleted = await gateway.client.delete("/models")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert refused.json()["code"] == "method_not_allowed"
    assert (deleted.status_code, deleted.headers["allow"]) == (405, "GET, HEAD")


async def test_unexpected_error(registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """A bug becomes a 500 problem that names the request, and its traceback goes to the log."""

    async def bug(self: Predictor, call: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Predictor, "predict", bug)
    async with running(registry=registry) as gateway:
        broken = await gateway.predict(x_request_id="req-3")
        assert (await gateway.client.get("/healthz")).status_code == 200
    assert broken.status_code == 500
    assert broken.json()["code"] == "internal"
    assert "req-3" in broken.json()["detail"]
    assert "a bug" not in broken.text
    assert "ZeroDivisionError: a bug" in caplog.text


async def test_label_move(registry: Registry, tmp_path: Path, make_pod: MakePod) -> None:
    """After a label moved, requests reach the new version within two seconds, with no failure in between."""
    pod = await make_pod()
    async with running(pod, registry=registry, state_ttl_s=0.3) as gateway:
        assert (await gateway.predict()).headers["x-model-version"] == "1.0"
        publish(registry, tmp_path, version="1.1")
        for _ in range(1000):
            answer = await gateway.predict()
            assert answer.status_code == 200
            if answer.headers["x-model-version"] == "1.1":
                break
        assert answer.headers["x-model-version"] == "1.1"


async def test_only_pod_lost(registry: Registry, make_pod: MakePod) -> None:
    """When the only pod closes the connection, the caller gets a 503 problem, not a broken answer."""
    pod = await make_pod(behave=hang_up)
    async with running(pod, registry=registry) as gateway:
        lost = await gateway.predict()
    assert lost.status_code == 503
    assert "pod a closed the connection before it had answered" in lost.json()["detail"]
    assert len(pod.requests) == 1


@pytest.mark.parametrize("path", ["/predict/intent", "/predictions/intent"])
@pytest.mark.parametrize("kind", ["application/vnd.marway.rows", "Application/VND.marway.Rows; v=1"])
async def test_the_gateways_own_content_type(registry: Registry, make_pod: MakePod, path: str, kind: str) -> None:
    """The content type by which gateways send rows to pods is refused from callers, before a pod is asked."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        answer = await gateway.predict(path, b"MWE1\0\0\0\2[]", content_type=kind)
    assert (answer.status_code, "kept for Marway" in answer.text) == (400, True)
    assert not pod.requests
