"""Predictions that are answered later: leases in the store, and what a gateway that has taken some in does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from marway.errors import Overloaded
from marway.objects import open_store
from marway.registry import open_registry
from marway_gateway.asynchronous.later import Answered, AsyncLimits, LaterPredictions
from marway_gateway.asynchronous.retention import collect
from marway_gateway.asynchronous.spool import CLAIMS, RESULTS, Accepted, Kept, Spool, new_id

OK = Answered(200, (("content-type", "text/plain"),), b"yes")
BUSY = Answered(503, (("retry-after", "0"),), b"no pod")


def head(*, in_s: float = 60) -> Accepted:
    return Accepted(path="/predict/intent", headers=(("x-request-id", "r1"),), until=time.time() + in_s)


def later(path: Path, performs: Callable[..., Awaitable[Answered]], *, lease_s: float = 30) -> LaterPredictions:
    limits = AsyncLimits(requests=2, bytes=100, concurrency=1, timeout_s=60, keep_s=60, lease_s=lease_s)
    made = LaterPredictions(Spool(open_store(str(path)), lease_s=lease_s), limits, CollectorRegistry())
    made.begin(performs)
    return made


async def answer_of(made: LaterPredictions, ticket: str) -> tuple[Kept, bytes]:
    async with asyncio.timeout(30):
        while (found := await made.result(ticket)) is True:
            await asyncio.sleep(0.01)
    assert isinstance(found, tuple)
    return found


def test_claims(tmp_path: Path) -> None:
    """A request is one gateway's until it was not heard of for the lease; the first answer is kept, a cancelled one's
    is not.
    """
    store = open_store(str(tmp_path))
    spool, patient = Spool(store, lease_s=0.05), Spool(store, lease_s=60)
    ticket = new_id()
    spool.accept(ticket, head(), b"wake\nme")
    found = spool.request(ticket)
    assert found is not None
    assert found[1] == b"wake\nme"
    assert patient.claim(ticket, fresh=False) is None, "it has just come, and is for who took it in"
    first = patient.claim(ticket, fresh=True)
    assert first is not None
    assert patient.claim(ticket, fresh=False) is None
    time.sleep(0.1)
    second = spool.claim(ticket, fresh=False)
    assert second is not None
    assert not patient.renew(first), "it was lost"
    patient.release(first)
    assert patient.renew(second)
    patient.release(second)
    assert store.size(CLAIMS + ticket) is None, "one that was renewed is given back as well"
    assert patient.claim(ticket, fresh=True) is not None
    kept = Kept(status=200, headers=(), until=time.time() + 60)
    assert spool.finish(ticket, kept, b"one")
    assert not spool.finish(ticket, kept, b"two")
    assert spool.result(ticket) == (kept, b"one")
    assert list(spool.pending()) == []
    spool.accept(ticket, head(), b"wake")  # as of a gateway that ended before it had tidied up
    assert (spool.forget_answered(ticket), spool.forget_answered(new_id())) == (True, False)
    assert (list(spool.pending()), spool.result(ticket)) == ([], (kept, b"one"))
    assert spool.cancel(ticket)
    assert not spool.cancel(ticket)
    assert spool.result(ticket) is None


def test_gc(tmp_path: Path) -> None:
    """Answers whose time is over go, others stay."""
    registry = open_registry(str(tmp_path))
    registry.create()
    spool, now = Spool(registry.store, lease_s=1), time.time()
    old, new = new_id(), new_id()
    for ticket, until in ((old, now - 1), (new, now + 60)):
        spool.accept(ticket, head(), b"x")
        spool.finish(ticket, Kept(status=200, headers=(), until=until), b"y")
    assert spool.result(old) is None
    assert collect(registry, dry_run=True) == {"expired": [RESULTS + old]}
    assert collect(registry) == {"expired": [RESULTS + old]}
    assert collect(registry) == {"expired": []}
    assert spool.result(new) is not None


async def test_answers_and_tries_again(tmp_path: Path) -> None:
    """What had no room is asked again; too many are refused; one that is cancelled ends and has no answer."""
    tries, cancelled = 0, asyncio.Event()

    async def performs(accepted: Accepted, body: bytes, within_s: float) -> Answered:
        nonlocal tries
        if body == b"slow":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                return BUSY  # as a gateway answers what it cancels
        tries += 1
        return OK if tries == 3 else BUSY

    made = later(tmp_path, performs)
    try:
        kept, body = await answer_of(made, await made.accept(head(), b"x"))
        assert (kept.status, kept.headers, body, tries) == (200, OK.headers, b"yes", 3)
        while made._mine:  # an answer can be fetched a moment before its request is tidied away
            await asyncio.sleep(0.01)
        ticket = await made.accept(head(), b"slow")
        await made.accept(head(), b"x")
        with pytest.raises(Overloaded, match="2 predictions of 5 bytes wait here"):
            await made.accept(head(), b"x")
        assert await made.result(ticket) is True
        while not made._working:
            await asyncio.sleep(0.01)
        assert await made.cancel(ticket)
        async with asyncio.timeout(10):
            await cancelled.wait()
        assert await made.result(ticket) is False
        assert not await made.cancel(new_id())
    finally:
        await made.aclose()


async def test_work_of_a_gateway_that_is_gone(tmp_path: Path) -> None:
    """What a gateway has taken in and not answered another takes up, once the lease is over."""

    async def never(accepted: Accepted, body: bytes, within_s: float) -> Answered:
        await asyncio.Event().wait()
        raise AssertionError

    async def at_once(accepted: Accepted, body: bytes, within_s: float) -> Answered:
        return OK

    gone = later(tmp_path, never)
    tickets = [await gone.accept(head(), b"x"), await gone.accept(head(), b"y")]
    while not gone._working:
        await asyncio.sleep(0.01)
    await gone.aclose()
    other = later(tmp_path, at_once, lease_s=0.05)
    try:
        for ticket in tickets:
            assert (await answer_of(other, ticket))[1] == b"yes"
    finally:
        await other.aclose()
