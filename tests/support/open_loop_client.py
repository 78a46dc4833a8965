"""The process of an `OpenLoop`: sends until its standard input ends, and writes what came of each request as JSON.

It has a process of its own so that what a test does meanwhile, such as looking after 500 sockets, delays no request and
no clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Final

import aiohttp

_NOT_TAKEN: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ServerDisconnectedError,
    ConnectionResetError,
    aiohttp.ClientOSError,
)
"""What a client that knows several gateways meets with by asking the next one: no byte of an answer came."""


class Client:
    """Sends one POST request after the other, each at its time.

    Args:
        urls: Where to, in turns.
        gateways: How many of them follow one another as the gateways of one request: it is taken from one to the next.
        rate: Requests a second.
        body: What to send.
        headers: To send along.
        keeps_answers: Whether to write the body of every answer, not only of those that are not 200.
    """

    def __init__(
        self,
        *,
        urls: list[str],
        gateways: int,
        rate: float,
        body: str,
        headers: dict[str, str],
        keeps_answers: bool = False,
    ) -> None:
        self._urls = urls
        self._gateways = gateways
        self._interval_s = 1 / rate
        self._body = body.encode()
        self._headers = headers
        self._keeps_answers = keeps_answers

    async def run(self) -> None:
        """Send until standard input ends, then wait for the last answers."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin, stopped.set)
        running: set[asyncio.Task[None]] = set()
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=100)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            due = time.monotonic()
            number = 0
            while not stopped.is_set():
                task = asyncio.create_task(self._ask(session, number))
                running.add(task)
                task.add_done_callback(running.discard)
                number += 1
                due += self._interval_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            loop.remove_reader(sys.stdin)
            await asyncio.gather(*running)

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        sent_at = time.monotonic()
        status, version, detail, moves = None, None, "", 0
        first = number % (len(self._urls) // self._gateways) * self._gateways
        while True:
            url = self._urls[first + (number + moves) % self._gateways]
            try:
                async with session.post(url, data=self._body, headers=self._headers) as answer:
                    text = await answer.text()
                    status, version = answer.status, answer.headers.get("x-model-version")
                    detail = text[:500] if status != 200 or self._keeps_answers else ""
                break
            except _NOT_TAKEN as exc:
                moves += 1
                if moves >= self._gateways:
                    detail = repr(exc)
                    break
            except (aiohttp.ClientError, TimeoutError) as exc:
                detail = repr(exc)
                break
        outcome: list[Any] = [sent_at, time.monotonic(), status, version, detail, moves]
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(Client(**json.loads(sys.argv[1])).run())
