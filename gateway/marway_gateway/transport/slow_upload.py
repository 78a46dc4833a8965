"""Requests whose clients are slow to send their bodies take no places that others need meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from marway_gateway.http.body import RequestBody

__all__ = ["slow_upload"]

_SLOW_S: Final = 1.0
"""An upload that takes longer, and waits for its client then, is slow."""


@contextmanager
def slow_upload(body: RequestBody, *, aside: Callable[[], None], back: Callable[[], None]) -> Iterator[None]:
    """Have a request give up its place while its client sends its body slowly, and take it again for the rest.

    The place is taken again without waiting: what was uploaded is served, and a moment of one request too many does
    less harm than uploads that fill all places. On leaving, the place is the request's as it was on entering.

    Args:
        body: What comes, and has not come whole.
        aside: Gives up the place.
        back: Takes it again.
    """
    loop = asyncio.get_running_loop()
    is_aside = False
    timer = loop.call_later(_SLOW_S, lambda: look())

    def look() -> None:
        nonlocal is_aside, timer
        if body.waits_for_client:
            is_aside = True
            aside()
        else:
            timer = loop.call_later(_SLOW_S, look)  # the pod takes its time

    def end() -> None:
        nonlocal is_aside
        timer.cancel()
        if is_aside:
            is_aside = False
            back()

    body.at_end(end)
    try:
        yield
    finally:
        end()
