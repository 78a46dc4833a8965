"""What a gateway keeps is what drift is looked for in, whatever protocol predictions come by."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.fakes import FakePod, running
from gateway.handlers import echo, handling, ready
from marway.features.collecting import Rows
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.serving import DriftRule, ServingSettings
from marway_observations.drift.evaluating import evaluate_drift
from support.registry import publish

COUNT = 20


async def test_predictions_over_three_protocols_drift_together(
    registry: Registry, make_pod: Callable[..., Awaitable[FakePod]], tmp_path: Path
) -> None:
    """The same field of requests of v1, v2 and Marway's own is one field, and it has drifted when all of them move."""
    draw, rows = random.Random(0), Rows()
    for _ in range(500):
        rows.add({"input": [{"age": draw.gauss(40, 10)}]})
    serving = ServingSettings(observe="bodies", drift=DriftRule(min_count=3 * COUNT))
    publish(registry, tmp_path, serving=serving, training={"features": rows.summarize()})
    pod = await make_pod(behave=handling(echo))
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        for _ in range(COUNT):
            age = draw.gauss(60, 10)
            tensor = {"name": "age", "shape": [1], "datatype": "FP64", "data": [age]}
            for path, body in (
                ("/predict/intent", {"age": age}),
                ("/v1/models/intent:predict", {"instances": [{"age": age}]}),
                ("/v2/models/intent/infer", {"inputs": [tensor]}),
            ):
                await gateway.client.post(path, json=body)
    (found,) = evaluate_drift(DirectoryStore(tmp_path / "registry"), registry, "intent")
    assert (found.predictions, found.rows, found.unreadable) == (3 * COUNT, 3 * COUNT, 0)
    assert [(field.field, field.missing, field.drifted) for field in found.fields] == [("input.age", 0, True)]
