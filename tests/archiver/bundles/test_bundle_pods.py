"""Bundles on real pods: what a server answers to golden examples, compared with what was stated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from marway_archiver import Example, pack_bundle

pytestmark = pytest.mark.extended  # pods are started; test_bundle_cli.py has what can be told without them


class _Sum(BaseHTTPRequestHandler):
    """A model server with one model, which adds numbers up."""

    def do_POST(self) -> None:
        numbers = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"sum": sum(numbers)}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a model server that is there already."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sum) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def verified(bundle: Path, server: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "MARWAY_SIDECAR_HTTP_PREDICT": f"{server}/models/{{model}}/{{version}}",
        "MARWAY_SIDECAR_HTTP_HEALTH": f"{server}/health",
    }
    return subprocess.run(
        [sys.executable, "-m", "marway", "verify", str(bundle), "--engine", "http"],
        capture_output=True, text=True, timeout=120, env=os.environ | variables,
    )  # fmt: skip


def packed(tmp_path: Path, second: object) -> Path:
    examples = [Example([1, 2], {"sum": 3}), Example([0.5], second)]
    golden = tmp_path / "adder.golden.json"
    return pack_bundle(
        model_name="adder", version="1.0", backend="http", export_path=tmp_path, examples=examples, golden_file=golden
    ).path


def test_a_pod_gives_the_stated_answers(tmp_path: Path, server: str) -> None:
    """`marway verify --engine` loads a bundle on a pod of its backend, and compares within the tolerance."""
    done = verified(packed(tmp_path, {"sum": 0.500001}), server)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "verified, compared with the stated answers" in done.stdout


def test_another_answer_is_a_difference(tmp_path: Path, server: str) -> None:
    """With what was stated and what came, and exit code 1."""
    done = verified(packed(tmp_path, {"sum": 0.75}), server)
    assert done.returncode == 1, done.stderr + done.stdout
    assert "at sum: 0.75 was expected, 0.5 came" in " ".join(done.stdout.split())
