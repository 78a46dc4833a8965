"""Predictions that are begun and answered without a task: they are, and nobody can tell from those that have one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from starlette.types import Receive, Scope, Send

from gateway.fakes import FakePod, Running, answer, broken_model, busy, down, fail, hang, hang_up, running, too_late
from gateway.handlers import answered, handling
from marway.errors import InvalidInput, Unavailable
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.headers import OUTCOME, Outcome
from marway_gateway.http.requests import FastPathApp
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_gateway.placement import score
from marway_gateway.predict.call import Answer, PredictCall
from marway_gateway.predict.cancel_scope import CancelScope
from marway_gateway.predict.pipeline import Predictor
from marway_gateway.surfaces import native
from marway_gateway.transport import Upstream
from marway_http.channel import header_block
from marway_http.eager import in_task
from marway_http.http1 import connection as http_connection
from marway_http.http1.connection import HttpConnection
from marway_http.http1.request import Request
from support.registry import publish, until

TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["hello"]}
MakePod = Callable[..., Awaitable[FakePod]]
VARYING = {"date", "server-timing", "x-prediction-id"}
UNLIKE = {"time", "duration_ms", "resolve_ms", "pod_ms", "prediction_id"}
"""What a log line says of times."""


@dataclass
class Way:
    """How predictions ended: in a task, or without one; and how many answers went out in one write."""

    without_task: int = 0
    in_tasks: int = 0
    written: int = 0

    def clear(self) -> None:
        self.without_task = self.in_tasks = self.written = 0


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Way:
    """Counts which way predictions take."""
    seen = Way()
    predict, write = Predictor.predict, Request.answer

    async def counted_predict(self: Predictor, call: PredictCall) -> Answer:
        try:
            return await predict(self, call)
        finally:
            if asyncio.current_task() is None:
                seen.without_task += 1
            else:
                seen.in_tasks += 1

    async def counted_write(self: Request, *args: Any, **kwargs: Any) -> None:
        await write(self, *args, **kwargs)
        seen.written += 1

    monkeypatch.setattr(Predictor, "predict", counted_predict)
    monkeypatch.setattr(Request, "answer", counted_write)
    return seen


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)
    publish(registry, tmp_path, "cached", serving=ServingSettings(cache=True))


class Client:
    """One connection, over which requests go out in one write each."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, *requests: bytes) -> None:
        self._writer.write(b"".join(requests))

    async def receive(self) -> tuple[int, dict[str, str], bytes]:
        """Return the next answer: status, headers, body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        code = int(status.split()[1])
        if code == 100:
            return await self.receive()
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b""
            while size := int(await self._reader.readline(), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readline()
        else:
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return code, headers, body

    async def ask(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, str], bytes]:
        self.send(post(*args, **kwargs))
        return await self.receive()

    async def ended(self) -> bool:
        """Wait until nothing more comes; return whether nothing more came."""
        return await self._reader.read() == b""

    def leave(self) -> None:
        self._writer.close()


def post(
    path: str = "/predict/intent",
    body: bytes = b"hello",
    headers: Mapping[str, str] | None = None,
    *,
    version: str = "1.1",
) -> bytes:
    """Return a whole request."""
    sent = {"host": "x", "content-length": str(len(body)), **(headers or {})}
    lines = [f"POST {path} HTTP/{version}", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def client_of(gateway: Running) -> Any:
    parts = urlsplit(gateway.addresses.gateway)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    client = Client(reader, writer)
    try:
        async with asyncio.timeout(20):
            yield client
    finally:
        client.leave()


@asynccontextmanager
async def warm(*pods: FakePod, registry: Registry, **flags: Any) -> Any:
    """A gateway that knows its models and has a connection to each pod, and a client of it."""
    headers = flags.pop("headers", {})
    async with (
        running(*pods, registry=registry, health_interval_s=60, **flags) as gateway,
        client_of(gateway) as client,
    ):
        await until(lambda: all(pod.polls for pod in pods))
        behaviours = [pod.behave for pod in pods]
        for pod in pods:  # each is the only one that takes a request once
            for other in pods:
                other.behave = answer if other is pod else busy
            assert (await client.ask(headers=headers))[0] == 200
        for path in ("/predict/intent/1.0", "/predict/intent/PROD", "/predict/cached"):
            for pod in pods:
                pod.behave = answer
            assert (await client.ask(path, b"warm", headers=headers))[0] == 200
        for pod, behaviour in zip(pods, behaviours, strict=True):
            pod.behave = behaviour
            pod.requests.clear()
        yield gateway, client


async def in_order(make_pod: MakePod, count: int) -> list[FakePod]:
    """Start pods and return them in the order in which intent 1.0 asks them."""
    pods = [await make_pod(f"pod-{number}") for number in range(count)]
    return sorted(pods, key=lambda pod: score(pod.name, "intent", "1.0"), reverse=True)


# -- which way requests take -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/predict/intent", "/predict/intent/1.0", "/predict/intent/PROD?x=1", "/predictions/intent"),
        *("/v1/models/intent:predict", "/v1/models/intent/labels/PROD:predict"),
        *("/v2/models/intent/infer", "/v2/models/intent/versions/1.0/infer"),
    ],
)
async def test_ordinary_predictions_need_no_task(registry: Registry, make_pod: MakePod, way: Way, path: str) -> None:
    """A small prediction that a pod answers is begun and answered without a task on every surface, time after time."""
    pod = await make_pod()
    async with warm(pod, registry=registry) as (_, client):
        body = b"hello"
        if path.startswith("/v"):
            pod.behave = handling(lambda row: answered("yes"))
            body = json.dumps({"instances": ["hello"], "inputs": [TENSOR]}).encode()
            if path.startswith("/v1"):
                body = b'{"instances": ["hello"]}'
        way.clear()
        for _ in range(20):
            status, headers, said = await client.ask(path, body)
            assert (status, headers["x-model-version"]) == (200, "1.0"), said
        assert (way.without_task, way.in_tasks, way.written) == (20, 0, 20)
    assert len(pod.requests) == 20


@pytest.mark.parametrize(
    ("sent", "status", "in_task"),
    [
        (post(headers={"x-request-timeout-ms": "300"}), 200, False),
        (post(headers={"expect": "100-continue"}), 200, False),
        (post(body=b"x" * 60_000), 200, False),
        (post("/predict/cached"), 200, False),
        (post(body=b""), 400, False),
        (post("/predict/nobody"), 404, True),
        (post("/predict/in%20valid"), 400, True),
        (post("/predictions/intent/", headers={"connection": "close"}), 200, True),
    ],
)
async def test_who_gets_a_task(
    registry: Registry, make_pod: MakePod, way: Way, sent: bytes, status: int, in_task: bool
) -> None:
    """What has to wait for a look-up, or is found by FastAPI's router, gets a task; all else needs none."""
    pod = await make_pod()
    async with warm(pod, registry=registry) as (gateway, client):
        way.clear()
        client.send(sent)
        assert (await client.receive())[0] == status
        assert (way.without_task, way.in_tasks) == ((0, 1) if in_task else (1, 0))
        assert await gateway.metric("marway_gateway_requests_in_flight") == 0


async def test_a_first_connection_takes_a_task(registry: Registry, make_pod: MakePod, way: Way) -> None:
    """With no free connection to the pod a request opens one in a task, and takes its version's place once."""
    pod = await make_pod(behave=hang)
    async with warm(pod, registry=registry, max_requests_per_version=2) as (gateway, client):
        way.clear()
        async with client_of(gateway) as other, client_of(gateway) as third:
            client.send(post())
            await until(lambda: len(pod.requests) == 1)
            pod.behave = answer
            assert (await other.ask())[2] == b"hello"
            assert (way.without_task, way.in_tasks) == (0, 1)
            assert (await third.ask())[2] == b"hello"
            assert (way.without_task, way.in_tasks) == (1, 1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What clients' connections have read, a piece each."""
    seen: list[bytes] = []
    receive = HttpConnection.data_received

    def seen_received(self: HttpConnection, data: bytes) -> None:
        receive(self, data)
        seen.append(data)

    monkeypatch.setattr(HttpConnection, "data_received", seen_received)
    return seen


async def in_parts(client: Client, reads: list[bytes], *parts: bytes) -> None:
    """Send parts, each once the one before was read."""
    for part in parts:
        before = len(reads)
        client.send(part)
        await until(lambda before=before: len(reads) > before)  # type: ignore[misc]  # mypy sees no default


async def test_a_small_body_behind_its_head(
    registry: Registry, make_pod: MakePod, way: Way, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head and body written apart, as Python's clients do, need no task either, however they are cut."""
    monkeypatch.setattr(http_connection, "_PATIENCE_S", 30)
    pod = await make_pod()
    async with warm(pod, registry=registry) as (_, client):
        way.clear()
        head, body = post().split(b"\r\n\r\n")
        await in_parts(client, reads, head[:20], head[20:] + b"\r\n\r\n", body[:2])
        assert pod.requests == []
        client.send(body[2:] + post(body=b"next"))  # and a request behind it
        assert (await client.receive())[2] == b"hello"
        assert (await client.receive())[2] == b"next"
        assert (way.without_task, way.in_tasks, way.written) == (2, 0, 2)


async def test_a_body_that_is_late(
    registry: Registry, make_pod: MakePod, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose body does not follow at once is begun without it and answered all the same, as is a large one."""
    monkeypatch.setattr(http_connection, "_PATIENCE_S", 0.01)
    started = 0
    start = Request.start

    def counted_start(self: Request, *args: Any) -> None:
        nonlocal started
        started += 1
        start(self, *args)

    pod = await make_pod()
    async with warm(pod, registry=registry) as (_, client):
        monkeypatch.setattr(Request, "start", counted_start)
        head, body = post().split(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        await until(lambda: started == 1)
        client.send(body)
        assert (await client.receive())[2] == b"hello"
        monkeypatch.setattr(http_connection, "_PATIENCE_S", 30)
        head, body = post(body=b"x" * 300_000).split(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        await until(lambda: started == 2)
        client.send(body)
        assert (await client.receive())[2] == body


async def test_a_client_that_leaves_between_head_and_body(
    registry: Registry, make_pod: MakePod, way: Way, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported once, as cancelled, and no pod is asked."""
    monkeypatch.setattr(http_connection, "_PATIENCE_S", 30)
    reported: list[str] = []
    finish = Telemetry.finish

    def seen_finish(self: Telemetry, info: RequestInfo) -> None:
        reported.append(info.outcome)
        finish(self, info)

    pod = await make_pod()
    async with warm(pod, registry=registry) as (gateway, client):
        monkeypatch.setattr(Telemetry, "finish", seen_finish)
        await in_parts(client, reads, post()[:-5])
        assert reported == []
        client.leave()
        await until(lambda: reported)
        assert (reported, pod.requests) == (["cancelled"], [])
        assert await gateway.metric("marway_gateway_requests_in_flight") == 0


# -- both ways alike -------------------------------------------------------------------------------------------


async def in_pieces(pod: FakePod, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={OUTCOME: Outcome.ANSWERED, "content-type": "text/plain"})
    await response.prepare(request)
    for piece in (b"one ", b"two"):
        await response.write(piece)
    return response


def saying(status: int = 200, **headers: str) -> Callable[[FakePod, web.Request], Awaitable[web.StreamResponse]]:
    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=b"" if status == 204 else b"said", headers=sent)

    return behave


ANSWERED = {OUTCOME.replace("-", "_"): Outcome.ANSWERED}
worker_died = fail(Unavailable("the worker died during the call"), Outcome.WORKER_DIED)
IDS = {"x-request-id": "the-same"}
QUIET = {
    "plain": post(headers=IDS),
    "by version": post("/predict/intent/1.0", headers=IDS),
    "by label": post("/predict/intent/PROD", headers=IDS),
    "torchserve": post("/predictions/intent", headers=IDS),
    "explain": post("/explanations/intent", headers=IDS),
    "query": post("/predict/intent?a=b", headers=IDS),
    "quoted": post("/predict/%69ntent", headers=IDS),
    "group": post(headers={**IDS, "x-request-group-id": "g", "accept": "text/plain", "content-type": "text/x"}),
    "trace": post(headers={**IDS, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "a=b"}),
    "bad trace": post(headers={**IDS, "traceparent": "00-nonsense"}),
    "timeout": post(headers={**IDS, "x-request-timeout-ms": "5000"}),
    "bad timeout": post(headers={**IDS, "x-request-timeout-ms": "soon"}),
    "http 1.0": post(headers=IDS, version="1.0"),
    "close": post(headers={**IDS, "connection": "close"}),
    "expect": post(headers={**IDS, "expect": "100-continue"}),
    "no model": post("/predict/nobody", headers=IDS),
    "no version": post("/predict/intent/7.0", headers=IDS),
    "no reference": post("/predict/in%20valid", headers=IDS),
    "no route": post("/predict/intent/1.0/more", headers=IDS),
    "no body": post(body=b"", headers=IDS),
    "too large": post(body=b"x" * 3000, headers=IDS),
    "cached": post("/predict/cached", headers=IDS),
    "ours": post(headers={**IDS, "content-type": "application/vnd.marway.rows"}),
    "no token": post(headers={**IDS, "authorization": ""}),
}
ONE_POD = {
    "another status": saying(422, **ANSWERED, content_type="text/x"),
    "no content": saying(204, **ANSWERED),
    "own headers": saying(200, **ANSWERED, x_model="7", x_marway_secret="1", server="it", keep_alive="1"),
    "an error of the model": broken_model,
    "refused": fail(InvalidInput("no text in it"), Outcome.REFUSED),
    "not accepted": busy,
    "no sidecar": saying(200),
    "in pieces": in_pieces,
    "closing": saying(200, **ANSWERED, connection="close"),
    "lost": hang_up,
    "late": hang,
}
RETRIED = {"lost", "no sidecar"}
"""What a retry follows, which waits in a task."""
TWO_PODS = {"not accepted": busy, "lost": hang_up, "down": down, "worker died": worker_died, "no sidecar": saying(502)}


async def outcomes_of(
    requests: Mapping[str, bytes],
    *pods: FakePod,
    registry: Registry,
    capsys: pytest.CaptureFixture[str],
    way: Way,
    **flags: Any,
) -> dict[str, list[Any]]:
    """Return all that each request leaves behind: answer, connection, what the pods got, metrics, log line."""
    token = {"authorization": "Bearer a-token-of-some-length"} if "predict_tokens_file" in flags else {}
    outcomes: dict[str, list[Any]] = {}
    async with warm(*pods, registry=registry, access_log=True, headers=token, **flags) as (gateway, _):
        way.clear()
        for name, request in requests.items():
            if token and b"authorization" not in request:
                line = f"\r\nauthorization: {token['authorization']}\r\n\r\n"
                request = request.replace(b"\r\n\r\n", line.encode(), 1)
            before = await metrics_of(gateway)
            async with client_of(gateway) as client:
                client.send(request.replace(b"the-same", _id_of(name)))
                status, headers, body = await client.receive()
                after = await metrics_of(gateway)
                ends = headers.get("connection") == "close" and await client.ended()
            seen = [[(each.path, each.headers | {"host": ""}, each.body) for each in pod.requests] for pod in pods]
            for pod, asked in zip(pods, seen, strict=True):
                pod.requests.clear()
                for _, sent, _ in asked:
                    sent.pop("x-request-timeout-ms")
            counted = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
            said = sorted((key, value) for key, value in headers.items() if key not in VARYING)
            timing = [each.partition(";")[0] for each in headers.get("server-timing", "").split(", ")]
            outcomes[name] = [status, said, timing, body, ends, seen, counted]
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for name, outcome in outcomes.items():
        lines = [line for line in logged if line.get("request_id") == _id_of(name).decode()]
        outcome += [{key: value for key, value in line.items() if key not in UNLIKE} for line in lines]
        assert len(lines) == 1
    return outcomes


def _id_of(name: str) -> bytes:
    return b"id-" + name.replace(" ", "-").encode()


async def metrics_of(gateway: Running) -> dict[str, float]:
    """Return all metrics of requests whose values are no times; what goes on beside them is left out."""
    text = (await gateway.client.get("/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines if not _left_out(name)}


def _left_out(name: str) -> bool:
    words = (
        "_bucket",
        "seconds_sum",
        "age",
        "seconds{",
        "load_aheads",
        "loop_blocked",
        "_observations_",
        "_dut",
        "_events_",
    )
    return name.startswith("process_") or any(word in name for word in words)


def in_tasks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on each request has a task."""
    call = FastPathApp.__call__

    async def called_in_task(self: FastPathApp, scope: Scope, receive: Receive, send: Send) -> None:
        await in_task()
        await call(self, scope, receive, send)

    monkeypatch.setattr(FastPathApp, "__call__", called_in_task)


async def test_requests_alike(
    registry: Registry,
    make_pod: MakePod,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: Way,
) -> None:
    """Whatever a request is like, its answer, what the pod gets, metrics and log line are the same on both ways."""
    tokens = tmp_path / "tokens"
    tokens.write_text("ci: a-token-of-some-length\n")
    tokens.chmod(0o600)
    flags: dict[str, Any] = {"max_body_bytes": 2000, "predict_tokens_file": tokens}
    pod = await make_pod()
    one = await outcomes_of(QUIET, pod, registry=registry, capsys=capsys, way=way, **flags)
    assert way.without_task >= way.written == sum(outcome[0] == 200 for outcome in one.values())
    in_tasks_only(monkeypatch)
    other = await outcomes_of(QUIET, pod, registry=registry, capsys=capsys, way=way, **flags)
    assert way.without_task == 0
    for name in QUIET:
        assert one[name] == other[name], name


@pytest.mark.parametrize("name", ONE_POD)
async def test_answers_alike(
    registry: Registry,
    make_pod: MakePod,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: Way,
) -> None:
    """Whatever a pod answers or fails to, its client, metrics and log line see the same on both ways."""
    (pod,) = await in_order(make_pod, 1)
    request = post(headers={**IDS, "x-request-timeout-ms": "700"})
    pod.behave = ONE_POD[name]
    one = await outcomes_of({name: request}, pod, registry=registry, capsys=capsys, way=way)
    assert (way.without_task, way.in_tasks) == ((0, 1) if name in RETRIED else (1, 0))
    in_tasks_only(monkeypatch)
    assert one == await outcomes_of({name: request}, pod, registry=registry, capsys=capsys, way=way)
    assert way.without_task == 0


@pytest.mark.parametrize("name", TWO_PODS)
async def test_retries_alike(
    registry: Registry,
    make_pod: MakePod,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: Way,
) -> None:
    """A first attempt that fails is followed by the same attempts, counted and logged alike, on both ways."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = TWO_PODS[name]
    sent = {name: post(headers=IDS)}
    one = await outcomes_of(sent, *pods, registry=registry, capsys=capsys, way=way)
    assert (way.without_task, way.in_tasks) == ((1, 0) if name == "not accepted" else (0, 1))
    assert (one[name][0], [len(requests) for requests in one[name][5]]) == (200, [1, 1])
    in_tasks_only(monkeypatch)
    assert one == await outcomes_of(sent, *pods, registry=registry, capsys=capsys, way=way)


async def test_cached_answers_alike(
    registry: Registry, make_pod: MakePod, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    """A cached answer is given without a task or a pod, the same as in one; also to many requests that come at once."""
    pod = await make_pod()
    async with warm(pod, registry=registry) as (gateway, client):
        way.clear()
        ask = post("/predict/cached", b"warm", {"x-request-id": "one", "x-request-group-id": "two"})
        for _ in range(3):
            client.send(ask)
            one = await client.receive()
        assert (way.without_task, way.in_tasks, pod.requests) == (3, 0, [])
        assert await gateway.metric('marway_gateway_cache_requests_total{outcome="hit"}') == 3
        client.send(*[ask] * 300)
        many = [await client.receive() for _ in range(300)]
        in_tasks_only(monkeypatch)
        client.send(ask)
        other = await client.receive()
        assert await gateway.metric("marway_gateway_requests_in_flight") == 0
    assert pod.requests == []
    assert one[1]["x-cache"] == "hit"
    for each in (one, *many):
        assert (each[0], each[2], _steady(each[1])) == (other[0], other[2], _steady(other[1]))


def _steady(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in VARYING}


# -- what may come in between ----------------------------------------------------------------------------------


async def test_pipelined_requests(registry: Registry, make_pod: MakePod, way: Way) -> None:
    """Requests that come at once are answered one after the other, in their order, the errors among them too."""
    pod = await make_pod()
    async with warm(pod, registry=registry) as (_, client):
        way.clear()
        sent = [post(body=b"%d" % number) for number in range(10)]
        client.send(*sent[:5], post("/predict/nobody"), *sent[5:])
        answers = [await client.receive() for _ in range(11)]
        assert (way.without_task, way.in_tasks) == (10, 1)
    assert [status for status, _, _ in answers] == [200] * 5 + [404] + [200] * 5
    assert [body for status, _, body in answers if status == 200] == [b"%d" % number for number in range(10)]


async def test_what_is_no_http_behind_a_request(registry: Registry, make_pod: MakePod) -> None:
    """Nonsense behind a request is not answered in its place: the request is, and the connection closed."""
    pod = await make_pod()
    async with warm(pod, registry=registry) as (gateway, client):
        client.send(post(), b"nonsense\r\n\r\n")
        status, headers, _ = await client.receive()
        assert (status, headers["connection"], await client.ended()) == (200, "close", True)
        while await gateway.metric("marway_gateway_requests_in_flight"):
            pass


@pytest.mark.parametrize("task", [True, False])
async def test_a_client_that_leaves(
    registry: Registry, make_pod: MakePod, monkeypatch: pytest.MonkeyPatch, task: bool
) -> None:
    """When the client leaves, the pod's work is ended, the request is counted as cancelled and nobody else is asked."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = hang
    async with warm(*pods, registry=registry) as (gateway, client):
        if task:
            in_tasks_only(monkeypatch)
        client.send(post())
        await until(lambda: pods[0].requests)
        client.leave()
        await until(lambda: pods[0].cancelled == 1)
        line = 'marway_gateway_request_duration_seconds_count{model="intent",outcome="cancelled",surface="native",'
        while not await gateway.metric(f'{line}version="1.0"}}'):
            pass
        assert await gateway.metric("marway_gateway_requests_in_flight") == 0
        pods[0].behave = answer
        assert (await gateway.predict()).status_code == 200
    assert [len(pod.requests) for pod in pods] == [2, 0]


async def test_a_slow_answer(registry: Registry, make_pod: MakePod, way: Way) -> None:
    """An answer that takes longer than deadlines are looked at together needs no task either, and no second request."""
    go_on = asyncio.Event()

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return await answer(pod, request)

    timed: list[CancelScope] = []
    set_timer = CancelScope.set_timer

    def seen_timer(self: CancelScope, loop: asyncio.AbstractEventLoop) -> None:
        timed.append(self)
        set_timer(self, loop)

    pod = await make_pod(behave=behave)
    async with warm(pod, registry=registry) as (_, client):
        way.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CancelScope, "set_timer", seen_timer)
            client.send(post())
            await until(lambda: timed)
        go_on.set()
        assert (await client.receive())[2] == b"hello"
        assert (await client.ask())[2] == b"hello"
        assert (way.without_task, way.in_tasks) == (2, 0)
    assert len(pod.requests) == 2


@pytest.mark.parametrize("task", [True, False])
@pytest.mark.parametrize("timeout_s", [0.1, 0.7])
async def test_a_deadline(
    registry: Registry, make_pod: MakePod, monkeypatch: pytest.MonkeyPatch, task: bool, timeout_s: float
) -> None:
    """A deadline ends the wait for the pod, whether it is near or far, and the connection serves on."""
    pod = await make_pod(behave=hang)
    async with warm(pod, registry=registry) as (gateway, client):
        if task:
            in_tasks_only(monkeypatch)

        async def ask(timeout_s: float) -> tuple[float, int, dict[str, str]]:
            status, _, body = await client.ask(headers={"x-request-timeout-ms": f"{timeout_s * 1000:.0f}"})
            return timeout_s, status, json.loads(body)

        passed_s, status, problem = await too_late(ask, reached=lambda _: pod.requests, timeout_s=timeout_s)
        assert (status, problem["code"]) == (504, "deadline_exceeded")
        assert f"deadline of {passed_s:g} s passed: pod a had not answered" in problem["detail"]
        await until(lambda: pod.cancelled == len(pod.requests))
        pod.behave = answer
        assert (await client.ask())[2] == b"hello"
        assert await gateway.metric("marway_gateway_requests_in_flight") == 0


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("task", [True, False])
async def test_stopping(
    registry: Registry, make_pod: MakePod, monkeypatch: pytest.MonkeyPatch, task: bool, ends: bool
) -> None:
    """A server that stops waits for what it has in hand, and refuses it when its time is over."""
    go_on = asyncio.Event()

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return await answer(pod, request)

    told: list[HttpConnection] = []
    shut_down = HttpConnection.shutdown

    def seen_shutdown(self: HttpConnection) -> None:
        shut_down(self)
        told.append(self)

    pod = await make_pod(behave=behave)
    async with warm(pod, registry=registry, drain_timeout_s=5 if ends else 0.1) as (gateway, client):
        monkeypatch.setattr(HttpConnection, "shutdown", seen_shutdown)
        if task:
            in_tasks_only(monkeypatch)
        client.send(post())
        await until(lambda: pod.requests)
        gateway.stop.set()
        await until(lambda: told)
        if ends:
            go_on.set()
        status, headers, body = await client.receive()
        assert (status, headers["connection"]) == (200 if ends else 503, "close")
        assert body == b"hello" if ends else json.loads(body)["code"] == "draining"
        assert await client.ended()
        await asyncio.wait_for(gateway.task, 5)


async def test_a_client_that_reads_too_slowly(
    registry: Registry, make_pod: MakePod, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer for a connection that is full waits until there is room, and goes out whole."""
    pod = await make_pod()
    full: list[HttpConnection] = []
    receive = HttpConnection.data_received

    def filled(self: HttpConnection, data: bytes) -> None:
        self.flow.pause_writing()
        full.append(self)
        receive(self, data)

    async with warm(pod, registry=registry) as (_, client):
        way.clear()
        with monkeypatch.context() as patch:
            patch.setattr(HttpConnection, "data_received", filled)
            client.send(post())
            await until(lambda: way.without_task)
        assert way.written == 0
        full[0].flow.resume_writing()
        assert (await client.receive())[2] == b"hello"
        assert way.written == 1


# -- bugs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [True, False])
@pytest.mark.parametrize("where", [(native, "send_whole"), (Predictor, "predict"), (Upstream, "predict")])
async def test_a_bug(
    registry: Registry,
    make_pod: MakePod,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: tuple[Any, str],
    task: bool,
) -> None:
    """A bug is a 500 that the log explains, and nothing of the request is left behind."""
    pod = await make_pod()

    async def bug(*args: object, **more: object) -> None:
        raise ZeroDivisionError("a bug")

    async with warm(pod, registry=registry) as (gateway, client):
        if task:
            in_tasks_only(monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(*where, bug)
            status, headers, body = await client.ask(headers=IDS)
        assert (status, json.loads(body)["code"], headers["x-request-id"]) == (500, "internal", "the-same")
        assert "request the-same failed unexpectedly" in caplog.text
        assert "ZeroDivisionError: a bug" in caplog.text
        assert await gateway.metric("marway_gateway_requests_in_flight") == 0
        assert (await client.ask())[2] == b"hello"


async def test_a_header_that_cannot_be_sent(
    registry: Registry, make_pod: MakePod, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A header with a line break in it never goes out: the request fails, with a task and without one."""
    pod = await make_pod()
    broken = header_block([(b"x", b"a\r\nb: c")])
    for _ in range(2):
        async with warm(pod, registry=registry) as (_, client):
            with monkeypatch.context() as patch:
                patch.setattr("marway_gateway.http.requests._named", lambda *version: broken)
                status, headers, _ = await client.ask()
                assert (status, headers.keys() & {"x", "b"}) == (500, set())
        assert "a header of the answer has a control character in it" in caplog.text
        caplog.clear()
        in_tasks_only(monkeypatch)
