"""One trace through everything that `marway up` starts, and one request through all of its logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from marway_archiver import publish
from support.cli import marway
from support.every import usual
from support.otlp import Receiver, receiving
from support.up import Up, wait_until

# tests/gateway/traces, tests/sidecar/test_traces.py and tests/ops/test_logs.py have the parts, beside fakes.
pytestmark = [pytest.mark.e2e, pytest.mark.extended, pytest.mark.timeout(300)]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HANDLER = """
from ts.torch_handler.base_handler import BaseHandler


class Shout(BaseHandler):
    def initialize(self, context):
        self.initialized = True

    def preprocess(self, data):
        return [bytes(row["data"] if "data" in row else row["body"]).decode() for row in data]

    def inference(self, texts):
        if "boom" in texts:
            raise ValueError("no boom, please")
        return texts

    def postprocess(self, texts):
        parent = self.context.get_request_header(0, "traceparent")
        return [f"{text.upper()} {parent}" for text in texts]
"""
BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module", params=usual("native", more=["torchserve"]))
def up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Up]:
    """A `marway up` whose gateway and sidecar send spans."""
    scratch: Path = tmp_path_factory.mktemp("traced")
    (scratch / "handler.py").write_text(HANDLER)
    env = {**receiver.env, "MARWAY_GATEWAY_TRACES": "otlp", "MARWAY_SIDECAR_TRACES": "otlp"}
    with Up(scratch / "home", "--engine", request.param, env=env) as running:
        publish(
            model_name="shout",
            version="1.0",
            handler=str(scratch / "handler.py"),
            registry=running.registry,
            label="PROD",
        )
        yield running


def test_one_trace(up: Up, receiver: Receiver) -> None:
    """A caller's trace goes through gateway, pod, queue, worker and the steps of its handler, which finds the worker's
    span as its parent; the load that the request waited for is a part of it."""
    receiver.spans.clear()
    with httpx.Client(base_url=up.gateway, timeout=120, trust_env=False) as client:
        answer = client.post(
            "/predict/shout", content=b"hi", headers={**BYTES, "traceparent": f"00-{TRACE}-{PARENT}-01"}
        )
    assert answer.status_code == 200, answer.text
    receiver.wait_for("predict shout", "attempt", "pod", "queue", "load", "worker", "handler", "postprocess")
    spans = [span for span in receiver.spans if span.trace == TRACE]
    prediction, attempt, pod, worker, handler = map(
        receiver.one, ("predict shout", "attempt", "pod", "worker", "handler")
    )
    assert (prediction.parent, attempt.parent, pod.parent) == (PARENT, prediction.id, attempt.id)
    assert {"queue", "load", "worker"} <= set(receiver.children(pod))
    assert set(receiver.children(worker)) == {"handler", "preprocess", "inference", "postprocess"}
    assert answer.text == f"HI 00-{TRACE}-{worker.id}-01"
    assert worker.began_s - 0.05 <= handler.began_s <= handler.ended_s <= worker.ended_s + 0.05
    assert {span.service for span in spans} == {"marway-gateway", "marway-sidecar"}
    assert not any(span.failed for span in spans), [span for span in spans if span.failed]
    metrics = httpx.get(f"{up.ready['pods'][0]['url']}/metrics", trust_env=False).text
    assert "postprocess" not in metrics


def test_one_request_in_every_log(up: Up) -> None:
    """Gateway, sidecar and worker name the request, and `marway logs --request` shows all of it, traceback and all."""
    with httpx.Client(base_url=up.gateway, timeout=120, trust_env=False) as client:
        answer = client.post("/predict/shout", content=b"boom", headers={**BYTES, "x-request-id": "r-boom"})
    assert answer.status_code == 500

    def found() -> list[dict[str, str]]:
        shown = marway("logs", "--request", "r-boom", "--home", str(up.home), "--json")
        assert shown.returncode == 0, shown.stderr
        return [json.loads(line) for line in shown.stdout.splitlines()]

    wait_until(
        lambda: {line["component"] for line in found()} == {"gateway", "sidecar", "worker"},
        timeout_s=20,
        what="the request in three logs",
    )
    (raised,) = [line for line in found() if "traceback" in line]
    assert raised["traceback"].endswith("ValueError: no boom, please")
    shown = marway("logs", "shout", "--since", "10m", "--level", "error", "--home", str(up.home)).stdout
    assert "ValueError: no boom, please" in shown
