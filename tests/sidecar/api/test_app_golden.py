"""Golden examples on a pod: sent after a load, compared for a proof."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from marway.answers.golden import ExampleInput, GoldenAnswer
from marway.errors import ModelError
from marway.records import VersionRecord
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import ServedModel, WorkerDied
from support.pod import FakeServer, Pod, publish_examples, serving
from support.registry import publish

SAME = 'marway_sidecar_golden_checks_total{model="some",outcome="same",version="1.0"}'
DIFFERENT = 'marway_sidecar_golden_checks_total{model="some",outcome="different",version="1.0"}'
FAILED = 'marway_sidecar_golden_checks_total{model="some",outcome="failed",version="1.0"}'


async def shout(model: ServedModel, row: Row) -> Answer:
    """Answer as `published` has it: upper-case text, a tensor for `tensor`, an error for `bad`."""
    value = row.parts[0].value
    if value == b"bad":
        return Answer(422, b"refused", "error")
    if value == b"tensor":
        buffer = io.BytesIO()
        torch.save(torch.tensor([[0.25, 0.5]]), buffer)
        return Answer(200, buffer.getvalue(), "tensor")
    return Answer(200, value.upper(), "text", "text/plain")


def published(registry: Registry, scratch: Path, *, others: int = 0) -> VersionRecord:
    tensor = {"dtype": "float32", "shape": [1, 2], "values": [[0.25, 0.50000001]]}
    pairs = [
        (ExampleInput(b"one", "text/plain"), GoldenAnswer(kind="text", content_type="text/plain", value="ONE")),
        (ExampleInput(b"tensor"), GoldenAnswer(kind="tensor", value=tensor)),
        (ExampleInput(b"bad", status=422), GoldenAnswer(status=422, kind="error", value="another message")),
    ]
    for number in range(others):
        text = f"text {number}"
        answer = GoldenAnswer(kind="text", content_type="text/plain", value=text.upper())
        pairs.append((ExampleInput(text.encode(), "text/plain"), answer))
    return publish_examples(registry, scratch, "some", pairs)


async def proof(pod: Pod) -> dict[str, object]:
    answer = await pod.client.post("/models/some/1.0/load", params={"prove": "true"})
    assert answer.status_code == 200, answer.text
    report: dict[str, object] = answer.json()
    return report


async def test_a_version_is_proved(registry: Registry, tmp_path: Path) -> None:
    """With prove=true every golden answer is compared, tensors and refusals too, and the report names them."""
    record = published(registry, tmp_path, others=20)
    async with serving(registry, tmp_path, server=FakeServer(predict_with=shout)) as pod:
        report = await proof(pod)
        assert (report["golden_sha256"], report["examples"], report["differences"]) == (record.golden_sha256, 23, [])
        # Again, now that it is loaded: nothing is warmed up, everything is compared.
        sent = len(pod.server.rows)
        assert (await proof(pod))["differences"] == []
        assert [row.parts[0].value for row in pod.server.rows[sent:][:3]] == [b"one", b"tensor", b"bad"]
        assert len(pod.server.rows) == sent + 23


async def test_differences_are_told(registry: Registry, tmp_path: Path) -> None:
    """Each example that is answered otherwise, or kills its worker, is a line of the report; the version serves on."""

    async def wrong(model: ServedModel, row: Row) -> Answer:
        match row.parts[0].value:
            case b"one":
                return Answer(200, b"two", "text", "text/plain")
            case b"tensor":
                raise WorkerDied("killed")
            case b"bad":
                raise ModelError("no such row", status=400)
            case value:
                return Answer(200, value, "text")

    published(registry, tmp_path)
    async with serving(registry, tmp_path, server=FakeServer(predict_with=wrong)) as pod:
        report = await proof(pod)
        assert report["differences"] == [
            'example 1: "ONE" was expected, "two" came',
            "example 2: it killed its worker",
            "example 3: no such row",
        ]
        assert await pod.metric(DIFFERENT) == 6  # once after the load, once for the proof
        assert (await pod.predict("some", b"fine")).status_code == 200


async def test_a_load_warms_up_before_the_first_request(registry: Registry, tmp_path: Path) -> None:
    """A few golden inputs, and no more, go through a version after its load; the request that loaded it follows."""
    published(registry, tmp_path, others=20)
    async with serving(registry, tmp_path, server=FakeServer(predict_with=shout), golden_warm_examples=4) as pod:
        assert (await pod.predict("some", b"mine")).content == b"MINE"
        assert [row.parts[0].value for row in pod.server.rows] == [b"one", b"tensor", b"bad", b"text 0", b"mine"]
        assert await pod.metric(SAME) == 4


async def test_warming_up_ends_in_time(registry: Registry, tmp_path: Path) -> None:
    """When its time is over no further golden input is sent; the one that was sent is waited for."""
    published(registry, tmp_path, others=20)
    async with serving(registry, tmp_path, server=FakeServer(predict_with=shout), golden_warm_s=1e-9) as pod:
        assert (await pod.predict("some", b"mine")).content == b"MINE"
        assert [row.parts[0].value for row in pod.server.rows] == [b"one", b"mine"]


async def test_trouble_with_examples_refuses_no_load(registry: Registry, tmp_path: Path) -> None:
    """A version whose golden inputs cannot be read, or whose answers are gone, is served all the same."""
    publish(registry, tmp_path, "some", "1.0")  # its archive is no archive
    async with serving(registry, tmp_path) as pod:
        assert (await pod.predict("some")).status_code == 200
        assert await pod.metric(FAILED) == 1


async def test_a_proof_needs_the_answers(registry: Registry, tmp_path: Path) -> None:
    """A proof whose golden answers are gone from the registry fails; a version without any is proved by its load."""
    record = published(registry, tmp_path)
    (tmp_path / "registry" / "golden" / f"{record.golden_sha256}.json").unlink()
    publish(registry, tmp_path, "bare", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=shout)) as pod:
        answer = await pod.client.post("/models/some/1.0/load", params={"prove": "true"})
        assert (answer.status_code, answer.json()["code"]) == (500, "invalid_record")
        assert "publish the version again" in answer.json()["detail"]
        report = (await pod.client.post("/models/bare/1.0/load", params={"prove": "true"})).json()
        assert (report.get("golden_sha256"), report["examples"], report["differences"]) == (None, 0, [])


@pytest.mark.parametrize("examples", [0, 8])
async def test_a_streaming_version_is_proved_by_its_last_piece(
    registry: Registry, tmp_path: Path, examples: int
) -> None:
    """What a streaming handler returns at its end is what its golden answers hold."""
    answer = GoldenAnswer(kind="text", content_type="text/event-stream", value="b ")
    pairs = [(ExampleInput(b"a b"), answer)]
    publish_examples(registry, tmp_path, "some", pairs, serving=ServingSettings(streaming=True))
    async with serving(registry, tmp_path, golden_warm_examples=examples) as pod:
        assert (await proof(pod))["differences"] == []
        assert len(pod.server.rows) == (1 if examples == 0 else 2)
