import io
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from prometheus_client.metrics import MetricWrapperBase

from gateway.fakes import FakePod, broken_model, down, running
from marway import errors
from marway.errors import MarwayError
from marway.registry import Registry
from marway.serving import ServingSettings
from marway_gateway.observe.logs import LogSink
from marway_gateway.observe.metrics import Metrics, outcome_of
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from marway_gateway.proto.torchserve import inference_pb2, inference_pb2_grpc
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


async def test_access_log(registry: Registry, make_pod: MakePod, capsys: pytest.CaptureFixture[str]) -> None:
    """Each request is one JSON line on stdout that says what it was and where its time went, without its payload."""
    pods = [await make_pod("a", behave=down), await make_pod("b", behave=down)]
    async with running(*pods, registry=registry, access_log=True, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls for pod in pods))
        await gateway.predict("/predict/intent/PROD?secret=1", b"my words", x_request_id="r1", x_request_group_id="g1")
        await gateway.predict("/predict/nix", b"my words", x_request_id="r2")
        for path in ("/healthz", "/readyz", "/metrics"):
            await gateway.client.get(path)
        await gateway.client.get("/models")
    written = capsys.readouterr().out
    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["message"], line["path"]) for line in lines] == [
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


async def test_every_surface_is_logged_alike(
    registry: Registry, make_pod: MakePod, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prediction has one line with the same fields, and a Server-Timing of the same parts, by whatever protocol."""
    publish(registry, tmp_path, version="2", serving=ServingSettings(cache=True))
    pod = await make_pod("a")
    body = b"my words"
    async with (
        running(pod, registry=registry, access_log=True) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        timings = []
        for path in ("/predict/intent/PROD", "/predictions/intent/PROD", "/explanations/intent/PROD"):
            answered = await gateway.predict(path, body, accept=path, x_request_group_id="g", content_type="text/plain")
            timings.append(answered.headers["server-timing"])
        book, theirs = (
            prediction_pb2_grpc.PredictionServiceStub(channel).Predict,
            inference_pb2_grpc.InferenceAPIsServiceStub(channel).Predictions,
        )
        for method, request in (
            (book, prediction_pb2.PredictRequest(runId="intent", document=body.decode())),
            (theirs, inference_pb2.PredictionsRequest(model_name="intent", model_version="PROD", input={"data": body})),
        ):
            call = method(request, metadata=(("x-request-group-id", "g"),))
            await call
            timings.append(str(dict(await call.trailing_metadata())["server-timing"]))
    written = capsys.readouterr().out
    lines = [json.loads(line) for line in written.splitlines()]
    surfaces = ["native", "torchserve", "torchserve", "prediction_grpc", "torchserve_grpc"]
    assert [line["surface"] for line in lines] == surfaces
    always = {"time", "level", "message", "method", "path", "status", "outcome", "surface", "request_id", "group_id"}
    always |= {"model", "version", "label", "pod", "retries", "cache", "duration_ms", "resolve_ms", "pod_ms"}
    always |= {"request_bytes", "response_bytes"}
    for line, timing in zip(lines, timings, strict=True):
        predicted = set() if line["path"].startswith("/explanations") else {"prediction_id"}
        assert line.keys() - {"logger"} == always | predicted
        assert {"resolve", "cache", "pod", "total"} == {part.partition(";")[0].strip() for part in timing.split(",")}
        assert (line["cache"], line["pod"], line["version"], line["group_id"]) == ("miss", "a", "2", "g")
        assert (line["request_bytes"], line["response_bytes"]) == (8, 8)
    assert body.decode() not in written


async def test_access_log_off(registry: Registry, make_pod: MakePod, capsys: pytest.CaptureFixture[str]) -> None:
    """With the setting off nothing is written."""
    async with running(await make_pod(), registry=registry, access_log=False) as gateway:
        await gateway.predict()
    assert capsys.readouterr().out == ""


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
        admin = (await gateway.admin.get("/metrics")).text
    # The looks at the loop, and the process, go on between two requests.
    assert [_unwatched(line) for line in admin.splitlines()] == [_unwatched(line) for line in text.splitlines()]
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert families == {
        "marway_gateway_async_pending",
        "marway_gateway_async_requests_total",
        "marway_gateway_openai_tokens_total",
        "marway_gateway_rollout_changes_total",
        "marway_gateway_rollout_evidence",
        "marway_gateway_rollout_paused",
        "marway_gateway_rollout_percent",
        "marway_gateway_shadow_requests_total",
        "marway_gateway_traffic_requests_total",
        "marway_gateway_request_duration_seconds",
        "marway_gateway_requests_in_flight",
        "marway_gateway_retries_total",
        "marway_gateway_retries_refused_total",
        "marway_gateway_requests_queued",
        "marway_gateway_fallbacks_total",
        "marway_gateway_load_aheads_total",
        "marway_gateway_ejections_total",
        "marway_gateway_table_fetches_total",
        "marway_gateway_graph_node_duration_seconds",
        "marway_gateway_cache_requests_total",
        "marway_gateway_events_deliveries_total",
        "marway_gateway_events_oldest_pending_seconds",
        "marway_gateway_events_pending",
        "marway_gateway_feedback_entries_total",
        "marway_gateway_feedback_calls_total",
        "marway_gateway_feedback_write_seconds",
        "marway_gateway_pods",
        "marway_gateway_registry_stale_seconds",
        "marway_gateway_label_info",
        "marway_gateway_loop_blocked_seconds",
        "marway_gateway_build_info",
        "marway_gateway_observations_written_total",
        "marway_gateway_observations_dropped_total",
        "marway_gateway_observations_waiting",
        "marway_gateway_observations_oldest_seconds",
        "marway_gateway_duties_held",
        "marway_gateway_duty_last_success_timestamp_seconds",
        "marway_gateway_duty_runs_total",
        "marway_model_drift_ks",
        "marway_model_drift_psi",
        "marway_model_drifted",
        "marway_model_quality",
        "marway_model_quality_breached",
        "marway_model_quality_lower",
        "marway_model_quality_predictions",
        "marway_model_quality_upper",
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    }
    name = "marway_gateway_request_duration_seconds_count"
    counted = {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith(name)}
    assert counted == {
        f'{name}{{model="intent",outcome="ok",surface="native",version="1.0"}}',
        f'{name}{{model="intent",outcome="model_error",surface="native",version="1.0"}}',
        f'{name}{{model="intent",outcome="client_error",surface="native",version="1.0"}}',
        f'{name}{{model="",outcome="client_error",surface="native",version=""}}',
    }
    assert '"nix"' not in text


def _unwatched(line: str) -> str:
    """Return a line of metrics, without its value where it is of what goes on by itself."""
    by_itself = ("marway_gateway_loop_blocked", "marway_gateway_dut", "marway_gateway_observations", "process_")
    return line.rpartition(" ")[0] if line.startswith(by_itself) else line


def test_the_metrics_are_the_designs() -> None:
    """The names and labels that dashboards rely on."""
    metrics = Metrics()
    labels = {
        metric.describe()[0].name: metric._labelnames  # type: ignore[no-untyped-call]
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
    }
    assert (
        labels.items()
        >= {
            "marway_gateway_request_duration_seconds": ("model", "version", "surface", "outcome"),
            "marway_gateway_requests_in_flight": (),
            "marway_gateway_retries": ("reason",),
            "marway_gateway_ejections": (),
            "marway_gateway_cache_requests": ("outcome",),
        }.items()
    )


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
    """When stdout is stuck, lines beyond the queue are dropped, and the next line that is written says how many."""
    monkeypatch.setattr("marway_gateway.observe.logs._QUEUE_MAX", 2)
    stream = StuckStream()
    sink = LogSink(stream)
    for number in range(10):
        sink.put((time.time(), {"number": number}))
    stream.free.set()
    sink.close()
    written = [json.loads(line)["number"] for line in stream.getvalue().splitlines()]
    assert 2 <= len(written) <= 3
    assert written == sorted(written)


def test_dropped_lines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line after dropped ones says how many they were."""
    monkeypatch.setattr("marway_gateway.observe.logs._QUEUE_MAX", 1)
    stream = StuckStream()
    sink = LogSink(stream)
    for _ in range(10):
        sink.put((time.time(), {}))
    dropped = sink.dropped
    stream.free.set()
    while sink.waiting:
        pass
    sink.put((time.time(), {"last": True}))
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
    assert (line["level"], line["message"]) == ("error", "it failed")
    assert "ZeroDivisionError: a bug" in line["traceback"]
