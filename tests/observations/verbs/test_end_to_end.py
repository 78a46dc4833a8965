"""From answers, and what their callers say of them, to figures: through a real gateway and a real sidecar."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.fakes import running
from marway.records import utc_now
from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway_gateway.settings import PodAddress
from marway_observations.listing import Wanted, newest
from marway_observations.quality import quality_of
from marway_observations.reading import Observed
from marway_observations.store import open_observations
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, serving
from support.registry import publish, until

RULE = {"kind": "classification", "prediction": "label || predictions[0].label", "minimum": 0.9, "min_count": 3}


async def test_from_answers_to_quality(registry: Registry, tmp_path: Path) -> None:
    """Predictions over two protocols, three of four with a truth, two of these right."""

    async def answer(model: ServedModel, row: Row) -> Answer:
        return Answer(200, b'{"label": "joke"}', "json")

    publish(registry, tmp_path, "intent", "1.0", serving={"observe": "bodies", "quality": [RULE]})
    registry.release("intent", "1.0", by="ci")
    store = open_observations(registry.url)
    async with (
        serving(registry, tmp_path, server=FakeServer(predict_with=answer)) as pod,
        running(PodAddress("pod-0", pod.url), registry=registry, observations_flush_s=0.1) as gateway,
    ):
        native = [await gateway.predict("/predict/intent", b"tell me", content_type="text/plain") for _ in range(3)]
        v1 = await gateway.client.post("/v1/models/intent:predict", json={"instances": [{"text": "tell me"}]})
        ids = [each.headers["x-prediction-id"] for each in (*native, v1)]
        given = [
            {"prediction_id": each, "truth": truth}
            for each, truth in zip(ids[1:], ("joke", "song", "joke"), strict=True)
        ]
        assert (await gateway.client.post("/feedback", json=given)).status_code == 202

        def kept() -> list[dict[str, object]]:
            with Observed(store, model="intent") as observed:
                return newest(observed, Wanted(), 10)

        await until(lambda: len(kept()) == 4)
        assert {row["prediction_id"]: row["truth"] for row in kept()} == {
            ids[0]: None,
            ids[1]: '"joke"',
            ids[2]: '"song"',
            ids[3]: '"joke"',
        }
        asked = await asyncio.to_thread(quality_of, store, registry, "intent", at=utc_now())
    figures = {each.label: (each.known, each.missing, each.unusable, each.standing) for each in asked.results}
    assert figures == {label: (3, 1, {}, "unclear") for label in (None, "PROD")}, asked.results
    assert abs((asked.results[0].value or 0) - 2 / 3) < 1e-9
