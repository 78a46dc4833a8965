"""Who answers a request where its own version has no room for it, or has not answered in time: the version's fallback.

A version's serving settings name it (`fallback`, `fallback_after_s`). It is one step and never a chain, the caller is
told (`X-Marway-Fallback`), and what a model itself says of a request is passed on: another model would not know better.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import lru_cache

from marway.errors import MarwayError, NotFound, RegistryUnavailable, Unavailable
from marway.graphs import GRAPH_BACKEND
from marway.refs import Reference, parse_reference
from marway.resolve.resolved import Resolved
from marway.resolve.resolver import Resolver
from marway.wire.headers import DESCRIBE, FALLBACK, PRIORITIES
from marway_gateway.observe.telemetry import Telemetry
from marway_gateway.placement import PodSet, placement_spec
from marway_gateway.predict.call import CandidateLost, PredictCall
from marway_gateway.transport.reply import Reply
from marway_http.eager import in_task

__all__ = ["Fallbacks"]

Ask = Callable[[PredictCall, Resolved], Awaitable[Reply]]


class Fallbacks:
    """Asks fallbacks.

    Args:
        resolver: Says what they stand for.
        pods: Have them loaded before they are needed.
        telemetry: Counts them.
        algorithm_pools: Pools of versions that name none, by algorithm.
    """

    def __init__(
        self, resolver: Resolver, pods: PodSet, telemetry: Telemetry, algorithm_pools: Mapping[str, str]
    ) -> None:
        self._resolver = resolver
        self._pods = pods
        self._telemetry = telemetry
        self._algorithm_pools = algorithm_pools

    async def answer(self, call: PredictCall, resolved: Resolved, ask: Ask) -> Reply:
        """Return what ``ask`` gets from a version that has a fallback, or in its place from the fallback.

        Raises:
            CandidateLost: The fallback's surface has to make its body from what the caller sent: it was made for the
                version.
            MarwayError: As ``ask``; where the fallback has no room either, both say so.
        """
        if not _may_fall_back(call):
            return await ask(call, resolved)
        named = _parsed(resolved.serving.fallback or "")
        instead = await self._found(named, resolved)
        after_s = resolved.serving.fallback_after_s
        slow: asyncio.Timeout | None = None
        try:
            if after_s is None or call.body.whole is None or isinstance(instead, str):
                return await ask(call, resolved)
            await in_task()
            async with asyncio.timeout(after_s) as slow:
                return await ask(call, resolved)
        except Unavailable as exc:
            error, reason = exc, "no_room"
        except TimeoutError:
            if slow is None or not slow.expired():
                raise
            error = Unavailable(
                f"{resolved.record.name} {resolved.record.version} had not answered within {after_s:g} s, when its "
                "fallback is asked",
                model=resolved.record.name,
                version=resolved.record.version,
            )
            reason = "slow"
        if isinstance(instead, str):
            raise _with(error, f"its fallback {named} cannot answer: {instead}") from error
        if not call.body.repeatable:
            raise error
        made_anew = self._hand_over(call, resolved, instead, error, reason)
        if made_anew:
            raise CandidateLost from error
        try:
            return await ask(call, instead)
        except Unavailable as exc:
            raise _with(error, f"nor can its fallback {named}: {exc.message}") from exc

    async def _found(self, named: Reference, resolved: Resolved) -> Resolved | str:
        """Return the version that a fallback is now, or why there is none; have it loaded where no pod has it."""
        try:
            found = self._resolver.lookup(named.name, named.selector)
            if found is None:
                await in_task()
                found = await self._resolver.resolve(named.name, named.selector)
        except (NotFound, RegistryUnavailable) as exc:
            return exc.message
        if found.record.id == resolved.record.id:
            return "it is the same version"
        if found.record.backend != GRAPH_BACKEND:  # whose nodes are loaded by their own requests
            self._pods.has_ready(placement_spec(found.record, found.serving, self._algorithm_pools))
        return replace(found, divided=None)

    def _hand_over(
        self, call: PredictCall, resolved: Resolved, instead: Resolved, error: MarwayError, reason: str
    ) -> bool:
        """Make a version's call the fallback's; return whether its body has to be made anew."""
        info, record = call.info, instead.record
        assert call.asked is not None
        if info.assignment is not None:
            # Counted as what became of it with the version, of which the fallback's answer says nothing.
            info.failed(error)
            self._telemetry.live(info, info.assignment)
            info.outcome, info.error, info.assignment = "ok", None, None
        labels = resolved.record.name, resolved.record.version, reason
        self._telemetry.metrics.fallbacks.labels(*labels).inc()
        headers, body = call.asked
        made_anew = call.body is not body or call.headers is not headers
        call.headers, call.body = headers, body
        call.name, call.selector = record.name, record.version
        call.goes_to(instead)
        info.fallback = f"{record.name}/{record.version}"
        info.notes = (*info.notes, (FALLBACK, info.fallback))
        info.label, info.cache, info.pod, info.pod_s = None, None, None, None
        return made_anew


def _may_fall_back(call: PredictCall) -> bool:
    """Return whether another version may answer a call.

    Not where one does already; of a sequence, whose state is where it began; where the model is to describe itself; nor
    where the caller gives way to others, and would rather wait than have another model's answer.
    """
    info = call.info
    if info.fallback is not None or info.role in PRIORITIES:
        return False
    return call.sequence is None and DESCRIBE not in call.headers


@lru_cache(maxsize=1000)
def _parsed(fallback: str) -> Reference:
    return parse_reference(fallback)


def _with(error: Unavailable, further: str) -> Unavailable:
    """Return an error of the same kind that says further what a fallback came to."""
    return type(error)(
        f"{error.message}; {further}", model=error.model, version=error.version, retry_after_s=error.retry_after_s
    )
