"""Follows a backend's model server: attaches the one that answers to the pool, and lets go of one that is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from typing import Final

from marway.errors import MarwayError
from marway_sidecar.backends.base import Backend, ModelServer, ServerInfo

__all__ = ["ServerWatch"]

logger = logging.getLogger(__name__)

_SECOND_LOOK_S: Final = 0.3
"""A connection that broke says little: it is asked once more before the server counts as down."""


class ServerWatch:
    """Keeps the pool attached to the backend's server while it answers.

    Args:
        backend: Finds the server.
        attach: Called with a server that answers, and with None when it no longer does.
        poll_s: How often to look whether there is another one, in seconds.
    """

    def __init__(self, backend: Backend, attach: Callable[[ModelServer | None], None], *, poll_s: float) -> None:
        self.backend = backend
        self._attach = attach
        self._poll_s = poll_s
        self._server: ModelServer | None = None
        self._attached = False
        self._probing: asyncio.Task[None] | None = None

    @property
    def info(self) -> ServerInfo | None:
        """What is known of the server, while it is up."""
        return self._server.info if self._server is not None and self._attached else None

    @property
    def trouble(self) -> str:
        """Why no server is up."""
        return self.backend.trouble(found=self._server is not None)

    async def run(self) -> None:
        """Watch until cancelled."""
        seen: Hashable = object()
        try:
            while True:
                try:
                    stamp = self.backend.stamp()
                    if stamp != seen:
                        seen = stamp
                        await self._look()
                except Exception:
                    # The pod depends on this task: it must outlive whatever one look runs into.
                    logger.exception("looking for the model server failed")
                await asyncio.sleep(self._poll_s)
        finally:
            await self._stop_probing()
            await _close(self._server)

    async def _look(self) -> None:
        await self._stop_probing()
        server = self.backend.connect()
        if server is None:
            logger.warning("the model server is down" if self._attached else self.backend.trouble(found=False))
        before = self._swap(server)
        if server is not None:
            self._probing = asyncio.create_task(self._probe_for_ever(), name="probe-model-server")
        await _close(before)

    def _swap(self, server: ModelServer | None) -> ModelServer | None:
        """Let go of the server that there was, and return it; the new one is attached when it answers."""
        before, self._server = self._server, server
        if self._attached:
            self._attached = False
            self._attach(None)
        return before

    async def _stop_probing(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
            self._probing = None

    async def _probe_for_ever(self) -> None:
        while True:
            try:
                while not await self._probe():
                    pass
            except Exception:
                logger.exception("asking the model server failed")
            await asyncio.sleep(self.backend.probe_interval_s)

    async def _probe(self) -> bool:
        """Ask the server and act on what it says; return False when another is to be asked at once."""
        server = self._server
        if server is None:
            return True
        try:
            same = await self._is_same(server)
        except MarwayError as exc:
            if self._attached:
                logger.warning("the model server is down: %s", exc.message)
                await _close(self._swap(self.backend.connect()))
            return True
        if not same:
            logger.warning("the model server was restarted")
            await _close(self._swap(self.backend.connect()))
            return False
        if not self._attached:
            info = server.info
            logger.info("%s %s is up", self.backend.name, info.versions.get(self.backend.name, ""))
            self._attached = True
            self._attach(server)
        return True

    async def _is_same(self, server: ModelServer) -> bool:
        began = time.monotonic()
        while True:
            try:
                return await server.is_same(timeout_s=self.backend.probe_timeout_s)
            except MarwayError:
                if not self._attached or time.monotonic() - began > _SECOND_LOOK_S:
                    raise
            await asyncio.sleep(_SECOND_LOOK_S)


async def _close(server: ModelServer | None) -> None:
    if server is not None:
        await asyncio.shield(server.aclose())
