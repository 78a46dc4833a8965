"""Monitoring over real TorchServe: the metrics are the documented ones, and Prometheus makes alerts of them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import torch
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from marway.wire.envelope import ROWS_CONTENT_TYPE, Part, Row, decode_answers, encode_rows
from marway_archiver import publish
from support.monitoring import alerts, dashboards, documented, grafana_filled_in, panel_expressions
from support.prometheus import Prometheus, prometheus
from support.up import Up, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MODEL = """\
import torch


class Net(torch.nn.Module):
    input_shape = (2,)

    def forward(self, numbers):
        return numbers / numbers.flip(1)
"""
GOOD, NAN = b"[1, 2]", b"[1, 0]"
RARE = {
    "marway_sidecar_handler_metrics_dropped_total": "a handler whose metrics are too many or have no right name",
    "marway_gateway_events_deliveries_total": "this gateway was told of no webhook",
    "marway_gateway_events_oldest_pending_seconds": "this gateway was told of no webhook",
    "marway_gateway_events_pending": "this gateway was told of no webhook",
    "marway_gateway_fallbacks_total": "no version here has a fallback",
    "marway_gateway_graph_node_duration_seconds": "no graph is here",
    "marway_gateway_table_fetches_total": "no table is here",
    "marway_gateway_feedback_calls_total": "nobody sent any",
    "marway_gateway_observations_dropped_total": "the store took all",
    "marway_gateway_retries_total": "nothing failed",
    "marway_gateway_traffic_requests_total": "no label is divided here",
    "marway_gateway_shadow_requests_total": "no label is divided here",
    "marway_gateway_rollout_percent": "no label is divided here",
    "marway_gateway_rollout_paused": "no label is divided here",
    "marway_gateway_rollout_evidence": "no label is divided here",
    "marway_gateway_rollout_changes_total": "no label is divided here",
    "marway_model_drift_ks": "no model here declares drift",
    "marway_model_drift_psi": "no model here declares drift",
    "marway_model_drifted": "no model here declares drift",
    "marway_model_quality": "no model here declares quality",
    "marway_model_quality_breached": "no model here declares quality",
    "marway_model_quality_lower": "no model here declares quality",
    "marway_model_quality_predictions": "no model here declares quality",
    "marway_model_quality_upper": "no model here declares quality",
    "marway_gateway_openai_tokens_total": "no server of language models is asked",
    "marway_sidecar_worker_deaths_total": "no worker died",
    "marway_gateway_load_aheads_total": "no version moved",
    "marway_gateway_cache_requests_total": "no model here may be cached",
    "marway_sidecar_model_evictions_total": "there is room for all",
    "marway_sidecar_weights_bytes": "no workers share weights",
    "marway_sidecar_sequences": "no version keeps sequences",
    "marway_sidecar_worker_copied_bytes": "no workers share weights",
    "marway_sidecar_device_bytes": "there is no GPU",
    "marway_sidecar_device_used_bytes": "there is no GPU",
    "marway_sidecar_device_workers": "there is no GPU",
    "marway_sidecar_golden_checks_total": "of models with golden examples, on the pods that were asked",
}
"""Metrics whose labels are not there before something happens that need not have happened here."""
ALERT_S = 40


@pytest.fixture(scope="module")
def ratio(up: Up, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model under the shipped tensor handler, which divides by what it is sent."""
    directory = tmp_path_factory.mktemp("ratio")
    (directory / "model.py").write_text(MODEL)
    torch.save({}, directory / "weights.pt")
    spec = importlib.util.find_spec("marway_handlers.tensor")
    assert spec is not None
    assert spec.origin is not None
    publish(
        model_name="ratio",
        version="1.0",
        handler=spec.origin,
        model_file=str(directory / "model.py"),
        serialized_file=str(directory / "weights.pt"),
        examples=[{"data": [1, 2]}, {"data": [3, 4]}],
        registry=up.registry,
        label="PROD",
    )
    return "ratio"


def urls(up: Up) -> dict[str, str]:
    """Return where the gateway and each pod are."""
    return {"gateway": up.gateway, **{pod["name"]: pod["url"] for pod in up.ready["pods"]}}


def families(url: str) -> list[Family]:
    text = httpx.get(f"{url}/metrics", timeout=20, trust_env=False).text
    return list(text_string_to_metric_families(text))


def counted(up: Up, name: str, labels: Mapping[str, str]) -> float:
    """Return a metric's value for these labels, summed over the pods."""
    return sum(
        sample.value
        for pod in up.ready["pods"]
        for family in families(pod["url"])
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    )


def test_answers_that_are_not_finite_are_counted(up: Up, client: httpx.Client, ratio: str) -> None:
    """A model that answers infinity is counted row by row, singly and in a batch, and its callers get an error each."""
    labels = {"model": ratio, "version": "1.0"}

    def total() -> float:
        return counted(up, "marway_sidecar_nonfinite_answers_total", labels)

    before = total()
    answers = [client.post(f"/predict/{ratio}", content=body) for body in (GOOD, NAN, NAN, GOOD)]
    assert [answer.status_code for answer in answers] == [200, 500, 500, 200]
    assert answers[0].json() == [0.5, 2.0]
    assert "not finite" in answers[1].json()["error"]
    assert not any(name.startswith("x-marway") for answer in answers for name in answer.headers)
    assert total() == before + 2
    rows = [Row("", [Part("data", body)], {"content-type": "application/json"}) for body in (NAN, GOOD, NAN, NAN)]
    said = httpx.post(
        f"{up.ready['pods'][0]['url']}/predict/{ratio}",
        content=encode_rows(rows),
        headers={"content-type": ROWS_CONTENT_TYPE},
        timeout=60,
        trust_env=False,
    )
    assert said.status_code == 200, said.text
    assert [answer.status for answer in decode_answers(said.content)] == [500, 200, 500, 500]
    assert total() == before + 5


def test_the_metrics_are_the_documented_ones(up: Up, client: httpx.Client, ratio: str) -> None:
    """Gateway and sidecars have every metric of docs/monitoring.md, with its kind and labels, and no others."""
    assert client.post("/predict/intent/PROD", content=b"tell me a joke").status_code == 200
    assert client.post(f"/predict/{ratio}", content=NAN).status_code == 500
    assert client.post("/predict/nobody-published-this").status_code == 404
    found: dict[str, str] = {}
    labelled: dict[str, set[frozenset[str]]] = {}
    for where, url in urls(up).items():
        for family in families(url):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            own = ("marway_gateway_", "marway_model_") if where == "gateway" else ("marway_sidecar_", "marway_runtime_")
            assert name.startswith((*own, "process_"))
            found[name] = family.type
            labelled.setdefault(name, set()).update(frozenset(each.labels) - {"le"} for each in family.samples)
            for each in family.samples:
                assert each.labels.get("model") != "nobody-published-this"
    metrics = documented()
    assert found == {name: metric.kind for name, metric in metrics.items()}
    silent = {name for name, seen in labelled.items() if not seen}
    assert silent <= RARE.keys()
    for name, seen in labelled.items():
        assert seen <= {metrics[name].labels}, name


@pytest.fixture
def scraping(up: Up, ratio: str, tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus, on this gateway and these pods."""
    gateway = [("gateway-0", urlsplit(up.gateway).netloc)]
    pods = [(pod["name"], urlsplit(pod["url"]).netloc) for pod in up.ready["pods"]]
    with prometheus(tmp_path, gateway=gateway, pod=pods) as running:
        yield running


def test_prometheus_makes_alerts_of_what_happens(
    up: Up, client: httpx.Client, ratio: str, scraping: Prometheus
) -> None:
    """Prometheus scrapes all as the monitors say, takes every rule and dashboard, and fires for what went wrong."""

    def scraped() -> list[str]:
        return [target["health"] for target in scraping.get("targets")["activeTargets"]]

    wait_until(lambda: scraped() == ["up"] * 3, timeout_s=ALERT_S, what="all are scraped")
    assert client.post(f"/predict/{ratio}", content=NAN).status_code == 500
    assert client.post("/predict/broken", content=b"x").status_code >= 500
    expected = {("MarwayNonfiniteAnswers", ratio), ("MarwayLoadsFail", "broken")}

    def firing() -> set[tuple[str, str]]:
        found = scraping.get("alerts")["alerts"]
        return {
            (each["labels"]["alertname"], each["labels"].get("model", ""))
            for each in found
            if each["state"] == "firing"
        }

    wait_until(lambda: expected <= firing(), timeout_s=ALERT_S, what="both alerts fire")
    rules = [rule for group in scraping.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == alerts().keys()
    assert [rule for rule in rules if rule["health"] == "err"] == []
    names = {name for name, rule in alerts().items() if rule["labels"]["severity"] == "critical"}
    assert not {name for name, _ in firing()} & names, "nothing here is worth waking anybody"
    for file, dashboard in dashboards().items():
        for where, expression in panel_expressions(dashboard):
            assert isinstance(scraping.query(grafana_filled_in(expression)), list), f"{file}, {where}"
    shown = {json.dumps(each["metric"], sort_keys=True) for each in scraping.query("marway_gateway_label_info")}
    assert any('"label": "PROD", "model": "ratio"' in each for each in shown)
