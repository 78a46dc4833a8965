"""What routes and renames paths before a server in a cluster."""

from __future__ import annotations

import re
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

__all__ = ["Router"]


class Router(ThreadingHTTPServer):
    """Passes predictions on to a TorchServe under the path that it has there."""

    daemon_threads = True

    def __init__(self, target: str, path: re.Pattern[str], host: str | None) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                found = path.fullmatch(self.path)
                if found is None or host not in (None, self.headers.get("host")):
                    self._answer(404, "text/plain", b"no such service")
                    return
                connection = HTTPConnection(urlsplit(target).netloc, timeout=60)
                sent = {"content-type": self.headers.get("content-type", "application/json")}
                connection.request("POST", "/predictions/sentiment", body, sent)
                answer = connection.getresponse()
                self._answer(answer.status, "application/json", answer.read())
                connection.close()

            def _answer(self, status: int, kind: str, data: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
