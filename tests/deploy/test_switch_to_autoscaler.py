"""From pods by hand to an autoscaler, by the real kubectl: what it sends with and without the page's step."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kubernetes.objects import named
from support.kubernetes.render import KUBERNETES, ROOT, Document, documents, kubectl, render

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
BY_HAND = 6


class Cluster:
    """As much of an API server as one Deployment needs: it keeps what it is sent, and one replica is the default."""

    def __init__(self) -> None:
        self.deployment: Document | None = None
        self.patches: list[Document] = []
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                known: dict[str, Any] = {
                    "/api": {"kind": "APIVersions", "versions": ["v1"]},
                    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
                    "/apis": _GROUPS,
                    "/apis/apps/v1": _RESOURCES,
                }
                if "/deployments/" in path and cluster.deployment is not None:
                    self._say(200, cluster.deployment)
                elif path in known:
                    self._say(200, known[path])
                else:
                    self._say(
                        404,
                        {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404},
                    )

            def do_POST(self) -> None:
                cluster.deployment = self._body()
                self._say(201, cluster.deployment)

            def do_PATCH(self) -> None:
                patch = self._body()
                cluster.patches.append(patch)
                assert cluster.deployment is not None
                _merge(cluster.deployment, patch)
                cluster.deployment["spec"].setdefault("replicas", 1)
                self._say(200, cluster.deployment)

            def _body(self) -> Document:
                body: Document = json.loads(self.rfile.read(int(self.headers["content-length"])))
                return body

            def _say(self, status: int, document: Document) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def replicas(self) -> int:
        assert self.deployment is not None
        return int(self.deployment["spec"]["replicas"])


_NOT_FOUND = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
_GROUPS = {
    "kind": "APIGroupList",
    "apiVersion": "v1",
    "groups": [
        {
            "name": "apps",
            "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
            "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"},
        }
    ],
}
_RESOURCES = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "apps/v1",
    "resources": [
        {
            "name": "deployments",
            "singularName": "deployment",
            "namespaced": True,
            "kind": "Deployment",
            "verbs": ["create", "get", "list", "patch", "update"],
            "shortNames": ["deploy"],
        }
    ],
}


def _merge(target: Document, patch: Document) -> None:
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict) and isinstance(target.get(name), dict):
            _merge(target[name], value)
        else:
            target[name] = value


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(10)


def run(cluster: Cluster, home: Path, command: str) -> None:
    """Run a command line of the page, with the tests' kubectl, on this cluster alone."""
    tools = home / "bin"
    tools.mkdir(exist_ok=True)
    link = tools / "kubectl"
    if not link.exists():
        address = f"http://127.0.0.1:{cluster.server.server_address[1]}"
        link.write_text(f'#!/bin/sh\nexec {kubectl()} --server {address} --cache-dir {home}/cache "$@"\n')
        link.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(home), "KUBECONFIG": "/dev/null"}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def apply(cluster: Cluster, home: Path, deployment: Document) -> None:
    file = home / "deployment.yaml"
    file.write_text(yaml.safe_dump(deployment))
    run(cluster, home, f"kubectl apply --validate=false -f {file}")


def of_overlay(name: str) -> Document:
    return named(documents(render(KUBERNETES / "overlays" / name)), "Deployment", "marway-pod")


def by_hand() -> Document:
    """The Deployment of the overlay `s3` as somebody has it who set its number of pods."""
    found = of_overlay("s3")
    found["spec"]["replicas"] = BY_HAND
    return found


@pytest.mark.parametrize("overlay", ["autoscale", "autoscale-hpa"])
def test_the_step_keeps_the_pods(cluster: Cluster, tmp_path: Path, overlay: str) -> None:
    """After the page's step, applying an autoscaler's overlay leaves the number of pods alone."""
    (step,) = re.findall(r"^(kubectl .*view-last-applied .*)$", PAGE, re.MULTILINE)
    apply(cluster, tmp_path, by_hand())
    run(cluster, tmp_path, step)
    assert cluster.replicas == BY_HAND
    apply(cluster, tmp_path, of_overlay(overlay))
    assert cluster.replicas == BY_HAND


def test_without_the_step_one_pod_is_left(cluster: Cluster, tmp_path: Path) -> None:
    """What the page warns of: kubectl takes the number away, and the API's default is one."""
    apply(cluster, tmp_path, by_hand())
    apply(
        cluster, tmp_path, named(documents(render(KUBERNETES / "overlays" / "autoscale")), "Deployment", "marway-pod")
    )
    assert cluster.patches[-1]["spec"]["replicas"] is None
    assert cluster.replicas == 1
