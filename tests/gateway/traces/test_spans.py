"""Spans that a gateway sends, taken by a receiver that decodes them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from gateway.fakes import FakePod, fail, running
from marway.errors import InvalidSettings, ModelError, Overloaded
from marway.registry import Registry
from marway.wire.headers import Outcome
from marway_http import traces as traces_module
from marway_http.traces import open_traces
from support.graphs import publish_graph
from support.otlp import Receiver, receiving
from support.registry import publish

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"

MakePod = Callable[..., Awaitable[FakePod]]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as found:
        for name, value in found.env.items():
            monkeypatch.setenv(name, value)
        yield found


async def test_a_prediction_is_one_span_of_its_callers_trace(
    registry: Registry, make_pod: MakePod, tmp_path: Path, receiver: Receiver
) -> None:
    """A caller's trace goes on: its span is the prediction's parent, that is the attempt's, and that is the pod's."""
    publish(registry, tmp_path, "intent", "1.0", label="PROD")
    pod = await make_pod()
    async with running(pod, registry=registry, traces="otlp") as gateway:
        answer = await gateway.predict(
            "/predict/intent/PROD", traceparent=SAMPLED, tracestate="a=1", x_request_id="r-1"
        )
        assert answer.status_code == 200
    prediction, attempt = receiver.one("predict intent"), receiver.one("attempt")
    assert receiver.paths == {"/v1/traces"}
    assert (prediction.service, prediction.trace, prediction.parent) == ("marway-gateway", TRACE, PARENT)
    assert (attempt.trace, attempt.parent) == (TRACE, prediction.id)
    assert (prediction.kind, attempt.kind) == (2, 3)  # SERVER and CLIENT
    sent = pod.requests[0].headers
    assert (sent["traceparent"], sent["tracestate"]) == (f"00-{TRACE}-{attempt.id}-01", "a=1")
    assert not prediction.failed
    said = prediction.attributes
    assert said["marway.request_id"] == "r-1"
    assert said["marway.prediction_id"] == answer.headers["x-prediction-id"]
    assert (said["marway.model"], said["marway.version"], said["marway.label"]) == ("intent", "1.0", "PROD")
    assert (said["http.response.status_code"], said["url.path"]) == (200, "/predict/intent/PROD")
    assert (attempt.attributes["server.address"], attempt.attributes["server.port"]) == ("127.0.0.1", pod.port)
    assert prediction.began_s <= attempt.began_s <= attempt.ended_s <= prediction.ended_s


@pytest.mark.extended  # a gateway of its own; the first test has a prediction's spans
async def test_callers_say_whether_spans_are_kept(
    registry: Registry, make_pod: MakePod, tmp_path: Path, receiver: Receiver
) -> None:
    """Of a trace that its caller does not keep nothing is sent, and pods are told so; without a caller's word
    OpenTelemetry's sampler decides."""
    publish(registry, tmp_path, "intent", "1.0", label="PROD")
    pod = await make_pod()
    async with running(pod, registry=registry, traces="otlp") as gateway:
        await gateway.predict("/predict/intent/PROD", traceparent=UNSAMPLED)
        await gateway.predict("/predict/intent/PROD")
    assert [span.name for span in receiver.spans if span.trace == TRACE] == []
    assert pod.requests[0].headers["traceparent"].startswith(f"00-{TRACE}-")
    assert pod.requests[0].headers["traceparent"].endswith("-00")
    own = receiver.one("predict intent")
    assert own.parent == ""
    assert pod.requests[1].headers["traceparent"].startswith(f"00-{own.trace}-")


@pytest.mark.extended  # a gateway of its own; the first test has a prediction's spans
async def test_attempts_and_failures(registry: Registry, make_pod: MakePod, tmp_path: Path, receiver: Receiver) -> None:
    """Each pod that is asked has a span; one that fails says why, and a caller's own fault is no failure."""
    publish(registry, tmp_path, "intent", "1.0", label="PROD")

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        full = Overloaded("all workers are busy"), Outcome.NOT_ACCEPTED
        broken = ModelError("ValueError: no", model="intent", version="1.0"), Outcome.MODEL_ERROR
        return await fail(*(full if len(pod.requests) == 1 and pod.name == "a" else broken))(pod, request)

    pods = [await make_pod("a", behave=behave), await make_pod("b", behave=behave)]
    async with running(*pods, registry=registry, traces="otlp") as gateway:
        assert (await gateway.predict("/predict/intent/PROD")).status_code >= 500
        assert (await gateway.predict("/predict/missing")).status_code == 404
    failed, missing = receiver.one("predict intent"), receiver.one("predict")
    assert failed.failed
    assert failed.attributes["error.type"] == "model_error"
    assert len(receiver.named("attempt")) == failed.attributes["marway.attempts"]
    assert all(attempt.failed and attempt.parent == failed.id for attempt in receiver.named("attempt"))
    assert not missing.failed
    assert missing.attributes["error.type"] == "model_not_found"


@pytest.mark.extended  # a gateway of its own; the first test has a prediction's spans
async def test_waiting_for_a_turn_is_a_span(
    registry: Registry, make_pod: MakePod, tmp_path: Path, receiver: Receiver
) -> None:
    """The time that a prediction waits in the gateway is a span within its own."""
    publish(registry, tmp_path, "intent", "1.0", label="PROD")
    go = asyncio.Event()

    async def wait(pod: FakePod, request: web.Request) -> web.StreamResponse:
        await go.wait()
        return web.Response(text="ok", headers={"x-marway-outcome": "answered"})

    pod = await make_pod(behave=wait)
    async with running(pod, registry=registry, traces="otlp", max_requests_per_version=1) as gateway:
        first = asyncio.create_task(gateway.predict("/predict/intent/PROD"))
        while not pod.requests:
            await asyncio.sleep(0)
        second = asyncio.create_task(gateway.predict("/predict/intent/PROD", x_request_id="second"))
        while not await gateway.metric("marway_gateway_requests_queued"):
            await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, second)
    (waited,) = [span for span in receiver.named("predict intent") if span.attributes["marway.request_id"] == "second"]
    assert receiver.children(waited) == ["queue", "attempt"]
    assert receiver.one("queue").parent == waited.id


def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol that is not spoken is refused; traces that are off need no OpenTelemetry."""
    assert open_traces("off", service="marway-gateway") is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(InvalidSettings, match="http/protobuf"):
        open_traces("otlp", service="marway-gateway")


def test_a_collector_that_is_away_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits for so long and no longer, whatever the exporter waits for."""
    monkeypatch.setattr(traces_module, "_CLOSE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        traces = open_traces("otlp", service="marway-gateway")
        assert traces is not None
        traces.begin("predict", {}).end()
        began = time.monotonic()
        traces.close()
        assert time.monotonic() - began < 1.5


@pytest.mark.extended  # a gateway of its own; tests/gateway/graph has what graphs do
async def test_nodes_of_a_graph_are_spans(
    registry: Registry, make_pod: MakePod, tmp_path: Path, receiver: Receiver
) -> None:
    """A node that asks a model is a prediction within the graph's span; others are spans too."""
    for name in ("clean", "score"):
        publish(registry, tmp_path, name)
    nodes = {
        "all": {"kind": "sequence", "nodes": ["first", "second"]},
        "first": {"kind": "model", "model": "clean"},
        "second": {"kind": "model", "model": "score"},
    }
    publish_graph(registry, tmp_path, {"nodes": nodes, "start": "all"})
    pod = await make_pod()
    async with running(pod, registry=registry, traces="otlp") as gateway:
        answer = await gateway.predict("/predict/tour", b"x", content_type="text/plain", traceparent=SAMPLED)
        assert answer.status_code == 200
    graph = receiver.one("predict tour")
    assert graph.parent == PARENT
    assert set(receiver.children(graph)) == {"node all", "node first", "node second"}
    first, second = receiver.one("node first"), receiver.one("node second")
    assert (receiver.children(first), receiver.children(second)) == (["attempt"], ["attempt"])
    assert (first.attributes["marway.model"], second.attributes["marway.model"]) == ("clean", "score")
    parents = [each.parent for each in sorted(receiver.named("attempt"), key=lambda each: each.began_s)]
    assert parents == [first.id, second.id]
