"""A TCP proxy that loses replies: the request reaches the server, is done there, and no answer comes back."""

from __future__ import annotations

import re
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

__all__ = ["LossyProxy", "lossy_proxy"]

Lose = Callable[[str, str], bool]
"""Told method and target of each request; True loses its reply."""
_LENGTH = re.compile(rb"\r\ncontent-length:[ ]*([0-9]+)", re.IGNORECASE)

_SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 36\r\n\r\n<Error><Code>SlowDown</Code></Error>"


@dataclass
class LossyProxy:
    """Where it listens, what it loses, and what it lost."""

    port: int
    lose: Lose
    requests: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    refuse: Lose = lambda method, path: False
    """Told the same; True answers 503 SlowDown in the server's place, as a store does that is asked too much."""
    cut_after: int | None = None
    """Cut replies off after so many bytes, once for each time this is set."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def lossy_proxy(target: str, lose: Lose = lambda method, path: False) -> Iterator[LossyProxy]:
    """Run a proxy before ``target`` ("http://127.0.0.1:8333") for the length of a block."""
    host, _, port = target.removeprefix("http://").partition(":")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        proxy = LossyProxy(listener.getsockname()[1], lose)
        stopping = threading.Event()

        def accept() -> None:
            while not stopping.is_set():
                if select.select([listener], [], [], 0.2)[0]:
                    client = listener.accept()[0]
                    threading.Thread(target=_serve, args=(proxy, client, (host, int(port))), daemon=True).start()

        thread = threading.Thread(target=accept, name="lossy-proxy")
        thread.start()
        try:
            yield proxy
        finally:
            stopping.set()
            thread.join(10)


def _serve(proxy: LossyProxy, client: socket.socket, address: tuple[str, int]) -> None:
    with client, suppress(OSError), socket.create_connection(address) as server:
        for each in (client, server):
            each.settimeout(60)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ahead = b""
        while True:
            request, ahead = _pass_message(client, ahead, lambda piece: server.sendall(piece), reply_to="")
            if not request:
                return
            method, path = request.split(b" ", 2)[:2]
            what = f"{method.decode()} {path.decode()}"
            proxy.requests.append(what)
            lose = proxy.lose(method.decode(), path.decode())
            refuse = proxy.refuse(method.decode(), path.decode())
            cut, proxy.cut_after = (proxy.cut_after, None) if method == b"GET" else (None, proxy.cut_after)
            sent = 0

            def answer(piece: bytes, lose: bool = lose or refuse, cut: int | None = cut) -> None:
                nonlocal sent
                if lose:
                    return
                if cut is not None and sent + len(piece) > cut:
                    client.sendall(piece[: cut - sent])
                    raise ConnectionAbortedError
                client.sendall(piece)
                sent += len(piece)

            _pass_message(server, b"", answer, reply_to=method.decode())
            if refuse:
                client.sendall(_SLOW_DOWN)
            if lose:
                proxy.lost.append(what)
                return  # closing the connection is what the client sees


def _pass_message(
    source: socket.socket, ahead: bytes, forward: Callable[[bytes], object], *, reply_to: str
) -> tuple[bytes, bytes]:
    """Pass one HTTP message on; return its head and what was read beyond it."""
    data = ahead
    while b"\r\n\r\n" not in data:
        piece = source.recv(65536)
        if not piece:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    head += b"\r\n\r\n"
    if head.startswith(b"HTTP/1.1 100"):
        forward(head)
        return _pass_message(source, rest, forward, reply_to=reply_to)
    if not reply_to and b"\r\nexpect: 100-continue" in head.lower():
        # Answered here, or client and server would wait for each other.
        source.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = re.sub(rb"\r\nexpect: 100-continue", b"", head, flags=re.IGNORECASE)
    forward(head)
    status = int(head.split(b" ", 2)[1]) if reply_to else 0
    if reply_to == "HEAD" or status in (204, 304):
        return head, rest
    if b"transfer-encoding: chunked" in head.lower():
        end = b""
        while True:
            forward(rest)
            end = (end + rest)[-5:]
            if end == b"0\r\n\r\n":
                return head, b""
            rest = source.recv(65536)
            if not rest:
                raise ConnectionAbortedError
    found = _LENGTH.search(head)
    left = int(found.group(1)) if found else 0
    while left > 0:
        if not rest:
            rest = source.recv(262144)
            if not rest:
                raise ConnectionAbortedError
        forward(rest[:left])
        used = min(left, len(rest))
        left -= used
        rest = rest[used:]
    return head, rest
