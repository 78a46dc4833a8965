"""One loaded version: its unpacked archive, and a worker for each number, kept up until it is unloaded."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Final

from marway.errors import LoadFailed, clip
from marway.process.children import RestartPauses
from marway.wire.native import LoadRequest, ModelState
from marway.wire.runtime import KeptWeights
from marway_runtime.engines.native.shared_weights import SharedWeights
from marway_runtime.engines.native.unpacking import Unpacked
from marway_runtime.engines.native.worker_process import Launch, WorkerProcess
from marway_runtime.workers import Worker

__all__ = ["LoadedModel", "MakeLaunch"]

logger = logging.getLogger(__name__)

_REASON_MAX: Final = 800
_LOOK_MIN_S, _LOOK_MAX_S = 0.1, 1.0

MakeLaunch = Callable[[str, LoadRequest, Unpacked, int], Awaitable[Launch]]
"""Returns how a worker of a version is started, of the number given."""
Died = Callable[[WorkerProcess, str], None]
"""Told of a worker that ended though nobody ended it, and what it served."""


class LoadedModel:
    """A version and its workers.

    Args:
        server_name: Its name here.
        request: What was asked for.
        unpacked: Its archive; removed when the version is closed.
        launch: Says how its workers are started.
        died: Told of workers that died.
        over: Told of launches whose workers have ended, or never came to be.
        pause_s: Wait before a worker is started again that ended soon after its start, seconds; doubles each time.
        share_weights: Whether its workers are forked from one process that has loaded it, where that may be.
    """

    def __init__(
        self,
        server_name: str,
        request: LoadRequest,
        unpacked: Unpacked,
        launch: MakeLaunch,
        died: Died,
        over: Callable[[Launch], None],
        *,
        pause_s: float,
        share_weights: bool,
    ) -> None:
        self.request = request
        self._server_name = server_name
        self._unpacked = unpacked
        self._launch = launch
        self._died = died
        self._over = over
        self._pause_s = pause_s
        self._start_within_s = unpacked.seconds("startupTimeout", request.load_timeout_s)
        self._answer_within_s = unpacked.seconds("responseTimeout", request.predict_timeout_s)
        self._places: list[_Place] = []
        self._scaling = asyncio.Lock()
        self._weights = SharedWeights() if share_weights else None
        self.parked_at = 0.0
        """When it was left without workers, on the monotonic clock."""

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{self.request.name} {self.request.version}"

    @property
    def state(self) -> ModelState:
        """How many workers it is to have, and how many are ready."""
        ready = sum(place.ready for place in self._places)
        return ModelState(
            version=self.request.version,
            workers=len(self._places),
            ready_workers=ready,
            answer_within_s=self._answer_within_s,
            calls_per_worker=self._unpacked.calling.at_once,
            in_pieces=self._unpacked.calling.way == "continuous",
        )

    def workers(self) -> list[Worker]:
        """Return the workers that live, and the process that is loading the weights which they are to share."""
        found = [place.worker.process for place in self._places if place.worker is not None]
        if self._weights is not None and self._weights.loading is not None:
            found.append(self._weights.loading)
        return found

    def weights(self) -> KeptWeights | None:
        """Return what its workers are forked from; None where each loads by itself, or nothing has been loaded yet."""
        return self._weights.kept(self._server_name) if self._weights is not None else None

    @property
    def parked(self) -> bool:
        """Whether it is to have no workers, and its weights are kept."""
        return not self._places and self.weights() is not None

    def give_up_weights(self) -> None:
        """Let go of the weights; the next worker that starts loads them anew."""
        if self._weights is not None:
            self._weights.give_up()

    async def scale(self, workers: int) -> None:
        """Have so many workers, and return once all are ready; with none, shared weights are kept: it is parked.

        Raises:
            LoadFailed: One that was to be added did not come up; then there are as many as before.
        """
        async with self._scaling:
            before = len(self._places)
            await self._shrink(workers)
            if not workers:
                self.parked_at = time.monotonic()
            added = [_Place(number) for number in range(len(self._places), workers)]
            self._places += added
            for place in added:
                place.task = asyncio.create_task(self._keep(place), name=f"keep {self._server_name} {place.number}")
            try:
                for place in added:
                    await place.settled.wait()
                failed = next((place.failure for place in added if place.failure is not None), None)
            except BaseException:
                await self._shrink(before)
                raise
            if failed is not None:
                await self._shrink(before)
                raise LoadFailed(
                    f"{self.title} cannot be loaded: {clip(failed, _REASON_MAX)}; `marway logs {self.request.name}`, "
                    "or the log of the pod's runtime, has the traceback"
                )

    async def aclose(self) -> None:
        """End all workers and remove the unpacked archive."""
        await self._shrink(0)
        if self._weights is not None:
            await self._weights.aclose()
        await asyncio.to_thread(shutil.rmtree, self._unpacked.directory, ignore_errors=True)

    async def _shrink(self, workers: int) -> None:
        gone, self._places = self._places[workers:], self._places[:workers]
        tasks = [place.task for place in gone if place.task is not None]
        for place in gone:
            place.failure = "it was unloaded meanwhile"
            place.settled.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, place: _Place) -> None:
        """Have a worker in a place, and another when that one has ended: at once, or with growing pauses."""
        pauses = RestartPauses(self._pause_s)
        while True:
            began = time.monotonic()
            try:
                failure = await self._run_once(place)
            except OSError as exc:
                failure = f"no worker can be started: {exc}"
            if failure is not None and not place.settled.is_set():
                place.failure = failure
                place.settled.set()
                return  # whoever asked for it is told, and takes it away
            if failure is not None:
                logger.error("%s: %s", self.title, failure)
            pause_s = pauses.after(time.monotonic() - began)
            if pause_s > self._pause_s and self._weights is not None and not self.state.ready_workers:
                self._weights.give_up()  # several ended at once: what they are forked from may be why
            await asyncio.sleep(pause_s)

    async def _run_once(self, place: _Place) -> str | None:
        """Have one worker from its start to its end; return why it did not come up, if so."""
        launch = await self._launch(self._server_name, self.request, self._unpacked, place.number)
        worker = None
        try:
            try:
                async with asyncio.timeout(self._start_within_s):
                    starts = self._weights.start if self._weights is not None else WorkerProcess.start
                    worker = place.worker = await starts(launch)
                    failure = await worker.until_ready()
            except TimeoutError:
                return f"its handler was not loaded within {self._start_within_s:g} s (startupTimeout)"
            if failure is not None:
                return failure
            place.ready = True
            if launch.device is not None:
                launch.device.coming_bytes = 0  # it is there, and measured
            place.settled.set()
            if await self._over_time(worker):
                return f"a call took longer than {self._answer_within_s:g} s (responseTimeout): its worker is ended"
            self._died(worker, self._server_name)
            return f"worker {worker.process.pid} ended with status {worker.ended.result()}"
        finally:
            place.ready, place.worker = False, None
            launch.remove_socket()
            if worker is not None:
                await worker.aclose()
            self._over(launch)

    async def _over_time(self, worker: WorkerProcess) -> bool:
        """Wait until a worker ends, or takes too long for a call; return which."""
        look_s = min(_LOOK_MAX_S, max(_LOOK_MIN_S, self._answer_within_s / 20))
        while True:
            await asyncio.wait({worker.ended}, timeout=look_s)
            if worker.ended.done():
                return False
            if worker.busy_s() > self._answer_within_s:
                return True


class _Place:
    """Where a worker is: its number stays when the worker is started again."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.task: asyncio.Task[None] | None = None
        self.worker: WorkerProcess | None = None
        self.ready = False
        self.settled = asyncio.Event()
        """Set once the first worker is ready, or has failed to be."""
        self.failure: str | None = None
