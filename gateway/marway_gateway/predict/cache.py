"""Answers that are given again to equal requests, for models whose serving settings say `cache`.

An answer is found by a digest of the version's archive, of what was asked for and of all that the handler sees of the
request save its ids and what clients and proxies say of themselves: a label that moves leads to other archives and so
to other answers. Equal requests in flight are one: the first asks a pod, the others wait for its answer. What failed,
streams or is too large is never kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from prometheus_client import Counter

from marway.errors import ArchiveCorrupt, InvalidInput, LoadFailed, MarwayError, ModelError, NotFound
from marway.resolve.resolved import Resolved
from marway.wire import headers as wire
from marway.wire.headers import is_incidental
from marway_gateway.predict.call import PredictCall
from marway_gateway.transport.reply import Reply
from marway_http.channel import header_block

__all__ = ["AnswerCache", "CacheUse", "forbids_cache", "request_key"]

_UNLIKE: Final = frozenset(
    {wire.REQUEST_ID, wire.REQUEST_GROUP_ID, wire.TRACEPARENT, wire.TRACESTATE, wire.CLIENT, wire.NOTHING}
)
"""Headers in which equal requests may differ, beside those that are incidental."""
_ONE_REQUESTS_OWN: Final = frozenset(
    name.encode()
    for name in (
        *(wire.REQUEST_ID, wire.REQUEST_GROUP_ID, wire.TRACEPARENT, wire.TRACESTATE, wire.SERVER_TIMING, wire.OUTCOME),
        *(wire.MODEL_NAME, wire.MODEL_VERSION, wire.MODEL_ID),
    )
)
_ENTRY_BYTES: Final = 1024
"""What an entry takes beside its answer."""
_FINAL: Final = (ModelError, InvalidInput, NotFound, LoadFailed, ArchiveCorrupt)
"""What would be said of every equal request."""


class CacheUse(StrEnum):
    """What the cache did for a request; the values are those of `X-Cache` and of the metric."""

    HIT = "hit"
    MISS = "miss"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class _Entry:
    reply: Reply
    size: int
    until: float


def request_key(archive_sha256: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the digest by which an answer is found, of what goes to the pod."""
    parts = [archive_sha256.encode()]
    for name, value in sorted(headers.items()):
        if name not in _UNLIKE and not is_incidental(name):
            parts.append(b"\1%d:%b%d:%b" % (len(name), name.encode(), len(value), value.encode("latin-1")))
    parts.append(b"\0")
    digest = hashlib.sha256(b"".join(parts))
    digest.update(body)
    return digest.digest()


def forbids_cache(cache_control: str | None) -> bool:
    """Return whether a `Cache-Control` wants an answer made now, or that it is not kept (RFC 9111 §5.2)."""
    if cache_control is None:
        return False
    directives = {each.partition("=")[0].strip() for each in cache_control.lower().split(",")}
    return not directives.isdisjoint({"no-cache", "no-store"})


class AnswerCache:
    """Holds the answers used last, up to a number of bytes, each for a time. Not for use from several event loops.

    Args:
        max_bytes: Bytes of all answers together; with 0 it holds none.
        ttl_s: How long an answer is given again.
        uses: Counts what it did for requests, by `CacheUse`.
        clock: Monotonic seconds.

    Attributes:
        size: Bytes that it holds.
    """

    def __init__(
        self, *, max_bytes: int, ttl_s: float, uses: Counter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.size = 0
        self._uses = {use: uses.labels(use.value) for use in CacheUse}
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._flights: dict[bytes, asyncio.Future[Reply | MarwayError | None]] = {}

    async def answer(
        self, call: PredictCall, resolved: Resolved, ask: Callable[[PredictCall, Resolved], Awaitable[Reply]]
    ) -> Reply:
        """Return a cached answer to a call where there is one that may be given, else what ``ask`` gets from a pod.

        Raises:
            MarwayError: As ``ask``.
        """
        body, use = call.body.whole, CacheUse.MISS
        try:
            if not self._max_bytes or body is None or resolved.serving.streaming or call.fresh:
                use = CacheUse.BYPASS
                return await ask(call, resolved)
            key = request_key(resolved.record.archive.sha256, call.headers, body)
            reply, use = await self.reply(key, lambda: ask(call, resolved))
            return reply
        finally:
            call.info.cache = use.value
            self._uses[use].inc()

    async def reply(self, key: bytes, ask: Callable[[], Awaitable[Reply]]) -> tuple[Reply, CacheUse]:
        """Return the answer to a request, and whether it was there or is another request's.

        ``ask`` gets it from a pod, and is called at most once.

        Raises:
            MarwayError: As ``ask``; also one that an equal request got, where it is final.
        """
        while True:
            cached = self.cached(key)
            if cached is not None:
                return cached, CacheUse.HIT
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, ask), CacheUse.MISS
            await asyncio.wait((flight,))  # unlike awaiting it, this leaves it alone when we are cancelled
            if flight.cancelled():
                continue  # its client went, its deadline passed or no pod had it: one of the others asks in its place
            ended = flight.result()
            if isinstance(ended, Reply):
                return ended, CacheUse.HIT
            if isinstance(ended, MarwayError):
                raise ended.with_traceback(None)
            return await ask(), CacheUse.MISS  # it has an answer that is not to be kept: so asks each of the others

    async def _lead(self, key: bytes, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            reply = await ask()
            flight.set_result(self._put(key, reply))
        except _FINAL as exc:
            flight.set_result(exc)
            raise
        finally:
            del self._flights[key]
            flight.cancel()  # does nothing where it has its result
        return reply

    def cached(self, key: bytes) -> Reply | None:
        """Return the answer to a request if it is cached; None when it is not, or is being asked for."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.reply

    def _put(self, key: bytes, reply: Reply) -> Reply | None:
        """Keep an answer and return what is kept of it; None when it is not to be kept."""
        if reply.data is None or not 200 <= reply.status < 300:
            return None
        if any(name == b"cache-control" and forbids_cache(value.decode("latin-1")) for name, value in reply.headers):
            return None  # the handler knows that it would say something else the next time
        headers = [(name, value) for name, value in reply.headers if name not in _ONE_REQUESTS_OWN]
        size = len(reply.data) + sum(len(name) + len(value) for name, value in headers) + _ENTRY_BYTES
        if size > self._max_bytes:
            return None
        kept = replace(reply, header_block=header_block(headers), on_release=None)
        while self.size + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = _Entry(kept, size, self._clock() + self._ttl_s)
        self.size += size
        return kept

    def _drop(self, key: bytes) -> None:
        self.size -= self._entries.pop(key).size
