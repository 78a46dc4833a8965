"""Which pod answers the requests of a sequence, for its model's state is there and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from marway_gateway.placement.pod import Pod

if TYPE_CHECKING:
    from marway_gateway.placement.choice import PlacementSpec

__all__ = ["KeptSequence", "sequence_home"]


class KeptSequence(NamedTuple):
    """A sequence, and the pod that is known to keep it, by its name."""

    id: str
    pod: str


def sequence_home(
    spec: PlacementSpec,
    order: Sequence[Pod],
    now: float,
    *,
    tried: Collection[Pod],
    score: Callable[[str, str, str], int],
) -> Pod | None:
    """Return the pod for a sequence's request, whoever has room; None where it is not there, or there is none.

    That is the one which is known to keep it, as long as it takes requests, also while it drains;
    else, of the version's first ``spec.pods`` healthy ones, the one with the highest ``score`` for the sequence.

    Args:
        spec: The version, and the sequence.
        order: The pods that may serve the version, its home first.
        now: On the pods' clock.
        tried: Pods that were asked.
        score: Of a pod's name, a model's name, and what else it is for.
    """
    if isinstance(spec.sequence, KeptSequence):
        keepers = (pod for pod in order if pod.name == spec.sequence.pod and pod not in tried)
        return next((pod for pod in keepers if pod.healthy(now) or pod.hands_over(now)), None)
    homes = [pod for pod in order if pod.healthy(now) and pod not in tried][: spec.pods]
    name, version = spec.key
    return max(homes, key=lambda pod: score(pod.name, name, f"{version}\0{spec.sequence}"), default=None)
