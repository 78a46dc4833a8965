"""Accepted predictions and their answers in the store, where every gateway finds them.

::

    async/requests/ID     a request that is not answered yet: written before its caller gets 202
    async/claims/ID       who works on it; as old, by the store's clock, as its holder has not been heard of
    async/results/ID      the answer, created once

A claim that is older than the lease is anybody's. Who was slow and has lost it may work on, but the first answer is the
one that is kept. Everything blocks.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore
from marway.refs import new_ulid

__all__ = ["CLAIMS", "REQUESTS", "RESULTS", "Accepted", "Claim", "Kept", "Spool", "kept_until", "new_id"]

_PREFIX: Final = "async/"
REQUESTS: Final = f"{_PREFIX}requests/"
CLAIMS: Final = f"{_PREFIX}claims/"
RESULTS: Final = f"{_PREFIX}results/"


class _Head(BaseModel):
    model_config = ConfigDict(frozen=True)


class Accepted(_Head):
    """A request to be answered later, without its body.

    Attributes:
        path: As it was asked, decoded.
        headers: Without credentials.
        client: The caller's address.
        until: When its deadline passes, seconds since 1970.
    """

    path: str
    headers: tuple[tuple[str, str], ...]
    client: str | None = None
    until: float


class Kept(_Head):
    """An answer, without its body.

    Attributes:
        status: HTTP's.
        headers: All but the connection's own.
        until: Until when it is given, seconds since 1970.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    until: float


@dataclass(slots=True)
class Claim:
    """That this gateway works on a request; `etag` is its object's, which changes as it is renewed."""

    ticket: str
    etag: str


def new_id() -> str:
    """Return an id that begins with the time, and that nobody can guess: 128 of its bits are random."""
    return f"{new_ulid().lower()}{secrets.token_hex(16)}"


class Spool:
    """Accepted requests, claims on them and answers.

    Args:
        store: Where they are.
        lease_s: After how many seconds without a sign of its holder a claim is anybody's.
    """

    def __init__(self, store: ObjectStore, *, lease_s: float) -> None:
        self._store = store
        self._lease = timedelta(seconds=lease_s)

    def accept(self, ticket: str, head: Accepted, body: bytes) -> None:
        """Keep a request; once this returns, no gateway's end loses it."""
        self._store.create(REQUESTS + ticket, _joined(head, body))

    def request(self, ticket: str) -> tuple[Accepted, bytes] | None:
        """Return a request that is not answered yet, None where there is none."""
        found = self._read(REQUESTS + ticket)
        if found is None:
            return None
        return Accepted.model_validate_json(found[0]), found[1]

    def pending(self) -> Iterator[str]:
        """Yield the ids of all requests that are not answered yet, the oldest first."""
        for key in self._store.keys(REQUESTS):
            yield key.removeprefix(REQUESTS)

    def is_pending(self, ticket: str) -> bool:
        """Return whether a request is not answered yet."""
        return self._store.size(REQUESTS + ticket) is not None

    def claim(self, ticket: str, *, fresh: bool) -> Claim | None:
        """Claim a request; return None where another has it.

        Args:
            ticket: Which.
            fresh: Whether a request that nobody has claimed may have come just now: who took it in comes first.
        """
        key, holder = CLAIMS + ticket, secrets.token_hex(8).encode()
        etag = self._store.tag(key)
        if etag is None:
            if not fresh and not self._expired(REQUESTS + ticket):
                return None
            try:
                return Claim(ticket, self._store.create(key, holder))
            except ObjectExists:
                return None
        if not self._expired(key):
            return None
        try:
            return Claim(ticket, self._store.replace(key, holder, etag=etag))
        except ObjectChanged:
            return None

    def renew(self, claim: Claim) -> bool:
        """Say that its holder is there; return False where the claim is lost, or the request was cancelled."""
        if not self.is_pending(claim.ticket):
            return False
        try:
            claim.etag = self._store.replace(CLAIMS + claim.ticket, secrets.token_hex(8).encode(), etag=claim.etag)
        except ObjectChanged:
            return False
        return True

    def release(self, claim: Claim) -> None:
        """Give a request back, for another to take."""
        try:
            self._store.delete(CLAIMS + claim.ticket, etag=claim.etag)
        except ObjectChanged:
            return  # another has it already

    def finish(self, ticket: str, head: Kept, body: bytes) -> bool:
        """Keep an answer; return whether it is the one that counts: there was none, and nobody cancelled it."""
        if not self.is_pending(ticket):
            return False
        try:
            self._store.create(RESULTS + ticket, _joined(head, body))
            first = True
        except ObjectExists:
            first = False
        self._forget(ticket)
        return first

    def forget_answered(self, ticket: str) -> bool:
        """Forget a request whose answer is kept already; return whether it was so: a gateway ended between the two."""
        if self._store.size(RESULTS + ticket) is None:
            return False
        self._forget(ticket)
        return True

    def result(self, ticket: str) -> tuple[Kept, bytes] | None:
        """Return an answer that is still given, None where there is none."""
        found = self._read(RESULTS + ticket)
        if found is None:
            return None
        head = Kept.model_validate_json(found[0])
        return (head, found[1]) if head.until > time.time() else None

    def cancel(self, ticket: str) -> bool:
        """Forget a request and its answer; return whether there was any."""
        known = self.is_pending(ticket) or self._store.size(RESULTS + ticket) is not None
        self._forget(ticket)
        self._store.delete(RESULTS + ticket)
        return known

    def _forget(self, ticket: str) -> None:
        self._store.delete(REQUESTS + ticket)
        self._store.delete(CLAIMS + ticket)

    def _expired(self, key: str) -> bool:
        written = self._store.written_at(key)
        return written is not None and self._store.now() - written > self._lease

    def _read(self, key: str) -> tuple[bytes, bytes] | None:
        try:
            head, _, body = self._store.get(key).data.partition(b"\n")
        except ObjectMissing:
            return None
        return head, body


def kept_until(store: ObjectStore, key: str) -> float | None:
    """Return until when an answer is given, seconds since 1970, without its body; None where it is none."""
    try:
        with store.open(key) as handle:
            return Kept.model_validate_json(handle.readline()).until
    except (ObjectMissing, ValidationError):
        return None


def _joined(head: _Head, body: bytes) -> bytes:
    return json.dumps(head.model_dump(mode="json")).encode() + b"\n" + body
