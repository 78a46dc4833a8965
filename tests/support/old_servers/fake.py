"""Servers of a few lines, whose answers a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from marway_archiver.adopt.comparing.calling import Server

__all__ = ["Asked", "Fake", "Reply", "by_body", "fakes"]

JSON = "application/json"
Reply = tuple[int, str | None, bytes]


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Fake:
    """A server whose answers a test says; `asked` has what it was asked."""

    def __init__(self, reply: Callable[[Asked], Reply]) -> None:
        self.asked: list[Asked] = []
        self._clients: list[Server] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one piece: in two, the second waits for the client's acknowledgement

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                fake.asked.append(asked)
                status, kind, data = reply(asked)
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                if kind is not None:
                    self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST  # noqa: N815 - as http.server calls it

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def client(self) -> Server:
        """Return what asks it."""
        self._clients.append(Server(self.url, 5))
        return self._clients[-1]

    def close(self) -> None:
        for each in self._clients:
            each.close()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def fakes(old: Callable[[Asked], Reply], new: Callable[[Asked], Reply]) -> Iterator[tuple[Fake, Fake]]:
    both = Fake(old), Fake(new)
    try:
        yield both
    finally:
        for each in both:
            each.close()


def by_body(answers: dict[Any, Any]) -> Callable[[Asked], Reply]:
    def reply(asked: Asked) -> Reply:
        answer = answers.get(json.loads(asked.body))
        if isinstance(answer, tuple):
            return answer
        return 200, JSON, json.dumps(answer).encode()

    return reply
