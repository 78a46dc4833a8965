"""Events that are to be sent: an object for each until every webhook has it, and one for each that was given up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Final

from pydantic import Field

from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore
from marway.registry.encoding import decode, encode
from marway.stored import Extensible, Frozen
from marway_observations.events.event import Event

__all__ = ["DEAD", "PENDING", "Attempts", "Dead", "Outbox", "Pending", "dead_key", "pending_key"]

PENDING: Final = "events/pending/"
DEAD: Final = "events/dead/"


class Attempts(Frozen):
    """What came of sending an event to one webhook so far.

    Attributes:
        done: Whether that is over: it was taken, or given up.
        count: How often it was tried.
        first_at: When it was tried first.
        next_at: When it is tried next.
        error: What the last attempt came to.
    """

    done: bool = False
    count: Annotated[int, Field(ge=0)] = 0
    first_at: datetime | None = None
    next_at: datetime | None = None
    error: str | None = None


class Pending(Extensible):
    """An event that not every webhook has yet.

    Attributes:
        event: The event.
        only: The webhooks that it is sent to again; none means all that want it.
        webhooks: What came of it so far, by the webhook's name.
    """

    format: int = 1
    event: Event
    only: tuple[str, ...] = ()
    webhooks: Mapping[str, Attempts] = Field(default_factory=dict)


class Dead(Frozen):
    """An event that was given up for a webhook, when, and what the attempts came to."""

    format: int = 1
    event: Event
    webhook: str
    at: datetime
    attempts: Attempts


class Outbox:
    """What is to be sent. Methods block, and are safe for threads and for several processes."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, event: Event) -> None:
        """Let an event be sent to all webhooks that want it, unless that is under way."""
        key = pending_key(event.id)
        with contextlib.suppress(ObjectExists):
            self._store.create(key, encode(Pending(event=event), key=key))

    def pending(self) -> Iterator[str]:
        """Yield the ids of events that are to be sent."""
        return (key.removeprefix(PENDING).removesuffix(".json") for key in self._store.keys(PENDING))

    def get(self, event_id: str) -> tuple[Pending, str] | None:
        """Return an event that is to be sent with the tag of what is stored, or None where there is none (any more).

        Raises:
            InvalidRecord: It is damaged.
        """
        key = pending_key(event_id)
        try:
            stored = self._store.get(key)
        except ObjectMissing:
            return None
        return decode(Pending, stored.data, source=key), stored.etag

    def attempted(self, event_id: str, webhooks: Mapping[str, Attempts]) -> None:
        """Keep what came of sending an event to some webhooks."""

        def with_attempts(pending: Pending) -> Pending:
            return pending.model_copy(update={"webhooks": {**pending.webhooks, **webhooks}})

        self._change(event_id, with_attempts)

    def finish(self, event_id: str, *, etag: str) -> None:
        """Forget an event that every webhook has, unless it changed meanwhile: somebody wants it sent again."""
        with contextlib.suppress(ObjectChanged):
            self._store.delete(pending_key(event_id), etag=etag)

    def bury(self, event: Event, webhook: str, attempts: Attempts) -> None:
        """Keep an event as one that was given up for a webhook."""
        key = dead_key(webhook, event.id)
        dead = Dead(event=event, webhook=webhook, at=self._store.now(), attempts=attempts)
        with contextlib.suppress(ObjectExists):  # given up before, by one that died before it had said so
            self._store.create(key, encode(dead, key=key))

    def forget_dead(self, webhook: str, event_id: str) -> None:
        """Forget that an event was given up for a webhook."""
        self._store.delete(dead_key(webhook, event_id))

    def dead(self) -> Iterator[Dead]:
        """Yield what was given up, by webhook.

        Raises:
            InvalidRecord: One of them is damaged.
        """
        for key in self._store.keys(DEAD):
            with contextlib.suppress(ObjectMissing):
                yield decode(Dead, self._store.get(key).data, source=key)

    def retry(self, dead: Dead) -> None:
        """Send an event that was given up once more to that webhook, for a day again."""
        key = pending_key(dead.event.id)
        again = Pending(event=dead.event, only=(dead.webhook,))

        def revived(pending: Pending) -> Pending:
            left = {name: each for name, each in pending.webhooks.items() if name != dead.webhook}
            only = tuple(dict.fromkeys((*pending.only, dead.webhook))) if pending.only else ()
            return pending.model_copy(update={"webhooks": left, "only": only})

        while not self._change(dead.event.id, revived):
            try:
                self._store.create(key, encode(again, key=key))
            except ObjectExists:
                continue
            break
        # Last: of one that is interrupted the worst is that it is sent and listed as dead until it was taken.
        self.forget_dead(dead.webhook, dead.event.id)

    def _change(self, event_id: str, change: Callable[[Pending], Pending]) -> bool:
        """Change what is kept of an event that is to be sent; return False where there is nothing."""
        key = pending_key(event_id)
        while (found := self.get(event_id)) is not None:
            pending, etag = found
            try:
                self._store.replace(key, encode(change(pending), key=key), etag=etag)
            except ObjectChanged:
                continue  # another process's, of this moment
            return True
        return False


def pending_key(event_id: str) -> str:
    """Return where an event is until every webhook has it."""
    return f"{PENDING}{event_id}.json"


def dead_key(webhook: str, event_id: str) -> str:
    """Return where an event is that was given up for a webhook."""
    return f"{DEAD}{webhook}/{event_id}.json"
