"""What the admin plane asks of pods: load, prove, compare, unload, drain. Their errors come with the pod's name."""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, ModelError, NotFound, Unavailable
from marway.wire.comparison import Comparison
from marway.wire.pods import LoadReport, ModelStatus, PodStatus
from marway.wire.problems import parse_problem
from marway_gateway.placement import Pod
from marway_gateway.placement.pod_api import PodApi
from marway_gateway.transport.base import AttemptFailed

__all__ = ["PodControl"]

T = TypeVar("T", bound=BaseModel)
_DRAIN_S: Final = 5.0
"""A sidecar answers a drain at once, before it is empty."""


class PodControl:
    """Asks sidecars.

    Args:
        api: How to reach them.
    """

    def __init__(self, api: PodApi) -> None:
        self._api = api

    async def load(self, pod: Pod, name: str, version: str, *, prove: bool, deadline: Deadline) -> LoadReport:
        """Have a version loaded, and its golden answers compared if that is asked for.

        Raises:
            LoadFailed, ArchiveCorrupt: It cannot be loaded.
            Unavailable: Not on this pod, or not now.
            DeadlineExceeded: It took too long; the load goes on.
        """
        path = f"/models/{name}/{version}/load?prove={'true' if prove else 'false'}"
        return await self._ask(LoadReport, pod, "POST", path, deadline)

    async def compare(self, pod: Pod, name: str, version: str, *, base: str | None, deadline: Deadline) -> Comparison:
        """Have a version's answers compared with those of another one, or looked at where there is no other.

        Raises:
            LoadFailed, ArchiveCorrupt: It cannot be loaded.
            Unavailable: Not on this pod, or not now.
            DeadlineExceeded: It took too long.
        """
        query = f"?base={base}" if base is not None else ""
        path = f"/models/{name}/{version}/compare{query}"
        try:
            found = await self._ask(Comparison, pod, "POST", path, deadline)
        except NotFound as exc:
            if type(exc) is not NotFound:  # of the version
                raise
            raise Unavailable(
                f"pod {pod.name} cannot compare versions: its sidecar is older than this gateway; update it"
            ) from exc
        return found.model_copy(update={"pod": pod.name})

    async def unload(self, pod: Pod, name: str, version: str, *, deadline: Deadline) -> ModelStatus:
        """Have a version drained and unloaded; one that is not loaded stays so.

        Raises:
            Unavailable: It could not be drained in time, or the pod does not answer.
        """
        return await self._ask(ModelStatus, pod, "POST", f"/models/{name}/{version}/unload", deadline)

    async def drain(self, pod: Pod) -> PodStatus:
        """Have a pod take no more requests.

        Raises:
            Unavailable: It does not answer.
        """
        return await self._ask(PodStatus, pod, "POST", "/drain", Deadline.after(_DRAIN_S))

    async def take_back(self, pod: Pod) -> PodStatus:
        """Have a pod take requests again.

        Raises:
            Conflict: It is stopping.
            Unavailable: It does not answer.
        """
        return await self._ask(PodStatus, pod, "DELETE", "/drain", Deadline.after(_DRAIN_S))

    async def _ask(self, kind: type[T], pod: Pod, method: str, path: str, deadline: Deadline) -> T:
        left_s = deadline.remaining()
        if left_s <= 0:
            raise DeadlineExceeded(f"the deadline passed before pod {pod.name} was asked")
        try:
            status, data, retry_after_s = await self._api.ask(pod, method, path, timeout_s=left_s)
        except AttemptFailed as exc:
            late = DeadlineExceeded if exc.reason == "timeout" else Unavailable
            raise late(f"pod {pod.name} {exc.why}") from exc
        if status != 200:
            raise _named(pod, parse_problem(data, status=status, retry_after_s=retry_after_s))
        try:
            return kind.model_validate_json(data)
        except ValidationError as exc:
            raise Unavailable(f"pod {pod.name} answered with something else than a sidecar does") from exc


def _named(pod: Pod, error: MarwayError) -> MarwayError:
    """Return what a pod said as an error of the same kind that names the pod."""
    message = f"pod {pod.name}: {error.message}"
    if isinstance(error, ModelError):
        return ModelError(message, status=error.status, model=error.model, version=error.version)
    return type(error)(message, model=error.model, version=error.version, retry_after_s=error.retry_after_s)
