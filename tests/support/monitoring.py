"""What the monitoring overlay and docs/monitoring.md hold, and Prometheus' tools where they are installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

__all__ = [
    "DOC",
    "OVERLAY",
    "ROOT",
    "Metric",
    "alerts",
    "base_name",
    "dashboards",
    "documented",
    "grafana_filled_in",
    "labels_by_metric",
    "needs",
    "panel_expressions",
    "promtool",
    "rule_expressions",
    "rule_groups",
]

ROOT: Final = Path(__file__).resolve().parents[2]
OVERLAY: Final = ROOT / "deploy" / "kubernetes" / "overlays" / "monitoring"
DOC: Final = ROOT / "docs" / "monitoring.md"

_ROW: Final = re.compile(
    r"^\| `(?P<name>(?:marway|process)_\w+)` \| (?P<kind>\w+) \| (?P<labels>[^|]*)\| (?P<says>[^|]+)\|$", re.M
)
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?")
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Metric:
    """One metric as docs/monitoring.md has it."""

    kind: str
    labels: frozenset[str]


def documented() -> dict[str, Metric]:
    """Return every metric of the tables of docs/monitoring.md by its name."""
    return {
        row["name"]: Metric(row["kind"], frozenset(re.findall(r"`(\w+)`", row["labels"])))
        for row in _ROW.finditer(DOC.read_text())
    }


def rule_groups(*, namespace: str = "marway") -> list[dict[str, Any]]:
    """Return the groups of the PrometheusRule of an installation in ``namespace``, which kustomize puts in."""
    text = (OVERLAY / "rules.yaml").read_text().replace("$(MONITORED_NAMESPACE)", namespace)
    groups: list[dict[str, Any]] = yaml.safe_load(text)["spec"]["groups"]
    return groups


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alert rules by name."""
    rules = [rule for group in rule_groups() for rule in group["rules"] if "alert" in rule]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    return {rule["alert"]: rule for rule in rules}


def rule_expressions() -> dict[str, str]:
    """Return the expression of every rule, by the name of what it records or of its alert."""
    return {rule.get("alert") or rule["record"]: rule["expr"] for group in rule_groups() for rule in group["rules"]}


def dashboards() -> dict[str, dict[str, Any]]:
    """Return the dashboards by file name."""
    return {path.name: json.loads(path.read_text()) for path in sorted((OVERLAY / "dashboards").glob("*.json"))}


def panel_expressions(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield where an expression stands and the expression: panels, annotations, and queries of variables."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", ""))
        if found is not None:
            yield f"${variable['name']}", f"count by ({found[2]}) ({found[1]})"


def grafana_filled_in(expression: str) -> str:
    """Return an expression of a dashboard with Grafana's variables filled in."""
    filled = expression.replace("$__rate_interval", "5m")
    return re.sub(r"\$(?:namespace|model|version|pod|label)\b", ".*", filled)


def labels_by_metric(expression: str) -> tuple[dict[str, set[str]], set[str]]:
    """Return the labels that each metric of an expression is selected by, and the labels that it is grouped by."""
    grouped: set[str] = set()
    for names in _GROUPING.findall(expression):
        grouped |= {name.strip() for name in names.split(",") if name.strip()}
    bare = _STRING.sub('""', _GROUPING.sub(" ", expression))
    selected: dict[str, set[str]] = {}
    for name, matchers in _SELECTOR.findall(bare):
        if name.startswith(("marway_", "process_")) or ":" in name:
            selected.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
    return selected, grouped


def base_name(name: str) -> str:
    """Return the metric that a series of a histogram belongs to; others stand for themselves."""
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    known = documented()
    return stem if stem in known and known[stem].kind == "histogram" else name


def needs(tool: str) -> str:
    """Return where one of Prometheus' programs is, or skip the test."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed here: it comes with the Debian package prometheus")
    return found


def promtool(*arguments: str, cwd: Path) -> None:
    """Run promtool, and fail with what it prints."""
    done = subprocess.run([needs("promtool"), *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
