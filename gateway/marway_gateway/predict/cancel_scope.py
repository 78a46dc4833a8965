"""Ends predictions at their deadlines and when their clients leave, with one timer for all that are answered soon."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

from marway.errors import DeadlineExceeded
from marway_gateway.predict.call import PredictCall, too_late
from marway_http.channel import Channel, ClientGone

__all__ = ["CancelScope", "DeadlineTimer"]

_SOON_S: Final = 0.25
"""Most predictions are answered before that, give or take a half, and spared a timer of their own."""


class DeadlineTimer:
    """Has scopes expire at their deadlines."""

    def __init__(self) -> None:
        self._waiting: dict[CancelScope, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, scope: CancelScope) -> None:
        """Have a scope expire, unless it is taken out before."""
        if scope.call.deadline.timeout_s < 2 * _SOON_S:
            scope.set_timer(asyncio.get_running_loop())
            return
        self._waiting[scope] = None
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_SOON_S, self._look, loop)

    def remove(self, scope: CancelScope) -> None:
        """Take a scope out, if it is in."""
        self._waiting.pop(scope, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for scope in list(self._waiting):
            deadline = scope.call.deadline
            if deadline.timeout_s - deadline.left_s() < _SOON_S / 2:
                break  # it began only now, as did all behind it
            del self._waiting[scope]
            scope.set_timer(loop)
        if self._waiting:
            self._timer = loop.call_later(_SOON_S, self._look, loop)


class CancelScope:
    """Cancels what runs within it at a call's deadline, and when its client leaves.

    Leaving it then raises `DeadlineExceeded` or `ClientGone` in the place of `asyncio.CancelledError`. The names are
    trio's.

    Args:
        channel: Of the request that runs within it, which tells that its client leaves; None stands for the current
            task, for what was begun as one and ends itself when its client leaves: calls over gRPC.

    Attributes:
        step: What is under way, for the message when it is too late; None says how far the pod is.
    """

    __slots__ = ("_channel", "_handle", "_reason", "_task", "_timer", "call", "step")

    def __init__(self, timer: DeadlineTimer, call: PredictCall, channel: Channel | None) -> None:
        self.call = call
        self.step: str | None = None
        self._timer = timer
        self._channel = channel
        self._task = asyncio.current_task() if channel is None else None
        self._handle: asyncio.TimerHandle | None = None
        self._reason: DeadlineExceeded | ClientGone | None = None

    def __enter__(self) -> Self:
        self._timer.add(self)
        if self._channel is not None:
            self._channel.when_gone(self._client_left)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._reason is None:
            return
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        if kind is asyncio.CancelledError:
            raise self._reason from None

    def set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have it expire at the call's deadline by a timer of its own."""
        self._handle = loop.call_later(max(0.0, self.call.deadline.left_s()), self._expire)

    def move_deadline(self) -> None:
        """Take in that the call has another deadline."""
        self.end_deadline()
        self.set_timer(asyncio.get_running_loop())

    def end_deadline(self) -> None:
        """Say that the deadline was met; the client is watched on."""
        self._timer.remove(self)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def close(self) -> None:
        """Cancel nothing any more; a second call does nothing."""
        self.end_deadline()
        if self._channel is not None:
            self._channel.when_gone(None)

    def _expire(self) -> None:
        self._interrupt(too_late(self.call, self.step))

    def _client_left(self) -> None:
        self._interrupt(ClientGone())

    def _interrupt(self, reason: DeadlineExceeded | ClientGone) -> None:
        if self._reason is None:
            self._reason = reason
            if self._channel is not None:
                self._channel.interrupt(reason)
            elif self._task is not None:
                self._task.cancel()
