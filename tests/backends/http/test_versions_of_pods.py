"""Servers that have one version each: a release finds the pod that has it, and so does the way back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx
import pytest

from marway_archiver import publish_bundle
from support.servers.process import free_ports
from support.up import Up, wait_until

# Extended: tests/sidecar/backends/test_http_backend.py has a pod that refuses what its server does not have.
pytestmark = [pytest.mark.extended, pytest.mark.e2e, pytest.mark.timeout(240)]

SERVER = """\
import sys
from aiohttp import web

async def answer(request):
    await request.read()
    return web.json_response({"version": sys.argv[2]})

app = web.Application()
app.router.add_post("/predict", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


def test_a_label_moves_from_pod_to_pod(tmp_path: Path) -> None:
    """With a pod for each version, PROD moves to the second one and back; each answer is of the version asked for."""
    (tmp_path / "server.py").write_text(SERVER)
    ports = dict(zip(("1.0", "2.0"), free_ports(2), strict=True))
    config = ["[up]", "pods = 2", 'engine = "http,http"', "[up.servers]"]
    for pod, (version, port) in enumerate(ports.items()):
        command = f"{sys.executable} {tmp_path / 'server.py'} {port} {version}"
        config.append(f"pod-{pod} = {json.dumps(command)}")
    for pod, (version, port) in enumerate(ports.items()):
        config += [f"[pods.pod-{pod}]", f'http_predict = "http://127.0.0.1:{port}/predict"']
        config.append(f'http_serves = ["m/{version}"]')
    (tmp_path / "marway.toml").write_text("\n".join(config))

    def said(reference: str) -> str:
        answer = client.post(f"{up.gateway}/predict/{reference}", content=b"x")
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == answer.headers["x-model-version"]
        return str(answer.json()["version"])

    with (
        Up(tmp_path / "home", "--config", str(tmp_path / "marway.toml")) as up,
        httpx.Client(timeout=60, trust_env=False) as client,
    ):
        admin = str(up.ready["admin"])
        for version in ports:
            publish_bundle(model_name="m", version=version, backend="http", registry=up.registry)
            moved = client.put(f"{admin}/models/m/labels/PROD", json={"version": version})
            assert moved.status_code == 200, moved.text
            wait_until(lambda: said("m/PROD") == version, timeout_s=10, what="the label moved")  # noqa: B023 - now
        moved = client.post(f"{admin}/models/m/labels/PROD/rollback")
        assert moved.status_code == 200, moved.text
        wait_until(lambda: said("m/PROD") == "1.0", timeout_s=10, what="the label moved back")
        assert [said(f"m/{version}") for version in ports] == ["1.0", "2.0"]
