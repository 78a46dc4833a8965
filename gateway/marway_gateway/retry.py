"""Which failed attempts are made again, and what the caller is told when none is left.

Only failures that say nothing about the request are followed by another attempt (gRPC proposal A6, Envoy's retry
policy): an attempt that no pod accepted costs nothing and is made again at once, at most once a pod; one that was lost
with its pod may have been running and counts against a budget. What the model or the pod said about the request
itself is final.
"""

from __future__ import annotations

from dataclasses import dataclass

from marway.errors import MarwayError, ModelError, NoPodAvailable, Unavailable
from marway_gateway.placement import Pod

__all__ = ["WORKER_DIED", "Attempts", "FailedAttempt"]

WORKER_DIED = "worker_died"
"""Reason of an attempt whose worker died; one more may follow it, on any pod."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that another may follow.

    Attributes:
        pod: Who was asked.
        reason: One word for metrics.
        error: What it ended in; its message begins with the pod's name.
        accepted: Whether the pod may have started on the request.
    """

    pod: Pod
    reason: str
    error: Unavailable
    accepted: bool


class Attempts:
    """The attempts of one request.

    Args:
        max_retries: How many further attempts may follow ones that a pod had accepted.
    """

    def __init__(self, *, max_retries: int) -> None:
        self.tried: set[Pod] = set()
        self.failed: list[FailedAttempt] = []
        self._retries_left = max_retries

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
        self.failed.append(attempt)
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
