"""What a sidecar says of a request's way through its queue and its model server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from marway.registry import Registry
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Part, Row, encode_rows
from marway.wire.headers import NONFINITE, RUN
from marway.wire.model_run import ModelRun
from marway_sidecar.api.answers import finite_of
from marway_sidecar.backends.base import ServedModel, StackedAnswer
from support.pod import FakeServer, serving
from support.registry import publish, until

SLOW_S = 0.05


async def said(model: ServedModel, row: Row) -> Answer:
    value = bytes(row.parts[0].value)
    if value.startswith(b"["):
        await asyncio.sleep(SLOW_S)
    if value == b"stacked":
        return StackedAnswer(200, b"1", "json", batch_rows=7)
    if value == b"bad":
        return Answer(500, b"no", "error")
    return Answer(200, value, "json")


def run_of(answer: httpx.Response) -> ModelRun:
    return ModelRun.parse(answer.headers[RUN].encode())


async def test_what_is_said(registry: Registry, tmp_path: Path) -> None:
    """Whoever waits for a worker has its wait told, and goes in one call with who waits too; failures say it too."""
    publish(registry, tmp_path, "some", "1.0", serving={"max_workers": 1, "max_batch_rows": 8})
    server = FakeServer(predict_with=said)
    async with serving(registry, tmp_path, server=server) as pod:
        await pod.client.post("/models/some/PROD/load")
        first = asyncio.create_task(pod.predict("some", b"[0]"))
        await until(lambda: len(server.rows) == 1)
        rest = await asyncio.gather(*(pod.predict("some", body) for body in (b"[1.5]", b"[NaN]", b'"NaN"')))
        alone = run_of(await first)
        assert (alone.batch_rows, alone.finite) == (1, True)
        for run, finite in zip(map(run_of, rest), (True, False, True), strict=True):
            assert 0.0 < (run.queue_s or 0.0) < SLOW_S * 100
            assert (run.model_s or 0.0) > SLOW_S * 1.9
            assert (run.batch_rows, run.finite) == (3, finite)
        rows = encode_rows([Row("", [Part("data", b"1", None)])] * 3)
        many = await pod.client.post("/predict/some", content=rows, headers={"content-type": ROWS_CONTENT_TYPE})
        assert (run_of(many).batch_rows, run_of(many).finite) == (3, True)
        piecewise = await pod.predict("some", b"1", x_marway_stream="1")
        assert (run_of(piecewise).batch_rows, run_of(piecewise).finite) == (1, None)
        assert run_of(await pod.predict("some", b"stacked")).batch_rows == 7
        failed = await pod.predict("some", b"bad")
        assert (failed.status_code, run_of(failed).batch_rows) == (500, 1)
        refused = await pod.predict("some", b"")
        assert (refused.status_code, RUN in refused.headers) == (400, False)


@pytest.mark.parametrize(
    ("answers", "finite"),
    [
        ([Answer(200, b'{"a": [1, -0.5]}', "json")], True),
        ([Answer(200, b'{"a": [1, -Infinity]}', "json")], False),
        ([Answer(200, b'{"NaN": "Infinity"}', "json")], True),
        ([Answer(200, b'"NaN"' + b" " * 70_000, "json")], None),
        ([Answer(200, b"NaN", "text")], None),
        ([Answer(200, b"1", "json"), Answer(200, b"x", "tensor")], None),
        ([Answer(200, b"x", "tensor"), Answer(200, b"NaN", "json")], False),
        ([Answer(200, b"null", "json", headers={NONFINITE.title(): "1"})], False),
    ],
)
def test_finite(answers: list[Answer], finite: bool | None) -> None:
    """JSON is looked at, a handler's word is taken, and what nobody looked at is said to be unknown."""
    assert finite_of(answers) is finite


def test_finite_with_nulls() -> None:
    """Where such numbers are made null, nobody knows what a null was."""
    assert finite_of([Answer(200, b"[null]", "json")], nulls=True) is None
    assert finite_of([Answer(200, b"[null]", "json")]) is True
    assert finite_of([Answer(200, b"[1]", "json")], nulls=True) is True
