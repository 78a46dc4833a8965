from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marway.wire.runtime import RuntimeInfo, read_runtime_info
from marway_archiver import pack
from support.trained import EXAMPLES, trained

# After ours, which imports it without the warning that it gives.
from model_archiver.model_archiver_config import ModelArchiverConfig  # isort: skip
from model_archiver.model_packaging import generate_model_archive  # isort: skip

START_TIMEOUT_S = 120
SAMPLES = EXAMPLES / "digits" / "samples"


@pytest.fixture
def torchserve(tmp_path: Path) -> Iterator[RuntimeInfo]:
    """A real TorchServe on free ports, over the model store `tmp_path/store`."""
    (tmp_path / "store").mkdir()
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-m", "marway", "runtime", "--runtime-dir", tmp_path / "run", "--model-store"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (
        (tmp_path / "runtime.log").open("wb") as log,
        subprocess.Popen(
            [*map(str, command), str(tmp_path / "store")], env=env, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            yield until_ready(process, tmp_path)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def until_ready(process: subprocess.Popen[bytes], directory: Path) -> RuntimeInfo:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        info = read_runtime_info(directory / "run")
        if info is not None:
            return info
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError((directory / "runtime.log").read_text(errors="replace")[-2000:])


def request(url: str, body: bytes = b"", content_type: str = "text/plain") -> tuple[int, str | None, Any]:
    headers = {"content-type": content_type}
    asked = urllib.request.Request(url, data=body, headers=headers, method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=120) as reply:
            return reply.status, reply.headers.get("content-type"), json.load(reply)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.headers.get("content-type"), json.load(exc)


@pytest.mark.extended  # tests/e2e/test_differential.py serves archives of both
@pytest.mark.e2e
def test_real_torchserve_answers_equally_for_their_archive_and_ours(
    torchserve: RuntimeInfo, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Archives of torch-model-archiver and of `pack`, golden examples and all, load and answer alike over REST."""
    directory = trained("digits", tmp_path_factory).directory
    given = {
        "version": "1.0",
        "handler": str(directory / "image_classifier.py"),
        "model_file": str(directory / "model.py"),
        "serialized_file": str(directory / "weights.pt"),
        "extra_files": str(directory / "labels.json"),
        "export_path": str(tmp_path / "store"),
    }
    samples = [SAMPLES / "4.json", SAMPLES / "7.png"]
    packed = pack(**given, model_name="ours", examples=samples)
    assert packed.golden is not None
    given["extra_files"] += (
        f",{directory / 'marway_handler_base.py'}"  # `pack` takes what the handler imports by itself
    )
    generate_model_archive(ModelArchiverConfig(**given, model_name="theirs", runtime="python"))

    addresses = torchserve.addresses
    for name in ("ours", "theirs"):
        query = f"url={name}.mar&model_name={name}&initial_workers=1&synchronous=true"
        status, _, said = request(f"{addresses['management']}/models?{query}")
        assert status == 200, said

    questions = [
        (samples[0].read_bytes(), "application/json"),
        (samples[1].read_bytes(), "image/png"),
        (samples[1].read_bytes(), "application/octet-stream"),
        (b"seven", "text/plain"),
    ]
    answers = {
        name: [request(f"{addresses['inference']}/predictions/{name}", body, kind) for body, kind in questions]
        for name in ("ours", "theirs")
    }
    assert answers["ours"] == answers["theirs"]
    assert [status for status, _, _ in answers["ours"]] == [200, 200, 200, 400]
    golden = [each.answer for each in packed.golden.examples]
    assert [(each.status, each.content_type, each.value) for each in golden] == answers["ours"][:2]
