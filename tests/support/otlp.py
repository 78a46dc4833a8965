"""A tracing system in small: takes spans over OTLP/HTTP and keeps them, decoded by OpenTelemetry's own protobufs."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """A span as it came."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    began_s: float
    ended_s: float
    attributes: dict[str, Any]
    failed: bool
    message: str


@dataclass
class Receiver:
    """What came."""

    url: str
    spans: list[Span] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that have processes send spans here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        (span,) = self.named(name)
        return span

    def children(self, span: Span) -> list[str]:
        """Return the names of the spans within one, in the order in which they began."""
        within = [each for each in self.spans if each.parent == span.id and each.trace == span.trace]
        return [each.name for each in sorted(within, key=lambda each: each.began_s)]

    def wait_for(self, *names: str, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while missing := [name for name in names if not self.named(name)]:
            assert time.monotonic() < deadline, (missing, sorted({span.name for span in self.spans}))
            time.sleep(0.02)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Take spans on a free port until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.paths.add(self.path)
            receiver.spans += _decoded(body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_request(self, code: object = None, size: object = None) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join(5)


def _decoded(body: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            service=next(each.value.string_value for each in of.resource.attributes if each.key == "service.name"),
            name=span.name,
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            kind=span.kind,
            began_s=span.start_time_unix_nano / 1e9,
            ended_s=span.end_time_unix_nano / 1e9,
            attributes={each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes},
            failed=span.status.code == 2,
            message=span.status.message,
        )
        for of in request.resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    ]
