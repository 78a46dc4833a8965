"""After a run with everything on no file below the home, and nothing that processes printed, holds what is redacted.

`tests/gateway/observe/test_canary.py`, which is run each time, asks by every protocol; this one has real pods.
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from marway.objects import DirectoryStore
from marway.registry import open_registry
from marway_archiver import publish
from support.up import Up, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.extended, pytest.mark.timeout(300)]
CANARY, STAYS = "C4NARYbird", "st4ys"
HANDLER = f'''
"""Gives back what it gets, and fails with what it got where that is asked for; prints nothing."""

def handle(data, context):
    if data is None:
        return None
    for row in data:
        if b"fail" in bytes(str(row), "utf-8"):
            raise ValueError("refused by its kind, {STAYS}")
    return [row.get("data") or row.get("body") or "form" for row in data]
'''


def test_no_canary_below_the_home(tmp_path: Path) -> None:
    """JSON, a form and text, answered and failed, by native and v1 routes, with the observations that were kept."""
    handler = tmp_path / "echo.py"
    handler.write_text(HANDLER)
    config = tmp_path / "config.toml"
    config.write_text("[gateway]\nobservations_flush_s = 0.5\n")
    home = tmp_path / "home"
    document = {"email": CANARY, "kind": STAYS}
    with Up(home, "--engine", "native", "--config", str(config)) as up:
        publish(model_name="echo", version="1.0", handler=str(handler), registry=up.registry, label="PROD")
        redact = ["email", "client", "header:x-request-group-id"]
        registry = open_registry(up.registry)
        registry.set_serving("echo", set_fields={"observe": "bodies", "observe_redact": redact}, by="test")
        with httpx.Client(base_url=up.gateway, timeout=60, headers={"x-request-group-id": CANARY}) as client:
            asked = [
                client.post("/predict/echo", json=document),
                client.post("/predict/echo", json={**document, "do": "fail"}),
                client.post("/predict/echo", data=document),
                client.post("/predict/echo", content=CANARY, headers={"content-type": "text/plain"}),
                client.post("/v1/models/echo:predict", json={"instances": [document]}),
            ]
        store = DirectoryStore(home / "registry")
        wait_until(lambda: list(store.keys("observations/")), timeout_s=20, what="an observation")
    assert [answer.status_code for answer in asked] == [200, 500, 200, 200, 200]
    assert CANARY in asked[0].text
    kept = b"".join(store.get(key).data for key in store.keys("observations/"))
    assert kept
    said = [path for path in home.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert said == []
    assert CANARY not in "".join(up.stderr) + json.dumps(up.ready)
