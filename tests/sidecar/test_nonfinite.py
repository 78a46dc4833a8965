"""What a worker is told of numbers that JSON has not: by the version's serving settings, or by the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from marway.registry import Registry
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Part, Row, decode_answers, encode_rows
from marway.wire.headers import JSON_NONFINITE
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, serving
from support.registry import publish


async def told(model: ServedModel, row: Row) -> Answer:
    return Answer(200, row.headers.get(JSON_NONFINITE, "nothing").encode(), "text")


@pytest.mark.parametrize(("setting", "said"), [("error", "nothing"), ("null", "null")])
async def test_the_worker_is_told(registry: Registry, tmp_path: Path, setting: str, said: str) -> None:
    """A plain request goes by the setting, whatever its caller writes; rows of v1 and v2 come as they are."""
    publish(registry, tmp_path, "some", "1.0", serving={"nonfinite": setting})
    rows = encode_rows([Row("", [Part("data", b"x", None)])])
    async with serving(registry, tmp_path, server=FakeServer(predict_with=told)) as pod:
        await pod.client.post("/models/some/PROD/load")
        for content_type in ("text/plain", "application/x-www-form-urlencoded"):
            headers = {"content-type": content_type, JSON_NONFINITE: "allow"}
            answer = await pod.client.post("/predict/some", content=b"a=1", headers=headers)
            assert answer.text == said
        many = await pod.client.post("/predict/some", content=rows, headers={"content-type": ROWS_CONTENT_TYPE})
        assert [each.body for each in decode_answers(many.content)] == [b"allow"]
