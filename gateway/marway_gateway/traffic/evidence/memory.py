"""Whether a candidate's memory grows while it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from marway.wire.rollouts import GuardEvidence

__all__ = ["MemorySample", "memory_evidence"]

_WARM_UP_S: Final = 6.0
_NEEDED: Final = 8
_LATEST: Final = 3
"""Samples that must all be above the limit: several gateways' samples are not quite of one time."""
_STEPS: Final = 3
_MOST: Final = 0.6
"""Of all growth, how much may be that of one step."""
_NOISE_BYTES: Final = 16 << 20
"""What allocators take and give back as they like, whatever a model does."""


class MemorySample(NamedTuple):
    """Memory at one time, in bytes.

    Attributes:
        watched_s: How long the rollout had been watched, in seconds.
        candidate: Of the candidate's workers, on the pod where they have most.
        base: The same of the base; None where it is not known.
    """

    watched_s: float
    candidate: int
    base: int | None = None


def memory_evidence(samples: Sequence[MemorySample], limit: float) -> GuardEvidence:
    """Judge how much more a candidate's memory has grown than its base's, since it was warm.

    It is worse where it has grown by more than `limit` of what it was, and by more than 16 MiB, and did so in three
    steps or more of which none is most of it: a worker that takes a buffer once has one step and no slope. Pods measure
    every ten seconds or so, so that many samples say the same, and a leak is known after half a minute. Nobody is
    divided by chance here, so that this has no bound for false alarms; a leak is not a matter of chance either.

    Args:
        samples: In order of time, every second or so.
        limit: As a fraction of the candidate's memory when it was warm.
    """
    warm = [each for each in samples if each.watched_s >= _WARM_UP_S]
    if len(warm) < _NEEDED:
        return GuardEvidence(
            verdict="unclear",
            counts={"samples": len(samples)},
            limit=limit,
            missing=f"{_NEEDED} samples after the first {_WARM_UP_S:g} seconds, of {len(warm)} so far",
        )
    first = warm[0].candidate
    now = min(each.candidate for each in warm[-_LATEST:])
    of_base = [each.base for each in warm if each.base is not None]
    grown = now - first - (max(0, of_base[-1] - of_base[0]) if of_base else 0)
    allowed = max(limit * first, _NOISE_BYTES)
    steps = _steps([each.candidate for each in warm])
    steady = len(steps) >= _STEPS and max(steps) <= _MOST * sum(steps)
    estimate = grown / first if first else 0.0
    worse = steady and grown > allowed
    return GuardEvidence(
        verdict="worse" if worse else "unclear" if grown > allowed else "not_worse",
        counts={"samples": len(warm), "bytes_at_first": first, "bytes_now": now},
        estimate=estimate,
        bound=estimate,
        limit=limit,
        evidence=max(0.0, grown / allowed) if steady else 0.0,
        missing="it has grown, and not yet steadily: it is looked at longer" if grown > allowed and not worse else None,
    )


def _steps(sizes: Sequence[int]) -> list[int]:
    """Return by how much each new maximum is above the one before it."""
    found, most = [], sizes[0]
    for size in sizes:
        if size > most:
            found.append(size - most)
            most = size
    return found
