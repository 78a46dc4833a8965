"""An open-loop load generator: requests leave at their time, whatever became of those before (no coordinated omission).

It runs on an event loop and a thread of its own, so that the test may block, and keeps a record of every request.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import aiohttp

from support.up import wait_until

__all__ = ["OpenLoop", "Sample", "percentile"]

_NOT_TAKEN = (
    aiohttp.ClientConnectorError,
    aiohttp.ServerDisconnectedError,
    ConnectionResetError,
    aiohttp.ClientOSError,
)
"""What a client that knows several gateways meets with by asking the next one: no byte of an answer came."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request, its times by `time.monotonic`.

    Attributes:
        sent_at: When its first attempt left.
        done_at: When its answer was there, or it failed.
        status: HTTP status, or None without an answer.
        version: What `X-Model-Version` said.
        detail: The body of an answer that is not 200, or the error.
        moves: How often it was taken to another gateway.
    """

    sent_at: float
    done_at: float
    status: int | None
    version: str | None
    detail: str
    moves: int

    @property
    def took_s(self) -> float:
        return self.done_at - self.sent_at


class OpenLoop:
    """Sends POST requests at a steady rate for as long as the context is open.

    Args:
        urls: Where to, in turns; a gateway that takes no connection is left for the next.
        rate: Requests a second.
        body: What to send, as text.
        headers: To send along.
    """

    def __init__(
        self, urls: Sequence[str], *, rate: float, body: bytes = b"hello", headers: dict[str, str] | None = None
    ) -> None:
        self.samples: list[Sample] = []
        self._urls = list(urls)
        self._interval_s = 1 / rate
        self._body = body
        self._headers = {"content-type": "text/plain", **(headers or {})}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="open-loop")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send nothing more and wait until everything was answered."""
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "requests without an answer"

    def wait_for_more(self, count: int, *, timeout_s: float = 90) -> None:
        """Wait until ``count`` further requests came to an end."""
        goal = len(self.samples) + count
        wait_until(lambda: len(self.samples) >= goal, timeout_s=timeout_s, what=f"{count} more answers")

    @property
    def failed(self) -> list[Sample]:
        """Those that were not answered 200."""
        return [sample for sample in self.samples if sample.status != 200]

    async def _run(self) -> None:
        running: set[asyncio.Task[None]] = set()
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=100)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            due = time.monotonic()
            number = 0
            while not self._stop.is_set():
                task = asyncio.create_task(self._ask(session, number))
                running.add(task)
                task.add_done_callback(running.discard)
                number += 1
                due += self._interval_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.gather(*running)

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        sent_at = time.monotonic()
        status, version, detail, moves = None, None, "", 0
        while True:
            url = self._urls[(number + moves) % len(self._urls)]
            try:
                async with session.post(url, data=self._body, headers=self._headers) as answer:
                    text = await answer.text()
                    status, version = answer.status, answer.headers.get("x-model-version")
                    detail = text[:500] if status != 200 else ""
                break
            except _NOT_TAKEN as exc:
                moves += 1
                if moves >= len(self._urls):
                    detail = repr(exc)
                    break
            except (aiohttp.ClientError, TimeoutError) as exc:
                detail = repr(exc)
                break
        self.samples.append(Sample(sent_at, time.monotonic(), status, version, detail, moves))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of the others do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
