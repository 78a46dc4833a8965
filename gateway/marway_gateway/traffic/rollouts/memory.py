"""How much memory a rollout's versions take on pods, over the time that it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from marway_gateway.placement.pod import Pod
from marway_gateway.traffic.evidence import MemorySample
from marway_gateway.traffic.rollouts.running import Running

__all__ = ["grown", "sample"]

_KEPT: Final = 128
"""Samples that one process keeps of a rollout; when there are more, every second one is given up."""


def sample(running: Running, pods: Iterable[Pod]) -> None:
    """Take in what pods say of the memory of a rollout's versions: of one worker, without what workers share."""
    candidate = base = 0
    for pod in pods:
        for model in pod.status.models if pod.status is not None else ():
            if model.name != running.model or model.state != "ready" or not model.workers:
                continue
            of_one = max(0, model.memory_bytes - model.weights_bytes) // model.workers
            if model.version == running.traffic.candidate:
                candidate = max(candidate, of_one)
            elif model.version == running.traffic.base:
                base = max(base, of_one)
    if candidate:
        running.memory.append((round(running.all_s, 1), candidate, base or None))
        if len(running.memory) > _KEPT:
            del running.memory[1::2]


def grown(running: Running) -> Sequence[MemorySample]:
    """Return what all processes saw, in order of time: one that starts in the middle goes on from there."""
    seen = [*running.memory, *(each for other in running.others.values() for each in other.memory)]
    return [MemorySample(*each) for each in sorted(seen, key=lambda each: each[0])]
