"""Whether a candidate's memory grows while it answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Final, NamedTuple

from marway.wire.rollouts import GuardEvidence

__all__ = ["MemorySample", "memory_evidence"]

_WARM_UP_S: Final = 6.0
_NEEDED: Final = 8
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

    It is worse where it has grown by more than `limit` of what it was, and by more than 16 MiB, and each quarter of the
    time added to it: a worker that takes a buffer once has one step and no slope. Nobody is divided by chance here, so
    that this has no bound for false alarms; a leak is not a matter of chance either.

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
    size = len(warm) // 4
    quarters = [warm[at * size : (at + 1) * size] for at in range(3)] + [warm[3 * size :]]
    levels = [median(each.candidate for each in quarter) for quarter in quarters]
    known = [[each.base for each in quarter if each.base is not None] for quarter in quarters]
    of_base = [median(each) for each in known] if all(known) else [0.0] * 4
    grown = (levels[-1] - levels[0]) - max(0.0, of_base[-1] - of_base[0])
    allowed = max(limit * levels[0], _NOISE_BYTES)
    rising = all(later > earlier for earlier, later in pairwise(levels))
    estimate = grown / levels[0] if levels[0] else 0.0
    worse = rising and grown > allowed
    return GuardEvidence(
        verdict="worse" if worse else "unclear" if grown > allowed else "not_worse",
        counts={"samples": len(warm), "bytes_at_first": int(levels[0]), "bytes_now": int(levels[-1])},
        estimate=estimate,
        bound=estimate,
        limit=limit,
        evidence=max(0.0, grown / allowed) if rising else 0.0,
        missing="it grew at once, and not since: it is looked at longer" if grown > allowed and not worse else None,
    )
