"""Shadow copies on a real sidecar: callers never wait behind one, and copies of every surface are compared."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.fakes import running
from gateway.handlers import ready
from marway.registry import Registry
from marway.shadow.counts import ShadowCounts
from marway.shadow.report import ProcessCounts
from marway.wire.envelope import Answer, Row
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_gateway.settings import PodAddress
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, serving
from support.registry import publish


def kept(registry: Registry) -> ShadowCounts:
    (key,) = [key for key in registry.store.keys("rollouts/intent/") if "/shadow/" in key]
    return ProcessCounts.model_validate_json(registry.store.get(key).data).versions["2.0"]


async def test_copies_on_a_pod(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over every surface; and while copies wait for the only worker, its own callers go before all of them."""
    served = {"observe": "bodies", "max_workers": 1}
    publish(registry, tmp_path, serving=served)
    publish(registry, tmp_path, "intent", "2.0", label=None, serving=served)
    registry.start_shadow("intent", "2.0", by="test")
    go = asyncio.Event()
    order: list[str] = []

    async def predict(model: ServedModel, row: Row) -> Answer:
        text = row.parts[0].value.decode()
        if model.version == "2.0":
            order.append(text)
            await go.wait()
        return Answer(200, json.dumps({"label": f"{text} {model.version[0]}"}).encode(), "json", "application/json")

    seen: list[RequestInfo] = []
    copied = Telemetry.copied
    monkeypatch.setattr(Telemetry, "copied", lambda self, info: (seen.append(info), copied(self, info))[1])
    server = FakeServer(predict_with=predict)
    async with serving(registry, tmp_path, server=server) as pod:
        for version in ("1.0", "2.0"):
            assert (await pod.client.post(f"/models/intent/{version}/load")).status_code == 200
        async with running(PodAddress("pod-0", pod.url), registry=registry) as gateway:
            await ready(gateway)
            async with asyncio.timeout(30):
                for number in range(6):
                    answered = await gateway.predict("/predict/intent/PROD", f"copy {number}".encode())
                    assert answered.json() == {"label": f"copy {number} 1"}
                while not order:
                    await asyncio.sleep(0.005)
                mine = [asyncio.create_task(gateway.predict("/predict/intent/2.0", b"caller")) for _ in range(3)]
                while (await pod.client.get("/models")).json()[1]["requests_queued"] < 8:
                    await asyncio.sleep(0.005)
                go.set()
                assert [(await each).status_code for each in mine] == [200] * 3
                v1: Any = {"instances": ["a", "b"]}
                answered = await gateway.client.post("/v1/models/intent/labels/PROD:predict", json=v1)
                assert answered.json() == {"predictions": [{"label": "a 1"}, {"label": "b 1"}]}
                while len(seen) < 7:
                    await asyncio.sleep(0.005)
    assert order[:4] == ["copy 0", *["caller"] * 3]
    assert sorted(order[4:]) == ["a", "b", *(f"copy {number}" for number in range(1, 6))]
    counts = kept(registry)
    assert (counts.answered, counts.compared, counts.rows, counts.agreed) == (7, 7, 8, 0)
    rows = next(info for info in seen if info.surface == "v1")
    assert (rows.role, json.loads(rows.input or b"")) == ("shadow", v1)
    assert json.loads(rows.output or b"") == {"predictions": [{"label": "a 2"}, {"label": "b 2"}]}
