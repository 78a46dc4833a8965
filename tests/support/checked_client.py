"""The process of `CheckedClients`: clients that know what the answer to each of their requests must be.

Some behave, some give up at a random moment, some send their body slowly. It runs until its standard input ends, waits
for the last answers, and writes one JSON document: how many requests came to which end, the first of those that came
to a bad one, and when connections to the gateway ended under a request.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp

DEADLINE_S: Final = 30
"""What each request says of its deadline (`X-Request-Timeout-Ms`)."""

GRACE_S: Final = 10
"""How long after its deadline an answer may still come before the request counts as lost."""

KEPT_DETAILS: Final = 20
PAUSE_S: Final = 0.1
"""Before the next request after a connection that ended or did not come about."""


class Clients:
    """Clients in a closed loop, each with one request at a time.

    Args:
        gateway: Base URL of a gateway that serves `probe`.
        clients: How many.
        seed: Of all random choices.
    """

    def __init__(self, *, gateway: str, clients: int, seed: int) -> None:
        self._gateway = gateway
        self._clients = clients
        self._random = random.Random(seed)
        self._ends: Counter[str] = Counter()
        self._bad: list[str] = []
        self._disconnected: list[tuple[float, str]] = []
        self._stopped = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        """Ask until standard input ends; return the ends of all requests."""
        asyncio.get_running_loop().add_reader(sys.stdin, self._stopped.set)
        timeout = aiohttp.ClientTimeout(total=DEADLINE_S + GRACE_S)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            await asyncio.gather(*(self._client(session, number) for number in range(self._clients)))
        return {"ends": dict(self._ends), "bad": self._bad, "disconnected": self._disconnected}

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        count = 0
        while not self._stopped.is_set():
            text = f"{number}-{count}-".ljust(self._random.choice((20, 20, 20, 20_000, 300_000)), "x")
            count += 1
            kind = self._random.choices(("plain", "cancelled", "slow"), (85, 10, 5))[0]
            if kind == "cancelled":
                await self._give_up(session, text)
            else:
                await self._ask(session, text, slowly=kind == "slow")

    async def _give_up(self, session: aiohttp.ClientSession, text: str) -> None:
        task = asyncio.create_task(self._ask(session, text, slowly=False))
        done, _ = await asyncio.wait({task}, timeout=self._random.uniform(0, 0.02))
        if not done:
            task.cancel()
            await asyncio.wait({task})
            self._ends["cancelled"] += 1

    async def _ask(self, session: aiohttp.ClientSession, text: str, *, slowly: bool) -> None:
        headers = {"content-type": "text/plain", "x-request-timeout-ms": str(DEADLINE_S * 1000)}
        body: Any = text
        if slowly:
            headers["content-length"] = str(len(text))
            body = self._in_pieces(text.encode())
        try:
            async with session.post(f"{self._gateway}/predict/probe", data=body, headers=headers) as answer:
                said = await answer.text()
                if answer.status != 200:
                    self._end(f"status {answer.status}", said)
                elif json.loads(said)["value"] == text:
                    self._ends["right"] += 1
                else:
                    self._end("wrong", f"asked {text[:40]}, answered {said}")
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as exc:
            if isinstance(exc, TimeoutError):
                self._end("lost", repr(exc))
                return
            self._ends["disconnected"] += 1
            self._disconnected.append((time.monotonic(), repr(exc)))
            await asyncio.sleep(PAUSE_S)
        except (aiohttp.ClientError, TimeoutError) as exc:
            self._end("lost", repr(exc))

    async def _in_pieces(self, body: bytes) -> AsyncIterator[bytes]:
        size = len(body) // 5 + 1
        for at in range(0, len(body), size):
            yield body[at : at + size]
            await asyncio.sleep(self._random.uniform(0, 0.3))

    def _end(self, end: str, detail: str) -> None:
        self._ends[end] += 1
        if len(self._bad) < KEPT_DETAILS:
            self._bad.append(f"{end}: {detail[:400]}")


async def _main() -> None:
    json.dump(await Clients(**json.loads(sys.argv[1])).run(), sys.stdout)


if __name__ == "__main__":
    asyncio.run(_main())
