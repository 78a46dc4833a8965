"""A proxy before an S3 server at which session tokens expire: an S3 server for tests has one key, which lasts for ever.

It takes any key and signs what it passes on with the server's own.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from support.seaweed import S3Server

__all__ = ["ExpiringS3", "expiring_s3"]

_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}
_OF_THE_CLIENT = {
    *_HOP_BY_HOP,
    "authorization",
    "content-length",
    "expect",
    "host",
    "x-amz-date",
    "x-amz-security-token",
}


@dataclass
class ExpiringS3:
    """Where it listens, and which tokens have expired there.

    Attributes:
        endpoint: Its URL.
        expired: Session tokens that are answered as AWS answers them when their time is over; "" is having none.
        refused: How many requests were.
        passed: How many were passed on, by token.
    """

    endpoint: str
    expired: set[str] = field(default_factory=set)
    refused: int = 0
    passed: dict[str, int] = field(default_factory=dict)


@contextmanager
def expiring_s3(server: S3Server) -> Iterator[ExpiringS3]:
    """Run one before a server for the length of a block."""
    proxy = ExpiringS3("")
    behind = server.endpoint.removeprefix("http://")
    signer = S3SigV4Auth(Credentials(server.access_key, server.secret_key), "s3", "us-east-1")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("X-Amz-Security-Token", "")
            if token in proxy.expired:
                proxy.refused += 1
                self._answer(400, [("Content-Type", "application/xml")], _EXPIRED)
                return
            proxy.passed[token] = proxy.passed.get(token, 0) + 1
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_CLIENT}
            request = AWSRequest(self.command, f"{server.endpoint}{self.path}", headers=kept, data=body)
            signer.add_auth(request)
            connection = http.client.HTTPConnection(behind, timeout=60)
            try:
                connection.request(self.command, self.path, body=body, headers=dict(request.headers.items()))
                reply = connection.getresponse()
                self._answer(reply.status, reply.getheaders(), reply.read(), length=reply.getheader("Content-Length"))
            finally:
                connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - the names that it is called by

        def _answer(
            self, status: int, headers: list[tuple[str, str]], body: bytes, *, length: str | None = None
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in (*_HOP_BY_HOP, "content-length"):
                    self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as listening:
        proxy.endpoint = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            listening.shutdown()
            thread.join(10)
