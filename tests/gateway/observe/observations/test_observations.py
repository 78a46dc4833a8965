"""What is kept of predictions: written soon, bounded, counted; and never in the way."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from marway.errors import RegistryUnavailable
from marway.objects import DirectoryStore
from marway.serving import QualityRule, ServingSettings
from marway.wire.request import RequestIds
from marway_gateway.observe.metrics import Metrics
from marway_gateway.observe.observations import Limits, Observations
from marway_gateway.observe.observed import Tokens
from marway_gateway.observe.telemetry import RequestInfo
from marway_observations.schema import OBSERVATIONS

QUICK = Limits(flush_s=0.1)


def info(model: str = "intent", **known: Any) -> RequestInfo:
    """A prediction that ended."""
    made = RequestInfo(method="POST", path="/predict/intent", ids=RequestIds("request-1", "group-1"))
    made.prediction_id, made.surface, made.model, made.version, made.observe = (
        "01PREDICTION",
        "native",
        model,
        "1",
        "metadata",
    )
    made.serving = ServingSettings()
    for name, value in known.items():
        setattr(made, name, value)
    return made


class Away(DirectoryStore):
    """A store that can be away, or stand still."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.away = False
        self.still = threading.Event()
        self.still.set()
        self.tries = 0

    def create(self, key: str, data: bytes) -> str:
        self.tries += 1
        self.still.wait(20)
        if self.away:
            raise RegistryUnavailable("the store is away")
        return super().create(key, data)


@pytest.fixture
def store(tmp_path: Path) -> Away:
    return Away(tmp_path / "kept")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def observing(store: Away, metrics: Metrics) -> Iterator[Callable[..., Observations]]:
    """Makes what is to be tested; each is closed in the end."""
    made: list[Observations] = []

    def make(limits: Limits = QUICK) -> Observations:
        made.append(Observations(store, metrics, limits))
        return made[-1]

    yield make
    store.still.set()
    for each in made:
        each.close()


def rows(store: DirectoryStore) -> list[dict[str, Any]]:
    """All that is in a store."""
    found = []
    for key in store.keys("observations/"):
        table = pq.read_table(io.BytesIO(store.get(key).data))
        assert table.schema.names == OBSERVATIONS.names
        found += [row | {"key": key} for row in table.to_pylist()]
    return found


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"marway_gateway_observations_{name}", labels) or 0.0


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_a_prediction_is_in_the_store_within_the_flush_time(
    observing: Callable[..., Observations], store: Away, metrics: Metrics
) -> None:
    """All that is known of it is a row, in the partition of its model and hour, under the gateway's name."""
    kept = observing()
    known = {
        "input": b'{"text": "wake me"}', "output": b"alarm", "input_media": "application/json", "observe": "bodies",
        "output_headers": b"content-type: text/plain\r\n", "label": "PROD", "pod": "pod-1", "status": 200,
        "attempts": 1, "client": "10.0.0.1", "run": b"1000,2500,4,1", "tokens": Tokens(3, 4), "request_bytes": 19,
        "serving": ServingSettings(observe="bodies", observe_rate=0.5),
    }  # fmt: skip
    kept.add(info(**known), 0.25)
    kept.add(info(status="OK", run=b"1,2,0,"), 0.5)
    until(lambda: counted(metrics, "written_total") == 2)
    first, second = rows(store)
    assert first["key"].startswith("observations/model=intent/date=")
    assert first["key"].endswith(".parquet")
    want = {
        "prediction_id": "01PREDICTION", "request_id": "request-1", "group_id": "group-1", "version": "1",
        "label": "PROD", "role": "base", "surface": "native", "client": "10.0.0.1", "pod": "pod-1", "status": "200",
        "outcome": "ok",
        "attempts": 1, "duration_s": 0.25, "queue_s": 0.001, "model_s": 0.0025, "batch_rows": 4, "finite": True,
        "prompt_tokens": 3, "completion_tokens": 4, "rate": 0.5, "bodies": "kept", "input": b'{"text": "wake me"}',
        "input_type": "application/json", "output": b"alarm", "output_type": "text/plain", "request_bytes": 19,
    }  # fmt: skip
    assert {name: first[name] for name in want} == want
    assert abs(first["at"].timestamp() - time.time()) < 60
    assert (second["status"], second["bodies"], second["input"], second["batch_rows"]) == ("OK", "off", None, None)
    assert (second["finite"], second["prompt_tokens"], second["label"]) == (None, None, None)
    assert counted(metrics, "waiting") == counted(metrics, "oldest_seconds") == 0


def test_each_model_and_each_hour_has_files_of_its_own(
    observing: Callable[..., Observations], store: Away, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows go where their model and hour are looked for, however many come at once."""
    kept, now = observing(Limits(flush_s=3600)), [0.0]
    monkeypatch.setattr("marway_gateway.observe.observations.rows.time", type("Clock", (), {"time": lambda: now[0]}))
    for at in (3599.0, 3600.5):
        now[0] = at
        for model in ("intent", "digits") * 1100:
            kept.add(info(model), 0.1)
    kept.close()
    found = rows(store)
    assert len(found) == 4400 == counted(metrics, "written_total")
    assert {row["key"].rpartition("/")[0] for row in found} == {
        f"observations/model={model}/date=1970-01-01/hour={hour}"
        for model in ("intent", "digits")
        for hour in ("00", "01")
    }
    assert all(row["at"].hour == int(row["key"].partition("hour=")[2][:2]) for row in found)


def test_while_the_store_is_away_the_oldest_go_for_new_ones(
    observing: Callable[..., Observations], store: Away, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits is bounded, what is given up is counted, and the rest is written when the store is back, told once."""
    store.away = True
    kept = observing(Limits(flush_s=0.1, buffer_rows=8000))
    sent = 0
    while counted(metrics, "dropped_total", reason="store") < 2000:
        for _ in range(500):
            kept.add(info(request_id=f"request-{sent}"), 0.1)
            sent += 1
        assert counted(metrics, "waiting") <= 8000
        time.sleep(0.02)
    assert counted(metrics, "oldest_seconds") > 0
    store.away = False
    kept.close()
    written = rows(store)
    dropped = counted(metrics, "dropped_total", reason="store") + counted(
        metrics, "dropped_total", reason="buffer_full"
    )
    assert len(written) == counted(metrics, "written_total") == sent - dropped
    assert f"request-{sent - 1}" in {row["request_id"] for row in written}
    said = [record.message for record in caplog.records if "observations" in record.message]
    assert [" cannot be written " in text for text in said] == [True, False]
    assert "are written to" in said[1]


def test_a_store_that_stands_still_holds_up_nobody(
    observing: Callable[..., Observations], store: Away, metrics: Metrics
) -> None:
    """`add` takes microseconds whatever the store does, and refuses what would be too much."""
    store.still.clear()
    kept = observing(Limits(flush_s=0.1, buffer_rows=3000, buffer_bytes=10_000_000))
    longest = 0.0
    for _ in range(5000):
        began = time.thread_time()
        kept.add(info(), 0.1)
        longest = max(longest, time.thread_time() - began)
    until(lambda: store.tries)
    assert longest < 0.05
    assert counted(metrics, "waiting") <= 3000
    store.still.set()


def test_bytes_are_bounded_too(observing: Callable[..., Observations], store: Away, metrics: Metrics) -> None:
    """Large bodies fill the buffer before many rows do; one that is larger than may be kept is not."""
    store.away = True
    kept = observing(Limits(flush_s=3600, buffer_bytes=1_000_000, body_bytes=100_000))
    bodies = ServingSettings(observe="bodies")
    for _ in range(30):
        kept.add(info(observe="bodies", serving=bodies, input=b"x" * 90_000, output=b"y"), 0.1)
    assert counted(metrics, "dropped_total", reason="buffer_full") == 20 - 1
    store.away = False
    kept.close()
    kept = observing(Limits(flush_s=3600, body_bytes=100_000))
    kept.add(info(observe="bodies", serving=bodies, input=b"x" * 200_000, output=b"y"), 0.1)
    kept.close()
    assert [row["bodies"] for row in rows(store)].count("too_large") == 1


def test_at_the_end_what_waits_is_written_or_counted(store: Away, metrics: Metrics) -> None:
    """A store that is away at the end costs the rows, not the end."""
    store.away = True
    kept = Observations(store, metrics, Limits(flush_s=3600))
    kept.add(info(), 0.1)
    began = time.monotonic()
    kept.close()
    kept.close()
    assert time.monotonic() - began < 5
    assert counted(metrics, "waiting") == 0
    assert counted(metrics, "dropped_total", reason="store") == 1


def test_nothing_of_what_is_redacted_reaches_the_store(
    observing: Callable[..., Observations], store: Away, metrics: Metrics
) -> None:
    """Fields, headers, who asked, bodies that nobody can read, and errors that may quote what was sent."""
    serving = ServingSettings(
        observe="bodies",
        observe_redact=("email", "client", "header:X-Request-Group-Id", "header:x-request-id", "header:content-type"),
    )
    common: dict[str, Any] = {"observe": "bodies", "serving": serving, "client": "C4NARY", "group_id": "C4NARY"}
    common |= {"request_id": "C4NARY", "headers": {b"content-type": b"text/C4NARY"}}
    kept = observing(Limits(flush_s=3600))
    kept.add(info(**common, input=b'{"email": "C4NARY", "age": 3}', output=b'{"ok": 1}'), 0.1)
    kept.add(info(**common, input=b"C4NARY", output=b'{"ok": 1}'), 0.1)
    kept.add(info(**common, input=b'{"a": 1}', output=b'{"detail": "C4NARY is no mail"}', outcome="model_error"), 0.1)
    kept.close()
    found = rows(store)
    assert [(row["bodies"], row["input"], row["output"]) for row in found] == [
        ("kept", b'{"age":3}', b'{"ok":1}'),
        ("not_redactable", None, b'{"ok":1}'),
        ("not_redactable", b'{"a":1}', None),
    ]
    assert "C4NARY" not in repr(found)
    for key in store.keys(""):
        assert b"C4NARY" not in store.get(key).data


def test_what_a_sidecar_says_that_is_no_model_run_costs_no_row(
    observing: Callable[..., Observations], store: Away, metrics: Metrics
) -> None:
    """An older or newer sidecar's word is not known, beside one that is."""
    kept = observing(Limits(flush_s=3600))
    for run in (b"new words", None, b"1000,1000,2,0"):
        kept.add(info(run=run), 0.1)
    kept.close()
    assert [(row["queue_s"], row["batch_rows"], row["finite"]) for row in rows(store)] == [
        (None, None, None),
        (None, None, None),
        (0.001, 2, False),
    ]


def test_what_a_rollout_goes_by_is_written_soon(
    observing: Callable[..., Observations], store: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of a candidate, or to a copy, whose quality is declared wait two seconds at most; all others as told."""
    monkeypatch.setattr("marway_gateway.observe.observations.observations._AWAITED_S", 0.0)
    judged = ServingSettings(quality=(QualityRule(kind="correct"),))
    observed = observing(Limits(flush_s=60))
    began = time.monotonic()
    observed.add(info("plain", role="candidate"), 0.01)
    observed.add(info("calm", serving=judged), 0.01)
    observed.add(info("awaited", serving=judged), 0.01)
    observed.add(info("awaited", serving=judged, role="shadow"), 0.01)
    until(lambda: any("awaited" in key for key in store.keys("observations/")))
    assert time.monotonic() - began < 5
    assert not any("plain" in key or "calm" in key for key in store.keys("observations/"))
