"""The benchmarks' load generator takes only right answers for answers."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = b"other" if self.path == "/other" else body.upper()
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # wrk leaves without waiting for its last answers
            super().handle()


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def wrk(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield import_module("wrk")
    del sys.modules["wrk"]


def test_wrong_answers_are_never_counted(wrk: Any, url: str, tmp_path: Path) -> None:
    """A check compares every body, a load every status; what is right passes both."""
    generator = wrk.Generator(
        tmp_path, wrk.Request(b'a "quoted"\nbody', "text/plain", {"x-some": "1"}), b'A "QUOTED"\nBODY'
    )
    generator.check(f"{url}/right", clients=2, seconds=1)
    load = generator.load(f"{url}/right", clients=2, seconds=1)
    assert load.requests > 0
    assert load.rate > 0
    assert 0 < load.p50 <= load.p99
    with pytest.raises(wrk.WrongAnswers, match="wrong"):
        generator.check(f"{url}/other", clients=2, seconds=1)
    with pytest.raises(wrk.WrongAnswers, match="failed"):
        generator.load(f"{url}/broken", clients=2, seconds=1)
