"""Where a version's workers come from: a parent that has its weights, or processes that load it each by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from dataclasses import replace
from typing import Any

from marway.wire.runtime import KeptWeights
from marway_runtime.engines.native.worker_process import Launch, WorkerProcess
from marway_runtime.workers import Worker

__all__ = ["SharedWeights"]

_FORK_S = 5.0
_SHARES = "shares the weights of the version's other workers"


class SharedWeights:
    """Starts the workers of one version: the first as a parent that loads it, all of them forked from that.

    When the parent says that no worker may be forked from it, it is a worker like any other, and so are all others.
    """

    def __init__(self) -> None:
        self.loading: Worker | None = None
        """The process that loads the version and may become the parent, while it does."""
        self._parent: WorkerProcess | None = None
        self._bytes = 0
        self._alone: str | None = None
        self._starting = asyncio.Lock()
        self._answers: asyncio.Queue[int] = asyncio.Queue()
        self._workers: dict[int, asyncio.Future[int | None]] = {}
        self._listening: asyncio.Task[None] | None = None

    def kept(self, server_name: str) -> KeptWeights | None:
        """Return the parent, which has the weights; None without one."""
        parent = self._parent
        if parent is None or parent.ended.done():
            return None
        return KeptWeights(
            pid=parent.process.pid, server_name=server_name, size_bytes=self._bytes, workers=len(self._workers)
        )

    def give_up(self) -> None:
        """End the parent, and with it its workers, and wait for nothing; the next worker that starts loads it anew."""
        if self._parent is not None:
            self._parent.end()

    async def start(self, launch: Launch) -> WorkerProcess:
        """Start a worker; it is not ready yet when this returns.

        Raises:
            OSError: No process could be started.
        """
        async with self._starting:
            if self._parent is not None and self._parent.ended.done():
                await self._let_go()
            if self._parent is None:
                asked = replace(launch, options={**launch.options, "parent": self._alone is None})
                process = await WorkerProcess.start(asked, remark=self._alone or "")
                if self._alone is not None or not await self._is_parent(process):
                    return process
            return await self._forked(launch)

    async def aclose(self) -> None:
        """End the parent; workers that were forked from it end with it."""
        async with self._starting:
            await self._let_go()

    async def _is_parent(self, process: WorkerProcess) -> bool:
        """Wait for what the first process has to say, and return whether it became the parent."""
        self.loading = process.process
        try:
            message = await process.first_message()
        except BaseException:
            await process.aclose()
            raise
        finally:
            self.loading = None
        if "parent_bytes" not in message:
            self._alone = message.get("alone")
            process.process = replace(process.process, reason=self._alone or process.process.reason)
            return False
        self._parent, self._bytes = process, int(message["parent_bytes"])
        self._listening = asyncio.create_task(self._listen(process), name="shared-weights")
        return True

    async def _forked(self, launch: Launch) -> WorkerProcess:
        assert self._parent is not None
        launch.write_pulse()
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as failed:
            failed.callback(ours.close)
            ours.setblocking(False)
            told = {"socket": launch.options["socket"], "pulse": launch.options["pulse"]}
            self._parent.send(json.dumps(told).encode(), theirs)
            pid = await self._forked_pid()
            if not pid:
                raise OSError("the process with the version's weights ended")
            ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
            self._workers[pid] = ended
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                self._workers.pop(pid, None)
                raise OSError("the worker ended as it was forked") from None
            ended.add_done_callback(lambda _: os.close(descriptor))
            failed.pop_all()
        worker = Worker(pid, "forked", _SHARES, parent=self._parent.process.pid)
        return WorkerProcess(launch, worker, ours, ended, lambda: _kill(ended, descriptor), shares=True)

    async def _forked_pid(self) -> int:
        """Return the process that the parent says it has forked, or 0 when it has ended."""
        pending = asyncio.ensure_future(self._answers.get())
        try:
            return await asyncio.shield(pending)
        except asyncio.CancelledError:
            # It answers in milliseconds, and the next who asks must not take this answer for theirs.
            await asyncio.wait({pending}, timeout=_FORK_S)
            if not pending.done():
                pending.cancel()
                await self._let_go()
            elif pid := pending.result():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise

    async def _listen(self, parent: WorkerProcess) -> None:
        """Take what the parent says, until it has ended."""
        try:
            while (message := await parent.next_message()) is not None:
                if "forked" in message:
                    self._answers.put_nowait(int(message["forked"]))
                else:
                    self._over(self._workers.pop(int(message["ended"]), None), int(message["status"]))
        finally:
            self._answers.put_nowait(0)
            for pid in list(self._workers):
                self._over(self._workers.pop(pid), None)

    def _over(self, ended: asyncio.Future[Any] | None, status: int | None) -> None:
        if ended is not None and not ended.done():
            ended.set_result(status)

    async def _let_go(self) -> None:
        parent, self._parent = self._parent, None
        if parent is not None:
            await parent.aclose()
        if self._listening is not None:
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None
        self._answers = asyncio.Queue()


def _kill(ended: asyncio.Future[int | None], descriptor: int) -> None:
    if not ended.done():
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
