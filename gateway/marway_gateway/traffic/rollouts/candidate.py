"""Keeps a rollout's candidate loaded, and has it prove its golden answers again before more callers get it.

A candidate gets requests only where a pod has it ready, so one that nobody has gets none, and its rollout would stand
still: pods restart, and versions that are little used are unloaded for others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from marway.deadline import Deadline
from marway.errors import AnswersDiffer, ArchiveCorrupt, ContractBroken, LoadFailed, MarwayError
from marway.graphs import GRAPH_BACKEND
from marway.resolve.resolver import Resolver
from marway_gateway.admin.contracts import ContractChecks
from marway_gateway.admin.loading import Loader
from marway_gateway.placement import PodSet
from marway_gateway.traffic.rollouts.running import Failure, Running

__all__ = ["CandidateLoads"]

_PAUSE_S: Final = 5.0
_PAUSE_MAX_S: Final = 60.0
_FAILURES_MAX: Final = 3
"""Loads in a row that fail by the version's own fault until it is taken for broken: one may be a pod's."""
_log = logging.getLogger(__name__)


class CandidateLoads:
    """Has candidates loaded and proved.

    Args:
        resolver: Knows their records.
        loader: Asks pods.
        pods: Which of them have what ready.
        contracts: Has candidates asked what consumers rely on; None where nobody does.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        resolver: Resolver,
        loader: Loader,
        pods: PodSet,
        *,
        contracts: ContractChecks | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolver = resolver
        self._loader = loader
        self._pods = pods
        self._contracts = contracts
        self._clock = clock

    def keep_ready(self, running: Running) -> None:
        """Begin to have a candidate loaded, where no pod has it ready and nothing was begun."""
        version = running.traffic.candidate
        if version is None or running.loading is not None or self._clock() < running.load_again_at:
            return
        if any((running.model, version) in pod.ready_versions and pod.unreachable is None for pod in self._pods.pods):
            running.load_failures = 0
            return
        found = self._resolver.lookup(running.model, version)
        if found is not None and found.record.backend == GRAPH_BACKEND:
            return  # no pod has it: its nodes' versions are kept ready by the requests for them
        running.loading = asyncio.create_task(self._load(running, version), name=f"candidate:{running.model}")

    async def prove(self, running: Running) -> bool:
        """Have a pod compare a candidate's golden answers, and ask it what consumers have come to rely on since it was
        asked last; return False where that cannot be done now.

        What it answers otherwise is in `Running.failure` then.
        """
        version = running.traffic.candidate
        assert version is not None
        try:
            await self._asked(running.model, version, prove=True, label=running.label)
        except AnswersDiffer as exc:
            running.failure = Failure("golden", exc.message)
            return True
        except ContractBroken as exc:
            running.failure = Failure("contracts", exc.message)
            return True
        except MarwayError as exc:
            self._failed(running, version, exc)
            return running.failure is not None
        running.load_failures = 0
        return True

    async def _load(self, running: Running, version: str) -> None:
        try:
            await self._asked(running.model, version, prove=False)
        except MarwayError as exc:
            self._failed(running, version, exc)
        finally:
            running.loading = None

    async def _asked(self, model: str, version: str, *, prove: bool, label: str | None = None) -> None:
        found = await self._resolver.resolve(model, version)
        deadline = Deadline.after(found.serving.load_timeout_s)
        loads = await self._loader.load(found.record, found.serving, prove=prove, pod=None, deadline=deadline)
        if label is not None and self._contracts is not None:
            await self._contracts.keep(loads[0], found.record, label, deadline=deadline)

    def _failed(self, running: Running, version: str, error: MarwayError) -> None:
        _log.warning("the candidate %s %s was not loaded: %s", running.model, version, error.message)
        running.load_again_at = self._clock() + min(_PAUSE_MAX_S, _PAUSE_S * 2**running.load_failures)
        if isinstance(error, (LoadFailed, ArchiveCorrupt)):
            running.load_failures += 1
            if running.load_failures >= _FAILURES_MAX:
                running.failure = Failure("load", f"it could not be loaded {_FAILURES_MAX} times: {error.message}")
