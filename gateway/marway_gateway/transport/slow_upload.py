"""Requests whose clients are slow to send their bodies take no places that others need meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final

from marway_gateway.http.body import RequestBody

__all__ = ["SlowUpload"]

_SLOW_S: Final = 1.0
"""An upload that takes longer, and waits for its client then, is slow."""


class SlowUpload:
    """Has a request give up its place while its client sends its body slowly, and take it again for the rest.

    The place is taken again without waiting: what was uploaded is served, and a moment of one request too many does
    less harm than uploads that fill all places. On leaving, the place is the request's as it was on entering.

    Args:
        body: What comes.
        aside: Gives up the place.
        back: Takes it again.
    """

    __slots__ = ("_aside", "_back", "_body", "_is_aside", "_timer")

    def __init__(self, body: RequestBody, *, aside: Callable[[], None], back: Callable[[], None]) -> None:
        self._body = body
        self._aside = aside
        self._back = back
        self._is_aside = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if not self._body.ended:
            self._body.at_end(self._end)
            self._timer = asyncio.get_running_loop().call_later(_SLOW_S, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _look(self) -> None:
        if self._body.waits_for_client:
            self._timer = None
            self._is_aside = True
            self._aside()
        else:
            self._timer = asyncio.get_running_loop().call_later(_SLOW_S, self._look)  # the pod takes its time

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_aside:
            self._is_aside = False
            self._back()
