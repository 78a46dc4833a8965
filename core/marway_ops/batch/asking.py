"""Asks one version about rows through a gateway, at the lowest priority, and waits where there is no room."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx

from marway import errors
from marway.errors import MarwayError, ModelError, Unavailable, clip
from marway.refs import DEFAULT_LABEL, Reference
from marway.wire import headers, problems
from marway_ops.batch.pace import Pace
from marway_ops.batch.rows import Question

__all__ = ["Answer", "Asker", "Failure", "Target", "connected"]

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


def connected(gateway: str, *, concurrency: int, timeout_s: float, token: str | None) -> httpx.AsyncClient:
    """Return a client of a gateway's public port."""
    sent = {} if token is None else {"authorization": f"Bearer {token}"}
    return httpx.AsyncClient(
        base_url=gateway,
        headers=sent,
        timeout=httpx.Timeout(timeout_s + 5.0, connect=5.0, pool=None),
        limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        trust_env=False,
    )


@dataclass(slots=True)
class Asker:
    """Asks through one gateway.

    Args:
        client: Sends requests, as `connected` makes one.
        pace: How many at once.
        timeout_s: Deadline of each request, seconds.
        give_up_s: After how many seconds without any answer it gives up.
    """

    client: httpx.AsyncClient
    pace: Pace
    timeout_s: float
    give_up_s: float
    _silent_since: float | None = field(default=None, init=False)

    async def resolve(self, reference: Reference) -> Target:
        """Return the version that a reference means now.

        Raises:
            Unavailable: No gateway answers.
            MarwayError: What the gateway answered.
        """
        name = quote(reference.name, safe="")
        if not reference.name.startswith("mv_"):
            return await self._target(name, reference.selector or DEFAULT_LABEL)
        model = await self._shown(f"/models/{name}")
        for version in model["versions"]:
            if (found := await self._target(quote(model["name"], safe=""), version)).id == reference.name:
                return found
        raise errors.VersionNotFound(
            f"{model['name']} has no version with the id {reference.name}", model=model["name"]
        )

    async def _target(self, model: str, selector: str) -> Target:
        found = await self._shown(f"/models/{model}/versions/{quote(selector, safe='')}")
        return Target(found["name"], found["version"], found["id"])

    async def _shown(self, path: str) -> dict[str, Any]:
        try:
            answer = await self.client.get(path)
        except httpx.TransportError as exc:
            raise Unavailable(f"no gateway answers at {self.client.base_url}: {exc}; is `marway up` running?") from exc
        if (trouble := _trouble(answer)) is not None:
            raise trouble
        found: dict[str, Any] = answer.json()
        return found

    async def ask(self, question: Question, target: Target) -> Answer | Failure:
        """Return what a version answers about a row.

        Raises:
            Unavailable: Nothing was answered for too long, of any row.
            MarwayError: It is no use to ask about other rows either.
        """
        if question.fault is not None:
            return Failure(question, question.fault, "invalid_row")
        sent = {
            "content-type": question.content_type,
            headers.PRIORITY: "batch",
            headers.REQUEST_TIMEOUT_MS: str(max(1, int(self.timeout_s * 1000))),
        }
        tries, wait_s = 0, _WAIT_S
        while True:
            answer: httpx.Response | None = None
            async with self.pace:
                try:
                    answer = await self.client.post(f"/predict/{target.id}", content=question.body, headers=sent)
                except httpx.TransportError as exc:
                    trouble: MarwayError | None = Unavailable(f"no gateway answers: {str(exc) or type(exc).__name__}")
                else:
                    trouble = _trouble(answer) or _of_another(answer, target)
            if answer is not None and trouble is None:
                self._silent_since = None
                self.pace.answered()
                kind = answer.headers.get("content-type", "")
                return Answer(question, answer.content, kind, answer.headers.get(headers.PREDICTION_ID))
            assert trouble is not None
            if isinstance(trouble, _FATAL):
                raise trouble
            if not isinstance(trouble, Unavailable):
                self._silent_since = None
                tries += 1
                # A model that fails on an input does so again; what was too slow once, or broke, may not be.
                own_fault = isinstance(trouble, (errors.InvalidInput, ModelError))
                if own_fault or tries >= _TRIES:
                    return _failure(question, trouble, answer)
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


def _trouble(answer: httpx.Response) -> MarwayError | None:
    """Return the error that an answer is, None where it is the model's own."""
    if not answer.is_error:
        return None
    if answer.headers.get("content-type", "").startswith(problems.CONTENT_TYPE):
        wait = answer.headers.get(headers.RETRY_AFTER, "")
        return problems.parse_problem(
            answer.content, status=answer.status_code, retry_after_s=float(wait) if wait.isdigit() else None
        )
    said = f"status {answer.status_code}: {clip(answer.text, 500)}"
    if headers.MODEL_ID in answer.headers:
        return ModelError(f"the model answered with {said}", status=answer.status_code)
    if answer.status_code in (429, 502, 503, 504):  # of a proxy between
        return Unavailable(said)
    return MarwayError(said)


def _of_another(answer: httpx.Response, target: Target) -> MarwayError | None:
    """Return that another version answered in this one's place, as a model's fallback does where it has no room."""
    by = answer.headers.get(headers.MODEL_ID)
    if by in (target.id, None):
        return None
    return errors.Overloaded(f"{target.model} {target.version} had no room, and {by} answered in its place")


def _failure(question: Question, trouble: MarwayError, answer: httpx.Response | None) -> Failure:
    found = answer.headers if answer is not None else httpx.Headers()
    return Failure(
        question,
        trouble.message,
        trouble.code,
        answer.status_code if answer is not None else None,
        found.get(headers.PREDICTION_ID),
        found.get(headers.REQUEST_ID),
    )
