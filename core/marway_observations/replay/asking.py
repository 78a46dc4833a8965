"""Asks a version through a gateway at the lowest priority, and waits where there is no room for that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import httpx

from marway import errors
from marway.answers.golden import GoldenAnswer
from marway.errors import MarwayError, Unavailable, clip
from marway.records import VersionRecord
from marway.wire import headers, problems
from marway_observations.why.replaying import NotReplayed, answer_of, headers_of, question_of

__all__ = ["Answered", "Asker", "GaveUp", "NoRoom"]

_BUSY: Final = (errors.Overloaded, errors.ModelLoading, errors.Draining)
"""What passes by itself."""
_FATAL: Final = (errors.Unauthenticated, errors.NotFound, errors.LoadFailed, errors.ArchiveCorrupt)
"""What every further input would be told as well."""
_TRIES: Final = 4
_WAIT_S: Final = 0.2
_WAIT_MAX_S: Final = 5.0
_TIMINGS: Final = ("model", "pod")
"""Parts of `Server-Timing`, the better one first: in a pod's queue such requests wait for those of callers."""


class NoRoom(Unavailable):
    """A version could not be asked about one input, again and again, though it is there."""


class GaveUp(Unavailable):
    """No answer came for so long that it makes no sense to go on."""


class Answered(NamedTuple):
    """What a version answered, and how long that took, in seconds, where the gateway said so.

    It is the time in the model server, or in all of the pod where a model server's is not known.
    """

    answer: GoldenAnswer
    model_s: float | None


@dataclass(slots=True)
class Asker:
    """Asks through one gateway.

    Args:
        client: Sends requests; its base URL is a gateway's public port.
        timeout_s: Deadline of each request, seconds.
        give_up_s: After how many seconds without any answer it gives up.
        token: A bearer token, or None.
    """

    client: httpx.AsyncClient
    timeout_s: float
    give_up_s: float
    token: str | None = None
    _begun_at: float = field(default_factory=time.monotonic)
    _answered_at: float | None = None

    async def ask(self, row: Mapping[str, Any], record: VersionRecord) -> Answered:
        """Return what a version answers to a kept input.

        Raises:
            NotReplayed: The request cannot be made again from what was kept.
            NoRoom: It could not be asked about this one.
            GaveUp: Nobody answers any more.
            Unauthenticated, NotFound, LoadFailed, ArchiveCorrupt: It is no use to ask about any other either.
        """
        if record.sequences is not None:
            raise NotReplayed("its version keeps sequences: asked again by itself, it would be of none")
        question = question_of({**row, "version": record.version})
        sent = question.headers | headers_of(row["prediction_id"], token=self.token, timeout_s=self.timeout_s)
        sent[headers.PRIORITY] = "batch"
        tries, wait_s = 0, _WAIT_S
        while True:
            try:
                answer = await self.client.post(question.path, content=question.body, headers=sent)
            except httpx.TransportError as exc:
                why = str(exc) or "not in time"
                trouble: MarwayError = Unavailable(f"no gateway answers at {self.client.base_url}: {why}")
                if not self._answered_at:
                    raise GaveUp(f"{trouble.message}; is `marway up` running?") from exc
            else:
                found, trouble = self._read(row["surface"], answer, record)
                if found is not None:
                    self._answered_at = time.monotonic()
                    return found
                if not isinstance(trouble, _BUSY):
                    tries += 1
            if tries >= _TRIES:
                raise NoRoom(trouble.message)
            if time.monotonic() - (self._answered_at or self._begun_at) > self.give_up_s:
                raise GaveUp(f"nothing was answered for {self.give_up_s:g} s: {trouble.message}")
            await asyncio.sleep(min(_WAIT_MAX_S, max(wait_s, trouble.retry_after_s or 0.0)))
            wait_s *= 2

    def _read(self, surface: str, answer: httpx.Response, record: VersionRecord) -> tuple[Answered | None, MarwayError]:
        """Return what was answered, or None and why nothing was."""
        nothing = Unavailable(f"the gateway answered with status {answer.status_code}: {clip(answer.text, 300)}")
        given = answer.headers.get("content-type")
        if given is not None and given.startswith(problems.CONTENT_TYPE):
            wait = answer.headers.get(headers.RETRY_AFTER, "")
            wait_s = float(wait) if wait.isdigit() else None
            problem = problems.parse_problem(answer.content, status=answer.status_code, retry_after_s=wait_s)
            if isinstance(problem, _FATAL):
                raise problem
            if isinstance(problem, Unavailable):
                return None, problem
            failed = GoldenAnswer(status=answer.status_code, kind="error", value=problem.message)
            return Answered(failed, _model_s(answer)), nothing
        if answer.status_code == 401:
            raise errors.Unauthenticated("the gateway wants a token, or another one")
        if answer.status_code in (429, 503):  # of a protocol with errors of its own
            kind = errors.Overloaded if answer.status_code == 429 else Unavailable
            return None, kind(nothing.message)
        if (by := answer.headers.get(headers.MODEL_ID)) not in (record.id, None):
            raise MarwayError(f"{by} answered in place of {record.name} {record.version} ({record.id})")
        return Answered(answer_of(surface, answer.status_code, answer.content, given), _model_s(answer)), nothing


def _model_s(answer: httpx.Response) -> float | None:
    """Return how long the model took, by the header `Server-Timing`."""
    parts = (part.strip().partition(";dur=") for part in answer.headers.get(headers.SERVER_TIMING, "").split(","))
    known = {name: duration for name, _, duration in parts}
    try:
        return next((float(known[name]) / 1000 for name in _TIMINGS if name in known), None)
    except ValueError:
        return None
