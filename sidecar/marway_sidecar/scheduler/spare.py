"""Jobs that give way to all others: copies that nobody waits for, and what may take its time.

They begin only while no other request waits in this pod for a version that is ready, each as a call of its own, so that
none makes another's call longer. Where a version has several slots they leave one free, and take half of them at most;
where it has one, who comes behind such a call waits for the rest of it, and never for a second. Few may wait: there is
no use in a queue for what is done when there is nothing else to do.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from marway.errors import MarwayError, NoRoomToSpare
from marway_sidecar.errors import about
from marway_sidecar.scheduler.queue import Job
from marway_sidecar.scheduler.version import ScheduledVersion

__all__ = ["SpareJobs"]

_LIMIT: Final = 16
_AGAIN_S: Final = 0.005
"""How long until it is looked again whether others still wait."""
_RETRY_AFTER_S: Final = 1.0


class SpareJobs:
    """Those of one version that wait.

    Args:
        version: The version.
        look_again: Called a little later, where jobs wait for others of another version.

    Attributes:
        jobs: They, in the order of coming.
        running: How many were begun and have not ended.
    """

    def __init__(self, version: ScheduledVersion, look_again: Callable[[], None]) -> None:
        self._version = version
        self._look_again = look_again
        self.jobs: deque[Job] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.running = 0

    def push(self, job: Job, *, ready: bool) -> None:
        """Add one who comes; ``ready`` is whether calls may run.

        Raises:
            NoRoomToSpare: As many wait as may, or it is a copy and calls may not run.
        """
        record = self._version.record
        title = f"{record.name} {record.version}"
        if len(self.jobs) >= _LIMIT:
            message = f"{len(self.jobs)} requests that give way to others wait for {title} already"
            raise about(record, NoRoomToSpare(message, retry_after_s=_RETRY_AFTER_S))
        if not ready and job.priority == "shadow":
            message = f"{title} is not ready here, and copies of requests load nothing"
            raise about(record, NoRoomToSpare(message, retry_after_s=_RETRY_AFTER_S))
        self.jobs.append(job)

    def push_first(self, job: Job) -> None:
        """Put back one that was begun and has to be sent again."""
        self.jobs.appendleft(job)

    def next(self, slots: int, in_flight: int) -> Job | None:
        """Take the one that begins now, where one may; ``in_flight`` calls have some of the version's ``slots``."""
        while self.jobs:
            if in_flight + (slots > 1) >= slots or self.running >= max(1, slots // 2):
                return None  # until a call has ended
            if self._version.others_wait():
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(_AGAIN_S, self._look)
                return None
            job = self.jobs.popleft()
            if not job.future.done():  # else its caller was cancelled and has not run yet
                job.started_at = time.monotonic()
                self.running += 1
                return job
        return None

    def remove(self, job: Job) -> None:
        """Take one out who leaves; one who is not there may be."""
        if job in self.jobs:
            self.jobs.remove(job)

    def fail(self, error: MarwayError) -> None:
        """Tell all who wait that it is in vain."""
        while self.jobs:
            self.jobs.popleft().fail(error)

    def _look(self) -> None:
        self._timer = None
        self._look_again()
