"""Spans that a sidecar sends, taken by a receiver that decodes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway.wire.headers import TIMED
from marway.wire.measurements import SPAN, Measurement
from marway_sidecar.backends.base import ServedModel
from support.otlp import Receiver, receiving
from support.pod import FakeServer, serving
from support.registry import publish

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as found:
        for name, value in found.env.items():
            monkeypatch.setenv(name, value)
        yield found


async def answer(model: ServedModel, row: Row) -> Answer:
    """Answer as a worker of Marway's runtime does, or fail as the input says."""
    if row.parts[0].value == b"raise":
        return Answer(500, b"ValueError: no", "error")
    steps = (
        [Measurement(SPAN, "preprocess", "s", (("began", f"{time.time():.6f}"),), 0.001)]
        if TIMED in row.headers
        else []
    )
    return Answer(200, b"fine", "text", measured=steps)


async def test_a_pods_spans_are_of_its_gateways_trace(registry: Registry, tmp_path: Path, receiver: Receiver) -> None:
    """Within the caller's span are the pod's, its queue, the load that it waits for, and its worker with its steps;
    handlers find the worker's span as their parent, and no metric is made of what was timed."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(answer), traces="otlp", backend="native") as pod:
        assert (await pod.predict("some", traceparent=SAMPLED, x_request_id="r-1")).status_code == 200
        assert (await pod.predict("some", b"raise", traceparent=SAMPLED)).status_code == 500
        assert (await pod.predict("some", traceparent=UNSAMPLED)).status_code == 200
        assert "preprocess" not in (await pod.client.get("/metrics")).text
    assert {(span.trace, span.service) for span in receiver.spans} == {(TRACE, "marway-sidecar")}
    first, second = sorted(receiver.named("pod"), key=lambda span: span.began_s)
    assert first.parent == second.parent == PARENT
    assert (first.attributes["marway.request_id"], first.attributes["marway.pod"]) == ("r-1", "pod-0")
    assert set(receiver.children(first)) == {"queue", "load", "worker"}
    good, bad = sorted(receiver.named("worker"), key=lambda span: span.began_s)
    assert (good.parent, receiver.children(good)) == (first.id, ["preprocess"])
    assert (bad.failed, bad.attributes["marway.status"]) == (True, 500)
    assert not second.failed or second.attributes["error.type"] == "model_error"
    rows = pod.server.rows
    assert rows[0].headers["traceparent"] == f"00-{TRACE}-{good.id}-01"
    assert TIMED not in rows[2].headers
    load = receiver.one("load")
    assert load.attributes["marway.outcome"] == "ok"
    assert {"load fetch", "load register"} <= set(receiver.children(load))


@pytest.mark.extended  # the test above has all but this ending
async def test_a_load_that_fails_says_why(registry: Registry, tmp_path: Path, receiver: Receiver) -> None:
    """A load that fails is a failed span within that of the request that waited for it, and so is the pod's."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(broken={"some"}), traces="otlp") as pod:
        assert (await pod.predict("some", traceparent=SAMPLED)).status_code == 500
    load, asked = receiver.one("load"), receiver.one("pod")
    assert (load.failed, load.parent, "some is broken" in load.message) == (True, asked.id, True)
    assert (asked.failed, asked.attributes["error.type"]) == (True, "load_failed")


@pytest.mark.extended  # test_a_pods_spans_are_of_its_gateways_trace has whole answers
async def test_pieces_are_traced(registry: Registry, tmp_path: Path, receiver: Receiver) -> None:
    """The worker's span of an answer in pieces lasts to the last of them."""
    publish(registry, tmp_path, "some", "1.0", serving={"streaming": True})
    async with serving(registry, tmp_path, traces="otlp") as pod:
        sent = {"traceparent": SAMPLED, "accept": "text/event-stream"}
        got = await pod.client.post("/predict/some", content=b"one two", headers=sent)
        assert "two" in got.text
    assert receiver.one("worker").parent == receiver.one("pod").id
