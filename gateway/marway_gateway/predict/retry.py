"""Which failed attempts are made again, and what the caller is told when none is left.

Only failures that say nothing about the request are followed by another attempt (gRPC proposal A6, Envoy's retry
policy): an attempt that no pod accepted costs nothing and is made again at once, at most once a pod; one that was lost
with its pod may have been running and counts against a budget (`marway_gateway.predict.retry_budget`). What the model
or the pod said about the request itself is final.
"""

from __future__ import annotations

from marway.errors import MarwayError, ModelError, NoPodAvailable
from marway_gateway.observe.metrics import Metrics
from marway_gateway.placement import PlacementSpec, Pod, PodSet
from marway_gateway.predict.admission import Admission
from marway_gateway.predict.attempt import WORKER_DIED, Attempt, FailedAttempt
from marway_gateway.predict.call import PredictCall
from marway_gateway.predict.retry_budget import RetryBudget
from marway_gateway.transport.base import Reply

__all__ = ["Attempts", "RetryLoop"]


class RetryLoop:
    """Asks one pod after the other until one answers.

    Args:
        attempt: Asks one.
        pods: Says whom to ask next.
        admission: Where to wait while all that are left have as many requests as they may have.
        budget: Limits how many requests are retries.
        max_retries: Attempts after one that a pod had accepted.
        metrics: Counts retries.
    """

    def __init__(
        self,
        attempt: Attempt,
        pods: PodSet,
        admission: Admission,
        budget: RetryBudget,
        *,
        max_retries: int,
        metrics: Metrics,
    ) -> None:
        self._attempt = attempt
        self._pods = pods
        self._admission = admission
        self._budget = budget
        self._max_retries = max_retries
        self._metrics = metrics

    async def reply(self, call: PredictCall, spec: PlacementSpec) -> Reply:
        """Return the model's answer.

        Raises:
            MarwayError: What a pod said of the request, or that no pod could answer.
        """
        attempts = Attempts(max_retries=self._max_retries)
        in_budget = False
        try:
            while True:
                pod = self._choose(spec, attempts)
                if pod is None:
                    pod = await self._admission.pod_for(spec.key, lambda: self._choose(spec, attempts))
                if in_budget and pod.has_to_load(spec.key):
                    # Waiting for a load is not what retries are bounded for: one load serves all who wait for it.
                    in_budget = False
                    self._budget.leave()
                if attempts.last is not None:
                    self._metrics.retries.labels(attempts.last.reason).inc()
                result = await self._attempt.ask(pod, call, spec)
                if isinstance(result, Reply):
                    return result
                if in_budget:
                    in_budget = False
                    self._budget.leave()
                attempts.add(result, repeatable=call.body.repeatable)
                if result.accepted:
                    # What no pod accepted cost nothing and goes on at once; all else is a retry and on the budget.
                    in_budget = await self._budget.enter(attempts.retries)
                    if not in_budget:
                        self._metrics.retries_refused.inc()
                        raise result.error
        finally:
            if in_budget:
                self._budget.leave()

    def _choose(self, spec: PlacementSpec, attempts: Attempts) -> Pod | None:
        """Return the pod to ask next, or None while all that are left have as many requests as they may have.

        Raises:
            NoPodAvailable: Nobody is left.
        """
        pod = self._pods.choose(spec, tried=attempts.tried)
        if pod is not None:
            return pod
        last = attempts.last
        if last is not None and last.reason == WORKER_DIED and last.pod.healthy(self._pods.now()):
            return last.pod  # nobody else is left, and it has other workers
        if self._pods.saturated(spec, tried=attempts.tried):
            return None
        name, version = spec.key
        raise attempts.exhausted(model=name, version=version, troubles=self._pods.troubles(spec))


class Attempts:
    """The attempts of one request.

    Args:
        max_retries: How many further attempts may follow ones that a pod had accepted.

    Attributes:
        tried: Pods that were asked.
        failed: What came of that, in order.
    """

    tried: frozenset[Pod] = frozenset()
    failed: tuple[FailedAttempt, ...] = ()

    def __init__(self, *, max_retries: int) -> None:
        self._retries_left = max_retries

    @property
    def retries(self) -> int:
        """How many failures there were that a pod had accepted: each retry that follows one is on the budget."""
        return sum(attempt.accepted for attempt in self.failed)

    @property
    def last(self) -> FailedAttempt | None:
        """The attempt before this one, or None."""
        return self.failed[-1] if self.failed else None

    def add(self, attempt: FailedAttempt, *, repeatable: bool) -> None:
        """Take in a failure; return when another attempt may be made.

        Args:
            attempt: The failure.
            repeatable: Whether the body can be sent again.

        Raises:
            Unavailable: The failure's own error, because the request cannot be sent again.
            ModelError: It has killed its worker twice.
        """
        if attempt.reason == WORKER_DIED and any(earlier.reason == WORKER_DIED for earlier in self.failed):
            # Once may be chance; what kills two workers must not be given a third, nor be asked to come back.
            raise ModelError(
                f"the request killed two workers in a row: {attempt.error.message}",
                model=attempt.error.model,
                version=attempt.error.version,
            )
        self.failed = (*self.failed, attempt)
        self.tried |= {attempt.pod}
        if attempt.accepted:
            self._retries_left -= 1
        if not repeatable or self._retries_left < 0:
            raise attempt.error

    def exhausted(self, *, model: str, version: str, troubles: str) -> MarwayError:
        """Return what to tell the caller when no pod is left to ask.

        Args:
            model: For the message.
            version: For the message.
            troubles: Why pods were not asked, when none was.
        """
        said = "; ".join(attempt.error.message for attempt in self.failed) or troubles
        waits = [attempt.error.retry_after_s for attempt in self.failed if attempt.error.retry_after_s is not None]
        return NoPodAvailable(
            f"no pod can take {model} {version} now: {said}",
            model=model,
            version=version,
            retry_after_s=min(waits, default=None),
        )
