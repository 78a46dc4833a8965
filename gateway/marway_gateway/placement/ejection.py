"""Outlier ejection: pods that fail requests are left alone for a while (Envoy's outlier detection).

The n-th ejection in a row lasts n times `eject_s`, and ends at once when an active health check, begun after it, finds
the pod ready; not so one for requests that were never answered, because health checks were answered all along. Never
are more than `max_percent` of the pods out at a time, one at least may be: with most pods failing, the fault is
likelier elsewhere, and the few that are left would drown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from marway_gateway.placement.pod import Pod

__all__ = ["Ejection"]

_TIMEOUT_COUNTS_S = 1.0
"""A request that gave its pod less time than this says nothing about it: impatience is not a pod's failure."""


class Ejection:
    """Decides when a pod is taken out, and for how long.

    Args:
        after_failures: Failures in a row that eject a pod: connections lost, or deadlines that passed.
        eject_s: How long a first ejection lasts.
        eject_max_s: The longest ejection.
        max_percent: How many of the pods may be out at a time, in percent.
        on_ejection: Called once an ejection.
    """

    def __init__(
        self,
        *,
        after_failures: int,
        eject_s: float,
        eject_max_s: float,
        max_percent: int = 50,
        on_ejection: Callable[[], None] = lambda: None,
    ) -> None:
        self._after_failures = after_failures
        self._eject_s = eject_s
        self._eject_max_s = eject_max_s
        self._max_percent = max_percent
        self._on_ejection = on_ejection

    def lost(self, pods: Sequence[Pod], pod: Pod, why: str, now: float) -> bool:
        """Count a lost connection; return whether the pod was ejected for it."""
        pod.failures += 1
        return pod.failures >= self._after_failures and self.eject(pods, pod, why, now)

    def timed_out(self, pods: Sequence[Pod], pod: Pod, now: float, *, waited_s: float) -> bool:
        """Count a request left without an answer; return whether the pod was ejected for it."""
        if waited_s < _TIMEOUT_COUNTS_S:
            return False
        pod.timeouts += 1
        if pod.timeouts < self._after_failures:
            return False
        ejected = self.eject(pods, pod, f"left {pod.timeouts} requests in a row without an answer", now)
        pod.silent = pod.silent or ejected
        return ejected

    def eject(self, pods: Sequence[Pod], pod: Pod, why: str, now: float) -> bool:
        """Take a pod out and return True, unless it is out already or too many are."""
        if pod.ejected(now):
            return False
        out = sum(other.ejected(now) for other in pods)
        if out + 1 > max(1, len(pods) * self._max_percent // 100):
            return False
        # A pod that was well for as long as the longest ejection starts over.
        pod.ejections = 1 if now - pod.ejected_at > self._eject_max_s else pod.ejections + 1
        pod.ejected_at = now
        pod.ejected_until = now + min(self._eject_s * pod.ejections, self._eject_max_s)
        pod.ejection_reason = why
        pod.failures = pod.timeouts = 0
        pod.silent = False
        self._on_ejection()
        return True
