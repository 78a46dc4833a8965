"""A replay through a real gateway and a real sidecar, of inputs that the gateway kept itself."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway.fakes import running
from marway.records import utc_now
from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway_gateway.settings import PodAddress
from marway_observations.reading import Observed
from marway_observations.replay import Replaying, Wanted, choose
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, serving
from support.registry import publish, until


async def test_of_kept_inputs(registry: Registry, tmp_path: Path) -> None:
    """What callers sent reaches both versions as they sent it, giving way, and is kept as a job's, not as theirs."""
    seen: list[tuple[str, str]] = []

    async def answer(model: ServedModel, row: Row) -> Answer:
        sent = json.loads(row.parts[0].value)
        seen.append((model.version, sent["text"]))
        label = "short" if len(sent["text"]) < 4 or model.version == "1.1" else "long"
        return Answer(200, json.dumps({"label": label}).encode(), "json")

    for version in ("1.0", "1.1"):
        publish(registry, tmp_path, "intent", version, serving={"observe": "bodies"})
    registry.release("intent", "1.0", by="ci")
    wanted = Wanted("intent", utc_now() - timedelta(hours=1), utc_now() + timedelta(hours=1), label="PROD")
    texts = ["a", "bb", "ccc", "dddd"]
    async with (
        serving(registry, tmp_path, server=FakeServer(predict_with=answer)) as pod,
        running(PodAddress("pod-0", pod.url), registry=registry, observations_flush_s=0.1) as gateway,
    ):
        for text in texts:
            asked = json.dumps({"text": text}).encode()
            answered = await gateway.predict("/predict/intent", asked, content_type="application/json")
            assert answered.status_code == 200
        await until(lambda: kept(registry, "base") == texts)
        seen.clear()

        def replayed() -> Any:
            records = registry.record("intent", "1.0"), registry.record("intent", "1.1")
            with choose(registry.store, wanted) as inputs:
                return Replaying(registry, *records, gateway.addresses.gateway, segment="output.label").run(inputs)

        done = await asyncio.to_thread(replayed)
        assert (done.counts.compared, done.counts.agree, done.passed) == (4, 3, False)
        assert {each.value: each.counts.agree for each in done.segments} == {"short": 3, "long": 0}
        assert sorted(seen) == sorted((version, text) for version in ("1.0", "1.1") for text in texts)
        assert all(side.p50_s is not None for side in done.sides)
        await until(lambda: kept(registry, "batch") == sorted(texts * 2))
        with choose(registry.store, wanted) as inputs:
            assert inputs.count == 4


def kept(registry: Registry, role: str) -> list[str]:
    """Return the texts of inputs that were kept in a role, in order."""
    with Observed(registry.store, model="intent") as observed:
        rows = observed.query("SELECT input FROM observations WHERE role = $role", {"role": role})
    return sorted(json.loads(bytes(row[0]))["text"] for row in rows)
