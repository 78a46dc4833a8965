"""The OpenAPI documents as programs read them: valid, and clients made of them work."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.fakes import FakePod, answer, running
from gateway.handlers import echo, handling
from marway.registry import Registry
from marway.wire.envelope import ROWS_CONTENT_TYPE
from support.ports import Port
from support.servers.environments import environment

rows = handling(echo)
TOKEN = "one-token.of~ours"


@pytest.mark.extended  # gateway/test_openapi.py looks at the document without the standard's own schemas
async def test_documents_are_valid(port: Port) -> None:
    """What each port says of itself is OpenAPI 3.1, by the schemas of the standard."""
    async with httpx.AsyncClient(base_url=port.url) as client:
        document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    found = OpenAPIV31SpecValidator(document).iter_errors()
    assert [(each.message[:300], [*each.absolute_path]) for each in found] == []


async def either(pod: FakePod, request: object) -> object:
    """Give back what came, whole or row by row."""
    return await (rows if request.headers.get("content-type") == ROWS_CONTENT_TYPE else answer)(pod, request)  # type: ignore[attr-defined]


@pytest.mark.extended  # gateway/test_openapi.py and gateway/surfaces/test_schemathesis.py ask by the document
@pytest.mark.timeout(900)  # the environment of the generator is made first
async def test_a_generated_client_works(registry: Registry, tmp_path: Path) -> None:
    """A client that openapi-python-client makes reads models, predicts, gives feedback and is told errors."""
    tools = await asyncio.to_thread(environment, "openapi")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    pod = FakePod("a", behave=either)  # type: ignore[arg-type]
    await pod.start()

    def run(*command: str | Path) -> str:
        env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(tmp_path)}
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    try:
        async with running(pod, registry=registry, predict_tokens_file=tokens) as gateway:
            document = (await gateway.client.get("/openapi.json")).json()
            (tmp_path / "openapi.json").write_text(json.dumps(document))
            # It knows no bodies of text and pictures: bytes are what it sends for each.
            kinds = dict.fromkeys(("text/plain", "image/png", "image/jpeg"), "application/octet-stream")
            (tmp_path / "config.json").write_text(json.dumps({"content_type_overrides": kinds}))
            said = await asyncio.to_thread(
                run,
                *(tools / "openapi-python-client", "generate", "--path", tmp_path / "openapi.json"),
                *("--output-path", tmp_path / "ours", "--meta", "none", "--config", tmp_path / "config.json"),
            )
            assert "WARNING" not in said
            program = Path(__file__).with_name("generated_client.py")
            assert "all of it" in await asyncio.to_thread(run, tools / "python", program, gateway.addresses.gateway)
    finally:
        await pod.stop()
