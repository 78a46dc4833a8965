"""Has versions loaded, released and scaled for the management API, at once or behind the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final

from marway.deadline import Deadline
from marway.errors import AnswersDiffer, LoadFailed, MarwayError
from marway.records import VersionRecord
from marway.refs import DEFAULT_LABEL
from marway.serving import ServingSettings
from marway_gateway.admin.parameters import Caller
from marway_gateway.admin.views import LabelMove
from marway_gateway.gateway import Gateway
from marway_gateway.surfaces.torchserve.managing.documents import having
from marway_gateway.surfaces.torchserve.managing.refusals import Refused

__all__ = ["Workers"]

_LOOK_S: Final = 0.05
_NOTE: Final = "through TorchServe's management API"
_log = logging.getLogger(__name__)


class Workers:
    """Steers the workers of versions on pods.

    Args:
        gateway: Its parts.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._behind: set[asyncio.Task[None]] = set()

    def later(self, job: Awaitable[object], what: str) -> None:
        """Do something behind the answer; what goes wrong with it is in the log, as with TorchServe."""

        async def done() -> None:
            try:
                await job
            except (MarwayError, Refused) as exc:
                _log.warning("%s failed: %s", what, exc.message)
            except Exception:
                _log.exception("%s failed", what)

        task = asyncio.create_task(done(), name=what)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

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
                move = LabelMove(version=record.version, note=_NOTE)
                await self._gateway.releaser.release(record.name, DEFAULT_LABEL, move, caller, deadline=deadline)
            else:
                await self._gateway.loader.load(record, serving, prove=False, pod=None, deadline=deadline)
        except (LoadFailed, AnswersDiffer) as exc:
            raise _not_started(record, exc.message) from exc
        return await self._running(record, max(serving.min_workers, 1), deadline)

    async def stop(self, record: VersionRecord, deadline: Deadline | None) -> None:
        """Unload a version from every pod that has it, once its requests have ended.

        Raises:
            Unavailable, DeadlineExceeded: A pod could not do it; others may have.
        """
        deadline = deadline or Deadline.after(self._gateway.settings.default_timeout_s)
        pods = [pod.name for pod, _ in having(self._gateway.pods, record)]
        await asyncio.gather(*(self._gateway.loader.unload(record, pod=pod, deadline=deadline) for pod in pods))

    async def _running(self, record: VersionRecord, wanted: int, deadline: Deadline) -> int:
        """Wait until some pod has as many workers as are wanted, which it starts by itself, and return how many."""
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


def _not_started(record: VersionRecord, why: str) -> Refused:
    text = f"Failed to start workers for model {record.name} version: {record.version}: {why}"
    return Refused(500, "InternalServerException", text)
