"""Requests of a label that is divided: each goes to the version that the label points at, or to the candidate.

Callers of exact versions and ids never get here. The candidate answers only where a pod has it ready: nobody waits for
it to be loaded, and nobody is refused for it. A graph is ready as any gateway is: what its nodes ask
was loaded when its rollout began, and is kept as other versions are.
"""

from __future__ import annotations

from collections.abc import Mapping

from marway.graphs import GRAPH_BACKEND
from marway.resolve.resolved import Resolved
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.placement import PodSet, placement_spec
from marway_gateway.traffic.assignment import Assignment, is_candidates, sticky_key

__all__ = ["Division"]


class Division:
    """Divides the requests of labels.

    Args:
        pods: Say where a candidate is ready.
        algorithm_pools: Pools of versions that name none, by algorithm.
    """

    def __init__(self, pods: PodSet, algorithm_pools: Mapping[str, str]) -> None:
        self._pods = pods
        self._algorithm_pools = algorithm_pools

    def divide(self, info: RequestInfo, base: Resolved) -> Resolved:
        """Return who answers a request of a label, and note which side it was drawn to.

        Whether the candidate is ready is looked at before the side is drawn, so that it cannot have to do with it:
        requests of moments when it is not ready count for neither version.
        """
        divided = base.divided
        if divided is None or divided.candidate is None:
            return base
        traffic, candidate = divided.traffic, divided.candidate
        key = sticky_key(
            traffic.sticky, request_id=info.request_id, group_id=info.group_id, header=info.header_or_metadata
        )
        drawn = is_candidates(traffic, key)
        ready = candidate.record.backend == GRAPH_BACKEND or self._pods.has_ready(
            placement_spec(candidate.record, candidate.serving, self._algorithm_pools)
        )
        info.assignment = Assignment(traffic, drawn, counted=ready)
        if not (drawn and ready):
            return base
        info.role = "candidate"
        return candidate
