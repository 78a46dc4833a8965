"""Makes the answer to a request that was taken in before, by the routes that would have answered it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache

from starlette.types import Message, Scope

from marway.errors import MarwayError
from marway.wire import headers as wire
from marway.wire.problems import CONTENT_TYPE, problem_of
from marway_gateway.asynchronous.later import Answered, Performs
from marway_gateway.asynchronous.spool import Accepted
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import FastPathApp
from marway_gateway.surfaces.native import NATIVE_PATHS, NativePredict
from marway_http.channel import CHANNEL, HeaderBlock

__all__ = ["performing"]

_CONNECTIONS_OWN = frozenset({*wire.HOP_BY_HOP, "content-length", "date"})


def performing(gateway: CurrentGateway) -> Performs:
    """Return what answers requests that were taken in: the same routes, counted and logged, without the port's checks,
    which were made when they came.
    """
    app = FastPathApp(telemetry=cache(lambda: gateway().telemetry), checks=())
    handler = NativePredict(gateway)
    for path in NATIVE_PATHS:
        app.add_fast("POST", path, handler)

    async def performs(head: Accepted, body: bytes, within_s: float) -> Answered:
        channel = _Kept(body, max_bytes=gateway().settings.max_body_bytes)
        headers = {**dict(head.headers), wire.REQUEST_TIMEOUT_MS: str(max(1, int(within_s * 1000)))}
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": head.path,
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            "client": (head.client, 0) if head.client is not None else None,
            CHANNEL: channel,
        }
        await app(scope, channel.receive, channel.send)
        return channel.answered()

    return performs


class _Kept:
    """A `Channel` to memory: what is answered is kept."""

    def __init__(self, body: bytes, *, max_bytes: int) -> None:
        self.body: bytes | None = body
        self.received, self.started = True, False
        self.reason: Exception | None = None
        self._task = asyncio.current_task()
        self._max_bytes = max_bytes
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []
        self._size = 0
        self._whole = False

    def when_gone(self, gone: Callable[[], None] | None) -> None:
        """Nothing leaves."""

    def interrupt(self, reason: Exception) -> None:
        if self.reason is None and self._task is not None:
            self.reason = reason
            self._task.cancel()

    async def answer(self, status: int, headers: HeaderBlock, body: bytes, *, close: bool = False) -> None:
        lines = headers.text.decode("latin-1").split("\r\n")[:-1]
        self._start(status, [(name, value) for name, _, value in (line.partition(": ") for line in lines)])
        self._pieces, self._size, self._whole = [body], len(body), True

    async def receive(self) -> Message:
        return {"type": "http.request", "body": self.body or b"", "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            found = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
            self._start(message["status"], found)
            return
        self._pieces.append(message.get("body", b""))
        self._size += len(self._pieces[-1])
        if self._size > self._max_bytes:
            raise MarwayError(self._too_large())
        self._whole = not message.get("more_body", False)

    def answered(self) -> Answered:
        """Return what was answered; a stream that broke off, or was too large, is an error."""
        if self._whole and self._size <= self._max_bytes:
            return Answered(self._status, tuple(self._headers), b"".join(self._pieces))
        problem, headers = problem_of(
            MarwayError(self._too_large() if self._size > self._max_bytes else "the answer broke off before its end")
        )
        ids = [each for each in self._headers if each[0] in (wire.REQUEST_ID, wire.PREDICTION_ID)]
        return Answered(problem.status, (*headers.items(), ("content-type", CONTENT_TYPE), *ids), problem.body())

    def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.started, self._status = True, status
        self._headers = [(name, value) for name, value in headers if name.lower() not in _CONNECTIONS_OWN]

    def _too_large(self) -> str:
        return f"the answer is larger than the {self._max_bytes} bytes that are kept: send the request without Prefer"
