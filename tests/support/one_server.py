"""A program: our HTTP server answers, keeps a connection, ends what is in flight, stops; prints uvicorn's version."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import uvicorn

from marway_http.http1.limits import ConnectionLimits
from marway_http.http1.server import HttpServer, listening

WAIT_S = 10.0


async def main() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        if scope["path"].endswith("/slow"):
            begun.set()
            await may_end.wait()
        size = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", size)]})
        await send({"type": "http.response.body", "body": body[::-1]})

    limits = ConnectionLimits(header_timeout_s=WAIT_S, body_timeout_s=WAIT_S, body_min_rate=1)
    server = HttpServer(app, limits, lifespan="off")
    with listening("127.0.0.1", 0, flag="--port") as sock:
        host, port = sock.getsockname()
        serving = asyncio.create_task(server.serve([sock]))
        await server.up.wait()
        idle, fast = await asyncio.open_connection(host, port)
        for text in (b"one", b"two"):  # the second over the connection of the first
            fast.write(request("intent", text))
            await expect(idle, text[::-1])
        reader, slow = await asyncio.open_connection(host, port)
        slow.write(request("intent/slow", b"three"))
        await begun.wait()
        server.stop(int(WAIT_S))
        assert await idle.read() == b"", "an idle connection is closed at once"
        assert not serving.done(), "what is in flight is waited for"
        may_end.set()
        await expect(reader, b"eerht")
        assert await reader.read() == b""
        await serving
        assert not server.server_state.connections
        assert not server.server_state.tasks
        fast.close()
        slow.close()
    with contextlib.suppress(ConnectionRefusedError):
        await asyncio.open_connection(host, port)
        raise AssertionError("it still listens")
    print(uvicorn.__version__)


def request(model: str, body: bytes) -> bytes:
    return b"POST /predict/%s HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n%s" % (
        model.encode(),
        len(body),
        body,
    )


async def expect(reader: asyncio.StreamReader, body: bytes) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    assert await reader.readexactly(len(body)) == body


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(), 3 * WAIT_S))
