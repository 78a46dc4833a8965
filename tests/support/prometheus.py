"""A real Prometheus on a free port, with the overlay's rules, scraping as the overlay's monitors say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from marway_ops.up.home import LOOPBACK, ReservedPort
from support.monitoring import OVERLAY, needs, rule_groups
from support.up import wait_until

__all__ = ["Prometheus", "prometheus"]

_START_S: Final = 30
_STOP_S: Final = 10


class Prometheus:
    """A running Prometheus, by its HTTP API."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=20, trust_env=False)

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data that a route of its API answers."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples that an expression gives now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    @property
    def ready(self) -> bool:
        """Whether it serves."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self._client.close()


def _scrapes(targets: Mapping[str, Sequence[tuple[str, str]]]) -> list[dict[str, Any]]:
    """Return what the operator makes of the monitors, with these targets in place of what it finds in the cluster."""
    scrapes = []
    for monitor in yaml.safe_load_all((OVERLAY / "pod-monitors.yaml").read_text()):
        component = monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        scrapes.append(
            {
                "job_name": f"{monitor['metadata']['name']}/{endpoint['port']}",
                "metrics_path": endpoint["path"],
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "static_configs": [
                    {"targets": [address], "labels": {"namespace": "marway", "pod": pod, "container": component}}
                    for pod, address in targets[component]
                ],
            }
        )
    return scrapes


@contextmanager
def prometheus(directory: Path, **targets: Sequence[tuple[str, str]]) -> Iterator[Prometheus]:
    """Run Prometheus until the context ends; skips the test where it is not installed.

    Args:
        directory: For all its files.
        targets: Pods and their addresses, by component; each is asked once a second, and rules are looked at as often.
    """
    command = needs("prometheus")
    (directory / "rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups()}))
    configuration = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": _scrapes(targets),
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with closing(ReservedPort()) as port, (directory / "log").open("wb") as log:
        address = f"{LOOPBACK}:{port.number}"
        flags = {
            "config.file": directory / "prometheus.yml",
            "storage.tsdb.path": directory / "data",
            "web.listen-address": address,
        }
        process = subprocess.Popen(
            [command, *(f"--{name}={value}" for name, value in flags.items())], stdout=log, stderr=log, cwd=directory
        )
        running = Prometheus(f"http://{address}")
        try:
            wait_until(
                lambda: running.ready or process.poll() is not None, timeout_s=_START_S, what="Prometheus is ready"
            )
            assert process.poll() is None, (directory / "log").read_text()
            yield running
        finally:
            running.close()
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
