"""From a caller's answer to its explanation, through a real gateway, a real sidecar and the files that are kept."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.fakes import running
from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway_gateway.settings import PodAddress
from marway_observations.store import open_observations
from marway_observations.why import explained, find, replayed
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, serving
from support.registry import publish, until


async def test_from_answer_to_explanation(registry: Registry, tmp_path: Path) -> None:
    """A caller's prediction is found by its id with its times in the pod and the feedback, and asked again."""
    said = b'{"label": "joke", "score": 0.5}'

    async def answer(model: ServedModel, row: Row) -> Answer:
        return Answer(200, said, "json")

    publish(registry, tmp_path, "intent", "1.0", serving={"observe": "bodies"})
    registry.release("intent", "1.0", by="ci")
    store = open_observations(registry.url)
    async with (
        serving(registry, tmp_path, server=FakeServer(predict_with=answer)) as pod,
        running(PodAddress("pod-0", pod.url), registry=registry, observations_flush_s=0.1) as gateway,
    ):
        answered = await gateway.predict("/predict/intent", b"tell me", content_type="text/plain", x_request_id="r1")
        assert answered.content == said
        prediction_id = answered.headers["x-prediction-id"]
        given = {"prediction_id": prediction_id, "truth": "joke", "source": "app"}
        assert (await gateway.client.post("/feedback", json=given)).status_code == 202
        await until(lambda: list(store.keys("observations/model=intent/")))
        now = datetime.now(UTC)
        found = await asyncio.to_thread(find, store, prediction_id, since=now, until=now + timedelta(minutes=1))
        told = explained(found, registry)
        assert (told["prediction"]["request_id"], told["prediction"]["finite"]) == ("r1", True)
        assert (told["label"]["entry"]["by"], told["pod"]["pod"], told["pod"]["batch_rows"]) == ("ci", "pod-0", 1)
        assert 0 < told["timings"]["model_s"] < told["timings"]["pod_s"] < told["timings"]["duration_s"]
        assert told["feedback"]["counts"]["truth"] == "joke"

        def again() -> dict[str, object]:
            url = gateway.addresses.gateway
            return replayed(found.row, registry, gateway=url, token=None, timeout_s=20)

        assert (await asyncio.to_thread(again))["same"] is True
        said = b'{"label": "song", "score": 0.5}'
        told = await asyncio.to_thread(again)
        assert told["same"] is False
        assert "label" in str(told["difference"])
