"""The rules of the monitoring overlay: they hold, each alert fires when it should, and says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kubernetes.components import settings_of
from support.kubernetes.objects import of_kind, pod_labels, pools
from support.kubernetes.render import OVERLAYS, overlay
from support.monitoring import DOC, OVERLAY, ROOT, alerts, promtool, rule_expressions, rule_groups

CASES = ("alerts.test.yaml", "alerts_of_days.test.yaml")
RUNBOOK = "docs/monitoring.md#"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rules as Prometheus reads them, without the operator's document around them."""
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": rule_groups(namespace="ml")}))
    return path


def cases() -> list[dict[str, Any]]:
    """Return every expectation of the unit tests."""
    tests = [test for name in CASES for test in yaml.safe_load((Path(__file__).parent / name).read_text())["tests"]]
    return [case for test in tests for case in test["alert_rule_test"]]


def test_promtool_takes_the_rules(rules: Path) -> None:
    """Every expression and template of the rules is one that Prometheus takes."""
    promtool("check", "rules", "--lint=all", "--lint-fatal", rules.name, cwd=rules.parent)


@pytest.mark.extended  # test_promtool_takes_the_rules reads the same rules
@pytest.mark.parametrize("name", CASES)
def test_each_alert_fires_and_is_quiet(name: str, rules: Path) -> None:
    """On series made for it each alert fires with its labels and words, and on others it does not."""
    path = rules.with_name(name)
    path.write_text((Path(__file__).parent / name).read_text())
    promtool("test", "rules", path.name, cwd=path.parent)


def test_each_alert_has_a_case_of_both_kinds() -> None:
    """No alert is without series on which it fires, nor without series on which it does not."""
    for fires in (True, False):
        assert {case["alertname"] for case in cases() if bool(case["exp_alerts"]) is fires} == alerts().keys()


def test_each_alert_says_what_it_means_and_what_to_do() -> None:
    """Every alert has its words and a severity, and the sections of the runbook are those of the alerts, in order."""
    text = DOC.read_text()
    sections = re.findall(r"^### (Marway\w+)$", text, re.M)
    assert sections == list(alerts())
    for name, rule in alerts().items():
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == RUNBOOK + name.lower()
        section = text.partition(f"### {name}\n")[2].partition("\n##")[0]
        assert "**Means:**" in section
        assert "**Do:**" in section
    assert (ROOT / RUNBOOK.rstrip("#")) == DOC


def test_what_is_recorded_is_used_and_what_is_used_is_recorded() -> None:
    """Each recorded name stands in an alert or on a dashboard, or makes another one, and none is asked for in vain."""
    recorded = {rule["record"] for group in rule_groups() for rule in group["rules"] if "record" in rule}
    texts = [*rule_expressions().values(), *(path.read_text() for path in OVERLAY.glob("dashboards/*.json"))]
    asked = {name for text in texts for name in re.findall(r"\b(?:model|version|namespace):\w+:\w+", text)}
    # A dashboard shows its own quantiles, over the time that it is zoomed to; this one is there for one's own queries.
    assert recorded - asked == {"version:marway_gateway_request_duration_seconds:p50_5m"}
    assert asked <= recorded


def test_what_is_recorded_is_there_when_it_is_looked_at() -> None:
    """No group records so seldom that a sample is older, when others look, than the 5 minutes for which it holds."""
    seldom = {group["name"]: group.get("interval") for group in rule_groups() if group.get("interval")}
    recording = {group["name"] for group in rule_groups() if any("record" in rule for rule in group["rules"])}
    assert {seldom[name] for name in seldom.keys() & recording} <= {"1m", "2m"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_label_pool_is_the_pool(name: str) -> None:
    """What Prometheus makes a label of every series of a pod is the pool that gateways know it to be in.

    Pods of two engines that are one pool for gateways are told apart by it: the others have their engine's name.
    """
    (monitor,) = (
        each
        for each in yaml.safe_load_all((OVERLAY / "pod-monitors.yaml").read_text())
        if each["metadata"]["name"] == "marway-pod"
    )
    (rule,) = monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]
    assert rule == {"sourceLabels": ["__meta_kubernetes_pod_label_marway_dev_pool"], "targetLabel": "pool"}
    views = pools(overlay(name))
    backends = [settings_of(view, "sidecar").backend for view in views]
    for view, backend in zip(views, backends, strict=True):
        (deployment,) = (
            each for each in of_kind(view, "Deployment") if pod_labels(each)["app.kubernetes.io/component"] == "pod"
        )
        other_engine = backend if backend != backends[0] else None
        expected = settings_of(view, "sidecar").pool or other_engine or "default"
        assert pod_labels(deployment)["marway.dev/pool"] == expected


def test_prometheus_may_scrape_what_it_is_told_to() -> None:
    """The monitors and the network policy name the labels and the port that gateways and pods have in the base."""
    base = OVERLAY.parents[1] / "base"
    documents = [each for path in base.rglob("*.yaml") for each in yaml.safe_load_all(path.read_text())]
    workloads = [each for each in documents if each and each["kind"] in ("Deployment", "StatefulSet")]
    monitors = list(yaml.safe_load_all((OVERLAY / "pod-monitors.yaml").read_text()))
    policy = yaml.safe_load((OVERLAY / "network-policy.yaml").read_text())
    allowed = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    scraped = 0
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        for template in (each["spec"]["template"] for each in workloads):
            if wanted <= template["metadata"]["labels"].items():
                scraped += 1
                ports = {port["name"] for each in template["spec"]["containers"] for port in each.get("ports", ())}
                asked = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
                assert asked <= ports & allowed
    assert scraped == len(workloads) == 2
