"""A process that has loaded a version's handler and answers no call itself: workers are forked from it.

So a version's weights are in memory once, however many workers it has, and a further worker is there in milliseconds.
Only what a fork cannot break is forked: one thread, no CUDA, nothing that was opened or started and is still there.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy
import torch

from marway.process.allocator import give_back_freed_memory
from marway_runtime.process_tree import adopt_orphans, children_of, die_with
from marway_runtime.shared_pages import private_bytes
from marway_runtime.worker.names import write_name

__all__ = ["Before", "Parent"]

_OWN_THREADS: Final = 2
"""The handler's, and the one that waits for the runtime's end (`parent_death`), which holds nothing."""
_MESSAGE_BYTES: Final = 65536
_ORPHANS_MS: Final = 50


class Before:
    """What a process was before it loaded a handler: made then, and asked after."""

    def __init__(self) -> None:
        self._open = _descriptors()
        self._torch_seed = torch.initial_seed()
        self._seeded = False

    @contextlib.contextmanager
    def watching_seeds(self) -> Iterator[None]:
        """Notice, while the context lasts, that random generators are given a seed."""
        before = random.seed, numpy.random.seed
        random.seed, numpy.random.seed = self._noting(before[0]), self._noting(before[1])
        try:
            yield
        finally:
            random.seed, numpy.random.seed = before
            self._seeded |= torch.initial_seed() != self._torch_seed

    @property
    def seeded(self) -> bool:
        """Whether the handler gave random generators a seed: then its workers all begin with what came of it."""
        return self._seeded

    def why_not_forked(self) -> str | None:
        """Return why no worker may be forked from this process, or None when one may."""
        if (threads := len(os.listdir("/proc/self/task")) - _OWN_THREADS) > 0:  # noqa: PTH208 - names are all that is wanted
            return f"its handler started threads ({threads})"
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            return "its handler uses CUDA"
        if children_of(os.getpid()):
            return "its handler started processes"
        for descriptor in sorted(_descriptors() - self._open, key=int):
            with contextlib.suppress(OSError):
                return f"its handler keeps {os.readlink(f'/proc/self/fd/{descriptor}')} open"  # noqa: PTH115 - a text
        return None

    def _noting(self, seed: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self._seeded = True
            return seed(*args, **kwargs)

        return noted


class Parent:
    """Forks workers when the runtime asks for one, and tells of their ends.

    The runtime writes lines of JSON, `{"socket", "pulse"}`, each with a descriptor: what the worker is to tell it by.
    The answers are `{"forked": PID}` and, at any time, `{"ended": PID, "status": N}`.

    Args:
        channel: To the runtime.
        server_name: What is served here.
        seeded: Whether random generators are left as they are.
    """

    def __init__(self, channel: socket.socket, server_name: str, *, seeded: bool) -> None:
        self._channel = channel
        self._server_name = server_name
        self._seeded = seeded
        self._random = random.getstate()
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._workers: dict[int, int] = {}  # pidfd → pid
        give_back_freed_memory()
        gc.collect()
        gc.freeze()  # never looked at again by anybody's collector, so that its pages stay shared
        self.size_bytes = private_bytes()
        """Memory that the workers will share and that nobody else has."""

    def serve(self) -> tuple[dict[str, Any], socket.socket]:
        """Serve until the process is killed; return in each worker, with what it was told and its own channel."""
        orphans = False
        while True:
            for descriptor, _ in self._poll.poll(_ORPHANS_MS if orphans else None):
                if descriptor in self._workers:
                    self._ended(descriptor)
                else:
                    forked = self._fork()
                    if forked is not None:
                        return forked
            orphans = self._end_orphans()

    def _fork(self) -> tuple[dict[str, Any], socket.socket] | None:
        line, descriptors, _, _ = socket.recv_fds(self._channel, _MESSAGE_BYTES, 1)
        if not line:
            os._exit(0)  # the runtime has ended
        with contextlib.closing(socket.socket(fileno=descriptors[0])) as channel:
            pid = os.fork()
            if pid == 0:
                return json.loads(line), self._become_worker(channel.dup())
            self._tell({"forked": pid})
            descriptor = os.pidfd_open(pid)
            self._workers[descriptor] = pid
            self._poll.register(descriptor, select.POLLIN)
        return None

    def _become_worker(self, channel: socket.socket) -> socket.socket:
        os.setsid()
        adopt_orphans()
        self._channel.close()
        for descriptor in self._workers:
            os.close(descriptor)
        die_with([channel.fileno()], group=True)
        write_name(self._server_name)
        if self._seeded:
            random.setstate(self._random)  # Python gives it another seed in each fork
        else:
            random.seed()
            numpy.random.seed()
            torch.seed()
        return channel

    def _ended(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        os.close(descriptor)
        pid = self._workers.pop(descriptor)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # what it started, while its pid is still its own
        self._tell({"ended": pid, "status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})

    def _tell(self, document: dict[str, int]) -> None:
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(document).encode() + b"\n")

    def _end_orphans(self) -> bool:
        """Kill what workers that have ended leave behind, and reap it; return whether some of it still lives."""
        living = False
        for pid in set(children_of(os.getpid())) - set(self._workers.values()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                living = os.waitpid(pid, os.WNOHANG)[0] == 0 or living
        return living


def _descriptors() -> set[str]:
    found = os.listdir("/proc/self/fd")  # noqa: PTH208 - names are all that is wanted
    return {each for each in found if Path(f"/proc/self/fd/{each}").is_symlink()}  # but for the one that listed them
