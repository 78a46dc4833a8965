"""The dashboards: Grafana can read them, and what they ask for exists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.monitoring import (
    OVERLAY,
    base_name,
    dashboards,
    documented,
    grafana_filled_in,
    labels_by_metric,
    panel_expressions,
    promtool,
    rule_expressions,
)

SCRAPED = {"namespace", "pod", "pool", "le"}
"""Labels that come from the scrape settings, and that of a histogram's buckets."""
NOT_SHOWN: dict[str, str] = {
    "marway_sidecar_handler_metrics_dropped_total": "for a handler's author, who misses a metric of their own",
    "process_start_time_seconds": "for one's own queries: restarts are seen by Kubernetes' own metrics",
    "process_virtual_memory_bytes": "says nothing of the memory that is taken",
}
"""Metrics that stand neither on a dashboard nor in a rule, with the reason."""


def every_expression() -> list[tuple[str, str]]:
    """Return each expression of rules and dashboards with where it stands."""
    found = [
        (f"{file}, {where}", grafana_filled_in(expression))
        for file, dashboard in dashboards().items()
        for where, expression in panel_expressions(dashboard)
    ]
    return [*found, *rule_expressions().items()]


def test_the_overlay_brings_every_dashboard() -> None:
    """Each file is in the ConfigMap, with the label that Grafana's sidecar looks for."""
    kustomization = yaml.safe_load((OVERLAY / "kustomization.yaml").read_text())
    (generator,) = kustomization["configMapGenerator"]
    assert generator["files"] == [f"dashboards/{name}" for name in dashboards()]
    assert generator["options"]["labels"]["grafana_dashboard"] == "1"
    assert sum(path.stat().st_size for path in OVERLAY.glob("dashboards/*")) < 250_000, "kubectl apply has a limit"


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_grafana_can_read_it(name: str) -> None:
    """A dashboard has a name of its own, the schema of today, panels that do not overlap, and one data source."""
    dashboard = dashboards()[name]
    assert dashboard["schemaVersion"] >= 41
    assert dashboard["uid"] == f"marway-{name.removesuffix('.json')}"
    assert dashboard["title"].startswith("Marway / ")
    panels = dashboard["panels"]
    assert sorted(panel["id"] for panel in panels) == list(range(1, len(panels) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["title"]
        assert panel["targets"]
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for where, uid in data_sources(dashboard):
        assert uid == "${datasource}", where
    text = json.dumps(dashboard)
    for variable in variables:
        assert f"${variable}" in text or f"${{{variable}}}" in text, f"${variable} is not used"


def data_sources(node: Any, where: str = "") -> list[tuple[str, str]]:
    """Return each data source that a part of a dashboard names, with where."""
    if isinstance(node, list):
        return [found for index, each in enumerate(node) for found in data_sources(each, f"{where}/{index}")]
    if not isinstance(node, dict):
        return []
    found = [(where, node["datasource"]["uid"])] if "datasource" in node else []
    return found + [each for key, value in node.items() for each in data_sources(value, f"{where}/{key}")]


def test_every_expression_parses(tmp_path: Path) -> None:
    """Prometheus takes each expression of the dashboards, with Grafana's variables filled in."""
    found = [
        {"record": f"dashboard:expression:{index}", "expr": expression}
        for index, (_, expression) in enumerate(every_expression())
    ]
    assert len(found) > 60
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": found}]}))
    promtool("check", "rules", "--lint=none", "rules.yaml", cwd=tmp_path)


@pytest.mark.parametrize("name", ["labels.json", "latency.json"])
def test_releases_are_marked_when_they_happen(name: str, tmp_path: Path) -> None:
    """A label that moves is marked for its first minute, back or forth; one that is seen anew after a pause is not."""
    (releases,) = dashboards()[name]["annotations"]["list"]
    series = 'marway_gateway_label_info{namespace="ml", pod="gw-0", model="%s", label="PROD", version="%s"}'
    moved = '{namespace="ml", model="moved", label="PROD", version="%s"}'
    expected = {"19m": (), "20m": ("2.0",), "22m": (), "39m": (), "40m": ("1.0",), "42m": ()}
    test = {
        "interval": "1m",
        "input_series": [
            {"series": series % ("moved", "1.0"), "values": "1x19 _x20 1x20"},
            {"series": series % ("moved", "2.0"), "values": "_x20 1x19"},
            {"series": series % ("idle", "1.0"), "values": "1 1 _x30 1x30"},
        ],
        "promql_expr_test": [
            {
                "expr": grafana_filled_in(releases["expr"]),
                "eval_time": at,
                "exp_samples": [{"labels": moved % version, "value": 1} for version in versions],
            }
            for at, versions in expected.items()
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": [test]}))
    promtool("test", "rules", "test.yaml", cwd=tmp_path)


@pytest.mark.parametrize(("where", "expression"), every_expression(), ids=lambda value: str(value)[:60])
def test_what_is_asked_for_exists(where: str, expression: str) -> None:
    """Every metric is one that there is, or a recorded one, and has the labels that it is asked for."""
    metrics, recorded = documented(), rule_expressions()
    selected, grouped = labels_by_metric(expression)
    assert selected, f"{where} asks for nothing of ours"
    there = set(SCRAPED)
    for name, labels in selected.items():
        if name in recorded:
            own = labels_by_metric(recorded[name])[1] | _recorded_from(recorded[name])
        else:
            metric = metrics[base_name(name)]
            own = set(metric.labels) | SCRAPED
            suffixed = name != base_name(name)
            assert suffixed == (metric.kind == "histogram"), f"{where}: {name} is a {metric.kind}"
        assert labels <= own, f"{where}: {name} has no {labels - own}"
        there |= own
    assert grouped <= there, f"{where} groups by {grouped - there}"


def _recorded_from(expression: str) -> set[str]:
    """Return the labels of a rule that is made of other rules."""
    recorded = rule_expressions()
    names = [name for name in labels_by_metric(expression)[0] if name in recorded]
    return {label for name in names for label in labels_by_metric(recorded[name])[1]}


def test_every_metric_is_looked_at() -> None:
    """No metric is exported that neither a dashboard nor a rule uses, but those with a reason."""
    used = {base_name(name) for _, expression in every_expression() for name in labels_by_metric(expression)[0]}
    assert documented().keys() - used == NOT_SHOWN.keys()
    assert all(NOT_SHOWN.values())
