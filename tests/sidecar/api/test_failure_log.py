"""The sidecar's log of predictions that failed: the id, the version and why."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from marway.errors import LoadFailed
from marway.registry import Registry
from marway.telemetry import JsonFormatter
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Part, Row, encode_rows
from marway_sidecar.backends.base import Description, ServedModel, WorkerDied
from support.pod import FakeServer, serving
from support.registry import publish


async def answer(model: ServedModel, row: Row) -> Answer:
    """Fail as the input says."""
    value = bytes(row.parts[0].value)
    if value == b"raise":
        return Answer(500, b"ValueError: two\nlines " + b"x" * 5000, "error")
    if value == b"die":
        raise WorkerDied("the worker died during the call")
    return Answer(200, value, "bytes")


class Unloadable(FakeServer):
    """A model server whose loads fail."""

    async def load(self, model: ServedModel) -> Description:
        raise LoadFailed("some 1.0 cannot be loaded: ModuleNotFoundError: No module named 'x' (handler.py line 1)")


def failures(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    return [line for line in lines if line["message"].startswith("prediction failed")]


async def test_a_failed_prediction_is_logged(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What failed here is one line with the caller's id; what went well or was refused has none."""
    publish(registry, tmp_path, "some", "1.0")
    caplog.set_level(logging.INFO)
    async with serving(registry, tmp_path, server=FakeServer(answer)) as pod:
        for body, request in ((b"fine", "r-0"), (b"raise", "r-1"), (b"die", "r-2"), (b"", "r-3")):
            await pod.predict("some", body, x_request_id=request, x_request_group_id="g")
        await pod.predict("other", b"fine", x_request_id="r-4")
    raised, died = failures(caplog)
    assert {name: raised[name] for name in ("level", "request_id", "group_id", "model", "version", "error")} == {
        "level": "error",
        "request_id": "r-1",
        "group_id": "g",
        "model": "some",
        "version": "1.0",
        "error": "model_error",
    }
    assert raised["message"].startswith("prediction failed: ValueError: two\nlines x")
    assert len(raised["message"]) < 1100
    assert (died["request_id"], died["outcome"]) == ("r-2", "worker_died")


async def test_what_is_redacted_is_not_logged(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Headers that are named, and words of an error where fields of inputs are: it may quote them."""
    for version, redact in (("1.0", ("email", "header:x-request-group-id")), ("1.1", ("output.email",))):
        publish(registry, tmp_path, "some", version, serving={"observe_redact": redact})
    async with serving(registry, tmp_path, server=FakeServer(answer)) as pod:
        for version in ("1.0", "1.1"):
            await pod.predict(f"some/{version}", b"raise", x_request_id="r", x_request_group_id="g")
    hidden, shown = failures(caplog)
    assert "ValueError" not in hidden["message"]
    assert hidden["request_id"] == "r"
    assert "group_id" not in hidden
    assert "ValueError" in shown["message"]
    assert shown["group_id"] == "g"


async def test_rows_that_failed_are_logged_once(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a request of many rows one line says how many failed, and why the first did."""
    publish(registry, tmp_path, "some", "1.0")
    sent = [Row("", [Part("data", value, "text/plain")], {}) for value in (b"raise", b"fine", b"raise")]
    async with serving(registry, tmp_path, server=FakeServer(answer)) as pod:
        await pod.predict("some", encode_rows(sent), content_type=ROWS_CONTENT_TYPE, x_request_id="r-1")
    (failed,) = failures(caplog)
    assert (failed["request_id"], failed["rows"], failed["error"]) == ("r-1", 2, "model_error")


async def test_a_failed_load_is_logged_for_its_request(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The request that met it has a line, and the load itself one and no second."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=Unloadable()) as pod:
        answer = await pod.predict("some", b"x", x_request_id="r-1")
        assert "handler.py line 1" in answer.json()["detail"]
    (failed,) = failures(caplog)
    assert (failed["request_id"], failed["error"]) == ("r-1", "load_failed")
    assert len([record for record in caplog.records if record.getMessage().startswith("some 1.0")]) == 1
