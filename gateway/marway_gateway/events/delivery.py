"""Sends events to webhooks until each was taken, at least once: an event is sent again whose sender died too early.

Whoever sends keeps what came of each attempt beside the event, so that the next goes on where the one before was
killed. Receivers tell copies by `webhook-id`. No order is promised: one that a receiver refuses holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from marway.errors import InvalidRecord
from marway.objects import ObjectStore
from marway.records import utc_now
from marway_gateway.events.metrics import DeliveryMetrics, Waiting
from marway_gateway.events.sending import Outcome, Sender
from marway_gateway.events.webhooks import Webhook
from marway_observations.events.log import EventLog
from marway_observations.events.outbox import Attempts, Outbox, Pending

__all__ = ["GIVE_UP", "Delivery", "next_attempts"]

T = TypeVar("T")

GIVE_UP: Final = timedelta(days=1)
"""How long after its first attempt an event is sent again; then it is dead for that webhook."""
_PAUSES_S: Final = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0)
"""Between attempts; the last one from then on."""
_JITTER: Final = 0.1
_ASKED_MAX_S: Final = 3600.0
"""The longest that a receiver's `Retry-After` puts the next attempt off."""
_TURN_S: Final = 30.0
"""How long a webhook is sent events in one round: others, and the next look, must not wait for a slow receiver."""
_AT_ONCE: Final = 64
"""Events in memory at a time."""
_READ_AGAIN_S: Final = 60.0
"""How long what is known of an event is believed that is not due yet: somebody may want it sent to another again."""
_THREADS: Final = 4
_log = logging.getLogger(__name__)


def next_attempts(before: Attempts, outcome: Outcome, now: datetime) -> Attempts:
    """Return what is known of sending an event to a webhook after one more attempt."""
    first = before.first_at or now
    count = before.count + 1
    if outcome.taken or outcome.gone or now - first >= GIVE_UP:
        return Attempts(done=True, count=count, first_at=first, error=outcome.error)
    pause = _PAUSES_S[min(count, len(_PAUSES_S)) - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)
    pause = max(pause, min(outcome.retry_after_s or 0.0, _ASKED_MAX_S))
    # The last attempt is made when the day is over, not before it.
    due = min(now + timedelta(seconds=pause), max(first + GIVE_UP, now + timedelta(seconds=_PAUSES_S[0])))
    return Attempts(count=count, first_at=first, next_at=due, error=outcome.error)


class Delivery:
    """The sender of a gateway process, which `run` has send what is due.

    Args:
        store: The registry's.
        webhooks: Returns who is sent events now.
        sender: Posts them.
        metrics: Where to say what came of it.
        now: The time, of this machine.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
        webhooks: Callable[[], Sequence[Webhook]],
        *,
        sender: Sender,
        metrics: DeliveryMetrics,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = EventLog(store)
        self._outbox = Outbox(store)
        self._webhooks = webhooks
        self._sender = sender
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._waiting: dict[str, Waiting] = {}
        self._for: Sequence[Webhook] = ()
        self._damaged: set[str] = set()
        # Threads of its own: a store that hangs must not keep those of requests.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="webhooks")

    def ended(self) -> None:
        """Tell of nothing that waits any more: another process sends."""
        self._metrics.waiting = None

    async def aclose(self) -> None:
        """Let go of what it holds."""
        await self._sender.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self) -> None:
        """Send what is due, once round.

        Raises:
            RegistryUnavailable: What is to be sent cannot be read, or what came of it not be kept: it is sent again.
        """
        webhooks = self._webhooks()
        if webhooks is not self._for:
            self._for, self._waiting = webhooks, {}
            self._metrics.know([each.name for each in webhooks])
        ids = await self._call(lambda: list(self._outbox.pending()))
        self._waiting = {each: self._waiting[each] for each in ids if each in self._waiting}
        self._damaged &= set(ids)
        stopped: set[str] = set()
        until = self._clock() + _TURN_S
        for some in _pieces([each for each in ids if self._look_at(each)], _AT_ONCE):
            read = await asyncio.gather(*(self._call(partial(self._read, each)) for each in some))
            found = sorted((each for each in read if each), key=lambda pending: pending.event.time)
            turns = (self._turn(webhook, found, stopped, until) for webhook in webhooks)
            ended = await asyncio.gather(*turns, return_exceptions=True)  # one's trouble is not that of the others
            for trouble in ended:
                if trouble is not None:
                    raise trouble
            for pending in found:
                await self._settle(pending.event.id)
            if webhooks and len(stopped) == len(webhooks):
                break
        self._metrics.waiting = tuple(self._waiting.values())

    def _look_at(self, event_id: str) -> bool:
        known = self._waiting.get(event_id)
        return known is None or known.due <= self._now() or self._clock() - known.read_at > _READ_AGAIN_S

    def _read(self, event_id: str) -> Pending | None:
        """Return an event that is to be sent, once it is surely kept. Blocks."""
        try:
            found = self._outbox.get(event_id)
        except InvalidRecord as exc:
            if event_id not in self._damaged:
                self._damaged.add(event_id)
                _log.warning("event %s is not sent: %s", event_id, exc.message)
            return None
        if found is None:
            return None
        if not found[0].webhooks:
            self._log.keep(found[0].event)  # whoever raised it may have died in between
        return found[0]

    async def _turn(self, webhook: Webhook, events: Sequence[Pending], stopped: set[str], until: float) -> None:
        """Send a webhook what is due, until it does not work or its time is over."""
        for pending in events:
            if webhook.name in stopped or not _wanted(pending, webhook):
                continue
            before = pending.webhooks.get(webhook.name, Attempts())
            if before.done or (before.next_at is not None and before.next_at > self._now()):
                continue
            if self._clock() > until:
                stopped.add(webhook.name)
                return
            outcome = await self._sender.send(webhook, pending.event)
            after = next_attempts(before, outcome, self._now())
            await self._call(partial(self._keep, pending, webhook, outcome, after))
            self._tell(pending, webhook, outcome, after)
            if not outcome.answers:
                stopped.add(webhook.name)

    def _keep(self, pending: Pending, webhook: Webhook, outcome: Outcome, after: Attempts) -> None:
        """Keep what came of an attempt; it is dead before it is done, so that no kill in between loses it. Blocks."""
        event = pending.event
        if after.done and not outcome.taken:
            self._outbox.bury(event, webhook.name, after)
        elif outcome.taken and webhook.name in pending.only:
            self._outbox.forget_dead(webhook.name, event.id)
        self._outbox.attempted(event.id, {webhook.name: after})

    def _tell(self, pending: Pending, webhook: Webhook, outcome: Outcome, after: Attempts) -> None:
        facts = (pending.event.id, webhook.name)
        if outcome.taken:
            self._metrics.deliveries.labels(webhook.name, "delivered").inc()
            _log.info("event %s was delivered to webhook %s", *facts)
        elif after.done:
            self._metrics.deliveries.labels(webhook.name, "dead").inc()
            _log.error(
                "event %s is given up for webhook %s, which %s; `marway events retry %s` sends it again",
                *(*facts, outcome.error, pending.event.id),
            )
        else:
            self._metrics.deliveries.labels(webhook.name, "failed").inc()
            if after.count == 1:  # then again when it is given up: not at each attempt
                _log.warning("event %s waits: webhook %s %s; it is sent again for a day", *facts, outcome.error)

    async def _settle(self, event_id: str) -> None:
        """Forget an event that every webhook has, else note when it is due."""
        found = await self._call(lambda: self._outbox.get(event_id))
        self._waiting.pop(event_id, None)
        if found is None:
            return
        pending, etag = found
        left = [each.name for each in self._for if _wanted(pending, each)]
        left = [name for name in left if not pending.webhooks.get(name, Attempts()).done]
        if not left:
            await self._call(lambda: self._outbox.finish(event_id, etag=etag))
            return
        now = self._now()
        due = min(pending.webhooks.get(name, Attempts()).next_at or now for name in left)
        self._waiting[event_id] = Waiting(pending.event.time, tuple(left), due, self._clock())

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


def _wanted(pending: Pending, webhook: Webhook) -> bool:
    return webhook.name in pending.only if pending.only else webhook.wants(pending.event)


def _pieces(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
