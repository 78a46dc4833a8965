"""A port that speaks HTTP, asked byte by byte: what clients of the usual kind never send, or never show."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["PROBE", "Answer", "Port"]

PROBE = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """One answer on a connection."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Port:
    """A port that serves.

    Attributes:
        name: Whose it is: `gateway`, `admin` or `sidecar`.
        url: Where it is.
        post: The path of a route that takes a body: a model that echoes it, or one that reads JSON.
    """

    name: str
    url: str
    post: str

    async def raw(self, *pieces: bytes) -> bytes:
        """Send pieces, each once the one before has been taken in, and return all that comes until the end."""
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await self._taken_in()
            return await reader.read()
        finally:
            writer.close()

    async def answers(self, *pieces: bytes) -> list[Answer]:
        """Send pieces, and return the answers of the connection, whole ones to requests that are not HEAD."""
        data = await self.raw(*pieces)
        answers = []
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            length = int(headers.get("content-length", 0))
            answers.append(Answer(int(first.split()[1]), headers, data[:length]))
            data = data[length:]
        return answers

    async def _taken_in(self) -> None:
        """Return once the server has been round: it has answered a request on another connection."""
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(PROBE)
        await reader.read()
        writer.close()
