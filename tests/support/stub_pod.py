"""A server in a test's own process that answers as it is told, where a pod is asked over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Given = tuple[int, str, bytes]
"""Status, content type and body."""


@dataclass
class StubPod:
    """A server in this process that answers each path as it is told, and remembers what came."""

    url: str
    answers: dict[str, Callable[[bytes], Given]] = field(default_factory=dict)
    came: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)

    def on(self, path: str, answer: Given | Callable[[bytes], Given]) -> None:
        self.answers[path] = answer if callable(answer) else lambda body: answer


@contextmanager
def stub_pod() -> Iterator[StubPod]:
    """Run one on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            pod.came.append((self.path, body, {name.lower(): value for name, value in self.headers.items()}))
            status, content_type, data = pod.answers[self.path.partition("?")[0]](body)
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        pod = StubPod(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield pod
        server.shutdown()
