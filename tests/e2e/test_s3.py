"""Everything on one machine, with the registry in a real S3 server."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from marway.refs import new_ulid
from marway_archiver import pack
from support.cli import marway
from support.seaweed import S3Server
from support.up import Up

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
MODELS = Path(__file__).parent / "models"
STALE_S = 2.0
"""How long an old version may answer after a label has moved: what Marway promises."""


def ask(up: Up, text: bytes) -> httpx.Response:
    return httpx.post(
        f"{up.gateway}/predict/probe", content=text, headers={"content-type": "text/plain"}, timeout=60, trust_env=False
    )


@pytest.mark.extended  # tests/core/registry and tests/sidecar/archives have all that they do, on S3 too
def test_a_registry_in_s3_serves_releases_and_rolls_back(tmp_path: Path, s3_server: S3Server) -> None:
    """With `--registry s3://…` an archive is served, a moved label is followed in time, and so is its roll-back."""
    url = f"s3://{s3_server.bucket}/{new_ulid().lower()}"
    for version in ("1.0", "2.0"):
        (tmp_path / version).mkdir()
        pack(model_name="probe", version=version, handler=str(MODELS / "probe.py"), export_path=tmp_path / version)
    with Up(
        tmp_path / "home",
        str(tmp_path / "1.0" / "probe.mar"),
        "--registry",
        url,
        "--create-registry",
        env=s3_server.env,
    ) as up:
        assert up.registry == url
        assert ask(up, b"text").headers["x-model-version"] == "1.0"
        for words, version in (
            (
                ("publish", str(tmp_path / "2.0" / "probe.mar"), "--label", "PROD", "--gateway", up.ready["admin"]),
                "2.0",
            ),
            (("rollback", "probe", "--label", "PROD"), "1.0"),
        ):
            done = marway(*words, "--registry", url, **s3_server.env)
            assert done.returncode == 0, done.stderr
            moved = time.monotonic()
            while True:
                asked = time.monotonic()
                answer = ask(up, b"text")
                assert answer.status_code == 200, answer.text
                if answer.headers["x-model-version"] == version:
                    break
                assert asked - moved <= STALE_S, "an answer by the old version, asked for after the promised bound"


@pytest.mark.extended  # tests/runtime/forkserver/test_forked_workers.py looks at a worker's environment
def test_handlers_see_no_credentials(tmp_path: Path, s3_server: S3Server) -> None:
    """The credentials that sidecar and gateway use are not in the environment of TorchServe and its workers."""
    url = f"s3://{s3_server.bucket}/{new_ulid().lower()}"
    pack(model_name="probe", version="1.0", handler=str(MODELS / "probe.py"), export_path=tmp_path)
    with Up(
        tmp_path / "home", str(tmp_path / "probe.mar"), "--registry", url, "--create-registry", env=s3_server.env
    ) as up:
        assert ask(up, b"secrets").json() == []
