"""Finds rollouts that no gateway has requests of: what says that one was begun is in the store (`RolloutRecord`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from marway.errors import InvalidRecord
from marway.registry import Registry
from marway.registry.keys import ROLLOUTS
from marway.traffic import Traffic
from marway_gateway.traffic.rollouts.rollouts import Rollouts

__all__ = ["Finding"]

_OVER_S: Final = 300.0
"""A rollout that its model's state does not tell of for so long is over: it was to be begun within two minutes."""


class Finding:
    """Has `Rollouts` know of all that run. A background duty: one gateway among all does it.

    Args:
        registry: Where they are.
        rollouts: Told of them.
        clock: Monotonic seconds.
    """

    def __init__(self, registry: Registry, rollouts: Rollouts, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._rollouts = rollouts
        self._clock = clock
        self._absent: dict[tuple[str, str], float] = {}  # since when the state does not tell of it
        self._over: set[tuple[str, str]] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="find-rollouts")

    async def run(self) -> None:
        """Look for them once.

        Raises:
            RegistryUnavailable: The registry does not answer.
        """
        for model, label, traffic in await asyncio.get_running_loop().run_in_executor(self._thread, self.found):
            self._rollouts.of(model, label, traffic)

    def found(self) -> list[tuple[str, str, Traffic]]:
        """Return the rollouts that run: model, label and how it is divided. Blocks."""
        return list(self._found())

    def close(self) -> None:
        """End what was begun; a second call does nothing."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _found(self) -> Iterator[tuple[str, str, Traffic]]:
        store, now = self._registry.store, self._clock()
        listed: set[tuple[str, str]] = set()
        for model in store.children(ROLLOUTS):
            runs = {(model, run) for run in store.children(f"{ROLLOUTS}{model}/")}
            listed |= runs
            if not runs - self._over:
                continue
            try:
                traffic = self._registry.state(model).traffic
            except InvalidRecord:
                continue  # resolving it says so
            present = {(model, each.rollout) for each in traffic.values() if each.rollout is not None}
            for run in runs - present - self._over:
                if now - self._absent.setdefault(run, now) >= _OVER_S:
                    self._over.add(run)
            yield from ((model, label, each) for label, each in traffic.items() if each.rollout is not None)
        self._over &= listed
        self._absent = {run: at for run, at in self._absent.items() if run in listed and run not in self._over}
