"""Sequences of versions whose handlers keep a state from one request to the next (`marway.archives.sequences`).

The pods know which sequences they keep. A gateway remembers who answered last, and asks that pod for the next request,
with the version that the sequence began with, wherever its label points by then; and whether a sequence is there, it is
the pod that says. What a gateway does not remember, because another one was asked before, it finds by asking the pods
that have the version ready. So a state that is lost is told to the caller, once, whoever is asked and whatever was
lost; what is begun then is begun anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple
from uuid import uuid4

from marway.errors import ModelError, Overloaded, SequenceNotFound, Unavailable, clip
from marway.resolve.resolved import Resolved, alike
from marway.wire.headers import SEQUENCE_END, SEQUENCE_ID, SEQUENCE_START
from marway_gateway.placement import PodSet, placement_spec
from marway_gateway.placement.choice import score
from marway_gateway.placement.sequence_home import KeptSequence, sequence_home
from marway_gateway.predict.call import CandidateLost, PredictCall
from marway_gateway.transport.reply import Reply

__all__ = ["Sequences"]

_REMEMBERED_MAX: Final = 100_000
_END: Final = SEQUENCE_END.encode()

Ask = Callable[[PredictCall, Resolved], Awaitable[Reply]]
_Key = tuple[str, str | None, str]


class _Kept(NamedTuple):
    """The version that a sequence began with, and the pod that keeps it; None once its callers were told that it is
    lost.
    """

    resolved: Resolved
    pod: str | None


class Sequences:
    """What one gateway remembers of sequences.

    Args:
        pods: Says who has which version ready.
        algorithm_pools: Pools of versions that name none, by algorithm.
    """

    def __init__(self, pods: PodSet, algorithm_pools: Mapping[str, str]) -> None:
        self._pods = pods
        self._algorithm_pools = algorithm_pools
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()

    def version_of(self, call: PredictCall, sequence: str) -> Resolved | None:
        """Return the version that a sequence began with, as far as it is remembered."""
        kept = self._kept.get((call.name, call.selector, sequence))
        return kept.resolved if kept is not None and kept.pod is not None else None

    async def answer(self, call: PredictCall, resolved: Resolved, ask: Ask) -> Reply:
        """Return the answer to a request for a version that keeps sequences, from the pod that keeps its own.

        Args:
            call: The call, whose headers say which sequence it is of; one that says none is a sequence of its own.
            resolved: What its name and selector stand for.
            ask: Asks pods.

        Raises:
            SequenceNotFound: It is to go on with a sequence that is not there, or its state was lost.
            CandidateLost: It is a candidate's: sequences are the base's.
            MarwayError: As ``ask``.
        """
        if call.base is not None:
            raise CandidateLost
        start = call.headers.get(SEQUENCE_START, "").lower()
        if (call.headers.get(SEQUENCE_ID) or "") == "":
            call.headers = {**call.headers, SEQUENCE_ID: f"ts-seq-{uuid4()}"}
            start = "true"
        call.sequence = name = call.headers[SEQUENCE_ID]
        key = call.name, call.selector, name
        kept = self._kept.get(key)
        if kept is not None and start != "true":
            if kept.pod is not None:
                return await self._go_on(call, resolved, key, kept, ask)
            start = start or "true"  # its callers were told, and mean a new one
        if start == "true":
            return await self._ask(call, resolved, key, start, ask)
        return await self._look_for(call, resolved, key, start, ask)

    async def _go_on(self, call: PredictCall, resolved: Resolved, key: _Key, kept: _Kept, ask: Ask) -> Reply:
        try:
            if not alike(kept.resolved, resolved):
                raise _gone(key, resolved, "its label moved to a version that takes other requests")
            if kept.resolved.record.id != resolved.record.id:
                resolved = kept.resolved
                call.goes_to(resolved)
            call.sequence, call.tied = KeptSequence(key[2], kept.pod or ""), True
            return await self._ask(call, resolved, key, "false", ask)
        except SequenceNotFound:
            self._keep(key, _Kept(kept.resolved, None))
            raise
        except Overloaded:
            raise  # the pod keeps it, and has no room just now
        except Unavailable as exc:
            self._keep(key, _Kept(kept.resolved, None))
            raise _gone(key, resolved, exc.message) from exc

    async def _look_for(self, call: PredictCall, resolved: Resolved, key: _Key, start: str, ask: Ask) -> Reply:
        """Ask the pods that have the version ready, and at last the sequence's home, where it may begin."""
        spec = placement_spec(resolved.record, resolved.serving, self._algorithm_pools, sequence=call.sequence)
        pods = self._pods
        home = sequence_home(spec, pods.order_of(spec), pods.now(), tried=(), score=score)
        call.tied = True
        for pod in pods.holding(spec) if call.body.repeatable else ():
            if pod is not home:
                call.sequence = KeptSequence(key[2], pod.name)
                try:
                    return await self._ask(call, resolved, key, "false", ask)
                except SequenceNotFound:
                    continue
        call.sequence = key[2]
        return await self._ask(call, resolved, key, start, ask)

    async def _ask(self, call: PredictCall, resolved: Resolved, key: _Key, start: str, ask: Ask) -> Reply:
        """Ask, and remember who answered, until the sequence ends."""
        call.headers = {name: value for name, value in call.headers.items() if name != SEQUENCE_START}
        if start:
            call.headers[SEQUENCE_START] = start
        try:
            reply = await ask(call, resolved)
        except ModelError:
            self._keep(key, _Kept(resolved, call.info.pod))
            raise
        if call.headers.get(SEQUENCE_END, "").lower() == "true" or any(name == _END for name, _ in reply.headers):
            self._kept.pop(key, None)
        else:
            self._keep(key, _Kept(resolved, call.info.pod))
        return reply

    def _keep(self, key: _Key, kept: _Kept) -> None:
        self._kept[key] = kept
        self._kept.move_to_end(key)
        if len(self._kept) > _REMEMBERED_MAX:
            self._kept.popitem(last=False)


def _gone(key: _Key, resolved: Resolved, why: str) -> SequenceNotFound:
    record = resolved.record
    message = f"the sequence {clip(key[2], 100)!r} of {record.name} {record.version} is not there: {why}; begin it anew"
    return SequenceNotFound(message, model=record.name, version=record.version)
