"""Asks one version about rows through a gateway, at the lowest priority, and waits where there is no room."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from marway import errors
from marway.client import AsyncClient
from marway.errors import MarwayError, ModelError, Unavailable
from marway.refs import DEFAULT_LABEL, Reference
from marway.wire import headers
from marway_ops.batch.pace import Pace
from marway_ops.batch.rows import Question

__all__ = ["Answer", "Asker", "Failure", "Target"]

_FATAL: Final = (
    errors.Unauthenticated,
    errors.ModelNotFound,
    errors.VersionNotFound,
    errors.LabelNotFound,
    errors.LoadFailed,
    errors.ArchiveCorrupt,
)
"""What every further row would be told as well: the job stops, and goes on when it is started again."""
_TRIES: Final = 4
_WAIT_S: Final = 0.25
_WAIT_MAX_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """The version that a reference means."""

    model: str
    version: str
    id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model answered."""

    question: Question
    body: bytes
    content_type: str
    prediction_id: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no answer."""

    question: Question
    reason: str
    code: str
    status: int | None = None
    prediction_id: str | None = None
    request_id: str | None = None


@dataclass(slots=True)
class Asker:
    """Asks through one gateway.

    Args:
        client: Asks, each time once: when a row is asked again is decided here, for all rows together.
        pace: How many at once.
        give_up_s: After how many seconds without any answer it gives up.
    """

    client: AsyncClient
    pace: Pace
    give_up_s: float
    _silent_since: float | None = field(default=None, init=False)

    async def resolve(self, reference: Reference) -> Target:
        """Return the version that a reference means now.

        Raises:
            Unavailable: No gateway answers.
            MarwayError: What the gateway answered.
        """
        if not reference.name.startswith("mv_"):
            return await self._target(reference.name, reference.selector or DEFAULT_LABEL)
        model = await self.client.model(reference.name)
        for version in model.versions:
            if (found := await self._target(model.name, version)).id == reference.name:
                return found
        raise errors.VersionNotFound(f"{model.name} has no version with the id {reference.name}", model=model.name)

    async def _target(self, model: str, selector: str) -> Target:
        found = await self.client.version(model, selector)
        return Target(found.name, found.version, found.id)

    async def ask(self, question: Question, target: Target) -> Answer | Failure:
        """Return what a version answers about a row.

        Raises:
            Unavailable: Nothing was answered for too long, of any row.
            MarwayError: It is no use to ask about other rows either.
        """
        if question.fault is not None:
            return Failure(question, question.fault, "invalid_row")
        tries, wait_s = 0, _WAIT_S
        while True:
            try:
                async with self.pace:
                    return await self._answer(question, target)
            except _FATAL:
                raise
            except MarwayError as exc:
                trouble = exc
            if not _of_no_room(trouble):
                self._silent_since = None
                tries += 1
                # A model that fails on an input does so again; what was too slow once, or broke, may not be.
                own_fault = isinstance(trouble, (errors.InvalidInput, ModelError))
                if own_fault or tries >= _TRIES:
                    return _failure(question, trouble)
                await asyncio.sleep(wait_s)
                continue
            # Counted from the first refusal: reading past what was done before may take longer than this.
            now = time.monotonic()
            self._silent_since = self._silent_since or now
            if now - self._silent_since > self.give_up_s:
                raise Unavailable(
                    f"nothing was answered for {self.give_up_s:g} s: {trouble.message}; start the same command again "
                    "when it is, and it goes on where it was"
                )
            self.pace.no_room(min(_WAIT_MAX_S, max(wait_s, trouble.retry_after_s or 0.0)))
            wait_s = min(_WAIT_MAX_S, wait_s * 2)

    async def _answer(self, question: Question, target: Target) -> Answer:
        found = await self.client.predict_full(
            target.id, question.body, content_type=question.content_type, priority="batch"
        )
        by = found.headers.get(headers.MODEL_ID)
        if by not in (target.id, None):  # as a model's fallback does where there is no room
            raise errors.Overloaded(f"{target.model} {target.version} had no room, and {by} answered in its place")
        self._silent_since = None
        self.pace.answered()
        return Answer(question, found.content, found.content_type, found.prediction_id)


def _of_no_room(trouble: MarwayError) -> bool:
    """Return whether an error says nothing of the row: no room, no pod, no gateway, or one that says nothing at all."""
    return isinstance(trouble, Unavailable) or (isinstance(trouble, errors.DeadlineExceeded) and trouble.status is None)


def _failure(question: Question, trouble: MarwayError) -> Failure:
    return Failure(question, trouble.message, trouble.code, trouble.status, trouble.prediction_id, trouble.request_id)
