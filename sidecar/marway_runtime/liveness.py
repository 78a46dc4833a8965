"""Whether TorchServe answers: a frozen one still accepts connections, so it is asked, with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection

import httpx

from marway_runtime.settings import RuntimeSettings

__all__ = ["reap_strangers", "until_frozen"]

logger = logging.getLogger(__name__)


async def until_frozen(
    settings: RuntimeSettings, url: str, *, silent: Callable[[], None], back: Callable[[], None]
) -> None:
    """Return when TorchServe has not answered for `frozen_timeout_s`.

    Args:
        settings: The pauses and deadlines.
        url: What to ask; any answer will do.
        silent: Called when it does not answer, once.
        back: Called when it answers again after that.
    """
    since: float | None = None
    async with httpx.AsyncClient(trust_env=False, timeout=settings.probe_timeout_s) as client:
        while True:
            asked = time.monotonic()
            if await _answers(client, url, settings.probe_timeout_s):
                if since is not None:
                    logger.warning("TorchServe answers again after %.1f s", time.monotonic() - since)
                    since = None
                    back()
            elif since is None:
                logger.warning("TorchServe does not answer within %g s", settings.probe_timeout_s)
                since = asked
                silent()
            if since is not None and time.monotonic() - since >= settings.frozen_timeout_s:
                return
            await asyncio.sleep(settings.probe_interval_s)


async def _answers(client: httpx.AsyncClient, url: str, timeout_s: float) -> bool:
    # One deadline over connecting and reading: httpx gives each of them the whole time.
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(timeout_s):
            await client.get(url)
            return True
    return False


def reap_strangers(ours: Collection[int]) -> None:
    """Reap ended processes that were left to this one: in a container it is the first, and so everybody's parent.

    Args:
        ours: Children that somebody here waits for; they are left alone.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in ours:
                return  # reaped by its own waiter; the others get their turn
            os.waitpid(ended.si_pid, 0)
