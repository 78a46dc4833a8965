"""How every Marway process learns that it is time to stop: a signal, or the end of the process that started it.

`marway up` gives its children the read end of a pipe whose write end it alone holds (`MARWAY_LIFELINE_FD`). When it
dies, however it dies, the kernel closes the pipe and the children read its end: no child outlives a kill -9.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

__all__ = ["LIFELINE_ENV", "StopRequest", "watch_for_stop"]

LIFELINE_ENV = "MARWAY_LIFELINE_FD"


class StopRequest:
    """Set once when the process should stop.

    Attributes:
        orphaned: The process that started this one is gone, so nobody waits for a slow drain.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.orphaned = False

    def set(self, *, orphaned: bool = False) -> None:
        self.orphaned = self.orphaned or orphaned
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()


def watch_for_stop() -> StopRequest:
    """Turn SIGTERM, SIGINT and the end of the lifeline into a `StopRequest`; call it on the running loop, once."""
    loop = asyncio.get_running_loop()
    stop = StopRequest()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Popped, so that processes started from here do not take a stray descriptor for their lifeline.
    lifeline = os.environ.pop(LIFELINE_ENV, None)
    if lifeline is not None:
        descriptor = int(lifeline)
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, False)

        def ended() -> None:
            with contextlib.suppress(BlockingIOError):
                if not os.read(descriptor, 1):
                    loop.remove_reader(descriptor)
                    os.close(descriptor)
                    stop.set(orphaned=True)

        loop.add_reader(descriptor, ended)
    return stop
