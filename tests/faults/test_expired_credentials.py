"""Credentials that expire while gateway and sidecar run, and are renewed in the file that they came from."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from gateway.fakes import running
from marway.objects import open_store
from marway.refs import new_ulid
from marway.registry import Registry
from marway_gateway.settings import PodAddress
from support.cli import marway, refused
from support.expiring_s3 import expiring_s3
from support.pod import serving
from support.registry import publish
from support.seaweed import S3Server

WAIT_S = 120


def renew(path: Path, token: str) -> None:
    """Write credentials, as what renews them does: a new file in the old one's place."""
    written = path.with_suffix(".new")
    written.write_text(f"[default]\naws_access_key_id = k\naws_secret_access_key = s\naws_session_token = {token}\n")
    written.replace(path)


@pytest.fixture
def credentials(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that credentials come from, with a token that holds; the environment has none."""
    path = tmp_path / "credentials"
    renew(path, "first")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    return path


async def says_why(ask: Callable[[], Awaitable[httpx.Response]]) -> None:
    """Ask until the refusal says why: a machine that is busy may not have heard from the registry in time."""
    async with asyncio.timeout(WAIT_S):
        while True:
            answer = await ask()
            assert answer.status_code == 503, answer.text
            if "credentials have expired" in answer.json()["detail"]:
                assert "ExpiredToken" in answer.json()["detail"]
                return


@pytest.mark.extended  # tests/core/objects/test_s3_store.py has what each refusal of S3 becomes
@pytest.mark.timeout(600)
async def test_fault_expired_credentials(
    s3_server: S3Server, credentials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is loaded serves on, what is not is refused with the reason, and all is well once the file is renewed."""
    with expiring_s3(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        registry = Registry(open_store(f"s3://{s3_server.bucket}/{new_ulid().lower()}"))
        registry.create()
        await asyncio.to_thread(publish, registry, tmp_path)
        await asyncio.to_thread(publish, registry, tmp_path, "other", "1.0")
        async with (
            serving(registry, tmp_path) as pod,
            running(PodAddress(name="pod-0", url=pod.url), registry=registry) as gateway,
        ):
            async with asyncio.timeout(WAIT_S):
                while (loaded := await gateway.predict("/predict/intent")).status_code != 200:
                    assert "the registry has not answered" in loaded.text  # on a machine that is busy

            proxy.expired.add("first")
            async with asyncio.timeout(WAIT_S):
                while proxy.refused < 2:  # the gateway reads the states of models in use
                    assert (await gateway.predict("/predict/intent")).status_code == 200
            await says_why(lambda: gateway.predict("/predict/other"))
            await says_why(lambda: pod.client.post("/models/other/1.0/load"))
            assert (await gateway.predict("/predict/intent")).status_code == 200
            command = ("models", "--registry", registry.url)
            assert "credentials have expired" in refused(await asyncio.to_thread(marway, *command, **aws))

            renew(credentials, "second")
            answers: list[int] = []

            async def fetched() -> bool:
                answers.append((await gateway.predict("/predict/other")).status_code)
                return answers[-1] == 200

            async with asyncio.timeout(WAIT_S):
                while not await fetched():
                    await asyncio.to_thread(threading.Event().wait, 0.1)
            assert set(answers) <= {200, 503}
            assert proxy.passed["second"] > 0
            print(f"\n{proxy.refused} requests refused, {len(answers)} predictions until the renewed file was read")
            said = await asyncio.to_thread(marway, *command, **aws)
            assert said.returncode == 0, said.stderr
