"""What feedback says of a rollout, as the guard `quality` takes it: one gateway among all joins it, and all read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from marway.wire.rollouts import GuardEvidence
from marway_gateway.traffic.evidence import LiveQuality, QualityCounts
from marway_gateway.traffic.rollouts.running import Failure, Running
from marway_observations.rollouts.results import PARTS, RolloutQuality

__all__ = ["explained", "guards_of", "quality_counts", "take_in"]

_QUALITY: Final = "quality"
_MEMORY: Final = "memory"


def take_in(running: Running, found: RolloutQuality | None) -> None:
    """Keep what was read of a rollout's feedback; a declared bound that is surely breached ends it."""
    running.quality = found
    if found is not None and found.breached is not None:
        running.failure = Failure(_QUALITY, found.breached)


def guards_of(running: Running) -> Mapping[str, float | None]:
    """Return the guards to judge by: those that there is something to judge by.

    `quality` is none where the versions declare nothing that it could go by, `memory` where pods do not say what the
    candidate takes.
    """
    found, none = running.quality, set()
    if found is not None and found.guard is None:
        none.add(_QUALITY)
    if running.memory_unknown:
        none.add(_MEMORY)
    return {guard: limit for guard, limit in running.traffic.guards.items() if guard not in none}


def explained(evidence: Mapping[str, GuardEvidence], found: RolloutQuality | None) -> Mapping[str, GuardEvidence]:
    """Return the evidence with why feedback says nothing yet, where that is known: what came could not be used."""
    quality = evidence.get(_QUALITY)
    if quality is None or any(quality.counts.values()) or found is None or found.guard is None:
        return evidence
    reasons = "; ".join(f"{count} answers do not count: {why}" for why, count in found.guard.left_out.items())
    if not reasons:
        return evidence
    return {**evidence, _QUALITY: quality.model_copy(update={"missing": reasons})}


def quality_counts(found: RolloutQuality | None) -> QualityCounts | None:
    """Return losses from 0 to 1, and differences of them, in place of the eighths that they are stored in."""
    if found is None or found.guard is None:
        return None
    pairs: Counter[str] = Counter()
    live = []
    for each in found.guard.steps:
        pairs.update(_fractions(each.pairs))
        if each.divided and (each.base or each.candidate):
            live.append(
                LiveQuality(
                    step=each.step, share=each.share, base=_fractions(each.base), candidate=_fractions(each.candidate)
                )
            )
    return QualityCounts(pairs=dict(pairs), live=tuple(live))


def _fractions(counts: Mapping[int, int]) -> dict[str, int]:
    return {f"{eighths / PARTS:g}": count for eighths, count in counts.items()}
