"""Has versions loaded, released and scaled for the management API, at once or behind the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from marway.deadline import Deadline
from marway.errors import AnswersDiffer, DeadlineExceeded, LoadFailed, MarwayError
from marway.records import VersionRecord
from marway.refs import DEFAULT_LABEL
from marway.serving import ServingSettings
from marway_gateway.admin.parameters import Caller
from marway_gateway.admin.views import LabelMove
from marway_gateway.gateway import Gateway
from marway_gateway.surfaces.torchserve.managing.documents import having, in_gateway
from marway_gateway.surfaces.torchserve.managing.refusals import Refused
from marway_gateway.surfaces.torchserve.managing.versions import NOTE

__all__ = ["Workers"]

_LOOK_S: Final = 0.05
_ASK_S: Final = 0.5
_TOLD_S: Final = 0.25
"""After so long a pod has told that it begins to load something."""
_STATE_AGE_S: Final = 2.1
"""After so long every sidecar reads a model's state anew."""


class Workers:
    """Steers the workers of versions on pods.

    Args:
        gateway: Its parts.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def later(self, record: VersionRecord, job: Callable[[], Awaitable[object]]) -> None:
        """Do something about a version behind the answer; what goes wrong with it is in the log, as with TorchServe."""

        async def done() -> None:
            try:
                await job()
            except Refused as exc:
                raise MarwayError(exc.message) from exc

        self._gateway.jobs.start(_job(record), done)

    async def start(
        self,
        record: VersionRecord,
        serving: ServingSettings,
        *,
        default: bool,
        caller: Caller,
        deadline: Deadline | None,
    ) -> int:
        """Load a version, and return how many workers it has on a pod.

        Args:
            record: The version.
            serving: How it is served.
            default: Whether it becomes the model's default: it is released to `PROD` then, proved and compared.
            caller: Who asks.
            deadline: By default what its load may take.

        Raises:
            Refused: It does not load, or not all of its workers start.
            MarwayError: The label may not be moved to it, or no pod can load it now.
        """
        deadline = deadline or Deadline.after(serving.load_timeout_s)
        try:
            if default:
                move = LabelMove(version=record.version, note=NOTE)
                await self._gateway.releaser.release(record.name, DEFAULT_LABEL, move, caller, deadline=deadline)
            else:
                await self._gateway.loader.load(record, serving, prove=False, pod=None, deadline=deadline)
        except (LoadFailed, AnswersDiffer) as exc:
            raise _not_started(record, exc.message) from exc
        return 0 if in_gateway(record) else await self._running(record, serving, deadline)

    async def stop(self, record: VersionRecord, deadline: Deadline | None) -> None:
        """Unload a version from every pod that has it, once its requests have ended.

        Raises:
            InvalidRequest: It is a graph or a table, which no pod has.
            Unavailable, DeadlineExceeded: A pod could not do it; others may have.
        """
        deadline = deadline or Deadline.after(self._gateway.settings.default_timeout_s)
        if await self._gateway.jobs.cancel(_job(record)):
            # A pod goes on with what it was asked for, and may not have told of it.
            await asyncio.sleep(_TOLD_S)
        if in_gateway(record):
            await self._gateway.loader.unload(record, pod=None, deadline=deadline)
        # What is asked next is to find it gone: pods tell of it a moment after their answers, and a load that was under
        # way may come to its end meanwhile.
        while True:
            pods = [pod.name for pod, _ in having(self._gateway.pods, record)]
            await asyncio.gather(*(self._gateway.loader.unload(record, pod=pod, deadline=deadline) for pod in pods))
            if not self.has(record):
                return
            if deadline.passed:
                raise DeadlineExceeded(f"{record.name} {record.version} is still on {', '.join(pods)}: ask again")
            await asyncio.sleep(_LOOK_S)

    def has(self, record: VersionRecord) -> bool:
        """Return whether some pod has a version, or loads it; not one that is about to let it go."""
        return any(model.state != "draining" for _, model in having(self._gateway.pods, record))

    async def notify(self, record: VersionRecord) -> None:
        """Have the pods of a version look at how it is served: by themselves they do with its next request."""
        await asyncio.sleep(_STATE_AGE_S)
        deadline = Deadline.after(self._gateway.settings.default_timeout_s)
        for pod, _ in having(self._gateway.pods, record):
            serving = (await self._gateway.resolver.resolve(record.name, record.version)).serving
            await self._gateway.loader.load(record, serving, prove=False, pod=pod.name, deadline=deadline)

    async def _running(self, record: VersionRecord, serving: ServingSettings, deadline: Deadline) -> int:
        """Wait until some pod has as many workers as it is to have, and return how many.

        A pod starts them by itself, once it has seen the settings, which it looks at when it is asked for the version.
        """
        wanted, asked_at = max(serving.min_workers, 1), time.monotonic()
        while True:
            running = max((model.workers for _, model in having(self._gateway.pods, record)), default=0)
            if running >= wanted:
                return running
            if deadline.left_s() <= 0:
                raise _not_started(
                    record,
                    f"{running} of {wanted} run after {deadline.timeout_s:g} s; `marway pods {record.name}/"
                    f"{record.version}` and the pod's log say more",
                )
            await asyncio.sleep(_LOOK_S)
            if time.monotonic() - asked_at > _ASK_S:
                asked_at = time.monotonic()
                await self._gateway.loader.load(record, serving, prove=False, pod=None, deadline=deadline)


def _job(record: VersionRecord) -> str:
    """Return what the tasks of a version are called."""
    return f"TorchServe's management API: {record.name} {record.version}"


def _not_started(record: VersionRecord, why: str) -> Refused:
    text = f"Failed to start workers for model {record.name} version: {record.version}: {why}"
    return Refused(500, "InternalServerException", text)
