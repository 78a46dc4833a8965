import io
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, broken_model, down, running
from marway import errors
from marway.errors import MarwayError
from marway.registry import Registry
from marway_gateway.logs import AccessLog, LogSink
from marway_gateway.telemetry import Metrics, outcome_of
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


async def test_access_log(registry: Registry, make_pod: MakePod, capsys: pytest.CaptureFixture[str]) -> None:
    """Each request is one JSON line on stderr that says what it was and where its time went, without its payload."""
    pods = [await make_pod("a", behave=down), await make_pod("b", behave=down)]
    async with running(*pods, registry=registry, access_log=True, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls for pod in pods))
        await gateway.predict("/predict/intent/PROD?secret=1", b"my words", x_request_id="r1", x_request_group_id="g1")
        await gateway.predict("/predict/nix", b"my words", x_request_id="r2")
        for path in ("/healthz", "/readyz", "/metrics"):
            await gateway.client.get(path)
        await gateway.client.get("/models")
    written = capsys.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["event"], line["path"]) for line in lines] == [
        ("request", "/predict/intent/PROD"),
        ("request", "/predict/nix"),
        ("request", "/models"),
    ]
    lost, missing, listed = lines
    assert {name: lost[name] for name in ("method", "status", "outcome", "error", "surface", "request_id")} == {
        "method": "POST",
        "status": 503,
        "outcome": "unavailable",
        "error": "no_pod_available",
        "surface": "native",
        "request_id": "r1",
    }
    assert {name: lost[name] for name in ("group_id", "model", "version", "label", "retries", "request_bytes")} == {
        "group_id": "g1",
        "model": "intent",
        "version": "1.0",
        "label": "PROD",
        "retries": 1,
        "request_bytes": 8,
    }
    assert lost["pod"] in ("a", "b")
    assert lost["response_bytes"] > 0
    assert 0 < lost["resolve_ms"] < lost["duration_ms"]
    assert lost["pod_ms"] < lost["duration_ms"]
    assert (missing["status"], missing["error"], "model" in missing) == (404, "model_not_found", False)
    assert (listed["status"], "surface" in listed) == (200, False)
    assert "my words" not in written
    assert "secret" not in written


async def test_access_log_off(registry: Registry, make_pod: MakePod, capsys: pytest.CaptureFixture[str]) -> None:
    """With the setting off nothing is written."""
    async with running(await make_pod(), registry=registry, access_log=False) as gateway:
        await gateway.predict()
    assert capsys.readouterr().err == ""


async def test_metrics(registry: Registry, make_pod: MakePod) -> None:
    """The metrics are those of the design, in seconds, and what was not resolved makes no model label."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        await gateway.predict()
        pod.behave = broken_model
        await gateway.predict()
        await gateway.predict("/predict/nix")
        await gateway.predict(body=b"")
        text = (await gateway.client.get("/metrics")).text
        assert (await gateway.admin.get("/metrics")).text == text
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert families == {
        "marway_gateway_request_duration_seconds",
        "marway_gateway_requests_in_flight",
        "marway_gateway_retries_total",
        "marway_gateway_retries_refused_total",
        "marway_gateway_requests_queued",
        "marway_gateway_load_aheads_total",
        "marway_gateway_ejections_total",
    }
    name = "marway_gateway_request_duration_seconds_count"
    counted = {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith(name)}
    assert counted == {
        f'{name}{{model="intent",outcome="ok",surface="native",version="1.0"}}',
        f'{name}{{model="intent",outcome="model_error",surface="native",version="1.0"}}',
        f'{name}{{model="intent",outcome="client_error",surface="native",version="1.0"}}',
        f'{name}{{model="",outcome="client_error",surface="native",version=""}}',
    }
    assert "nix" not in text


async def test_requests_in_flight(registry: Registry, make_pod: MakePod) -> None:
    """The gauge counts predict requests while they are being worked on."""
    seen: list[float] = []
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:

        async def behave(pod: FakePod, request: object) -> object:
            seen.append(await gateway.metric("marway_gateway_requests_in_flight"))
            from gateway.fakes import answer

            return await answer(pod, request)  # type: ignore[arg-type]

        pod.behave = behave  # type: ignore[assignment]
        await gateway.predict()
        seen.append(await gateway.metric("marway_gateway_requests_in_flight"))
    assert seen == [1, 0]


def test_metrics_are_an_apps_own() -> None:
    """Two gateways in one process do not share their metrics."""
    one, other = Metrics(), Metrics()
    one.ejections.inc()
    assert other.registry.get_sample_value("marway_gateway_ejections_total") == 0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.InvalidRequest("x"), "client_error"),
        (errors.LabelNotFound("x"), "client_error"),
        (errors.ModelError("x"), "model_error"),
        (errors.DeadlineExceeded("x"), "timeout"),
        (errors.Overloaded("x"), "unavailable"),
        (errors.LoadFailed("x"), "unavailable"),
        (MarwayError("x"), "unavailable"),
    ],
)
def test_outcomes(error: MarwayError, outcome: str) -> None:
    """Every error has one of the design's outcomes."""
    assert outcome_of(error) == outcome


class StuckStream(io.StringIO):
    """A stream whose reader does not read for now."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.free.wait()
        return super().write(text)


def test_log_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """When stderr is stuck, lines beyond the queue are dropped, and the next line that is written says how many."""
    monkeypatch.setattr("marway_gateway.logs._QUEUE_MAX", 2)
    stream = StuckStream()
    sink = LogSink(stream)
    log = AccessLog(sink)
    for number in range(10):
        log.write({"number": number})
    stream.free.set()
    sink.close()
    written = [json.loads(line)["number"] for line in stream.getvalue().splitlines()]
    assert 2 <= len(written) <= 3
    assert written == sorted(written)


def test_dropped_lines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line after dropped ones says how many they were."""
    monkeypatch.setattr("marway_gateway.logs._QUEUE_MAX", 1)
    stream = StuckStream()
    sink = LogSink(stream)
    log = AccessLog(sink)
    for _ in range(10):
        log.write({})
    dropped = sink.handler.dropped
    stream.free.set()
    while sink.handler.queue.qsize():
        pass
    log.write({"last": True})
    sink.close()
    assert dropped in (8, 9)
    assert json.loads(stream.getvalue().splitlines()[-1])["lines_dropped_before"] == dropped


def test_traceback_is_one_line() -> None:
    """A logged exception is one JSON line with its traceback."""
    stream = io.StringIO()
    sink = LogSink(stream)
    logger = logging.Logger("some")
    logger.addHandler(sink.handler)
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError:
        logger.exception("it failed")
    sink.close()
    sink.close()
    line = json.loads(stream.getvalue())
    assert (line["level"], line["event"]) == ("error", "it failed")
    assert "ZeroDivisionError: a bug" in line["traceback"]
