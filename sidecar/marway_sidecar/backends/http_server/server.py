"""A server that is asked over HTTP, behind the `ModelServer` interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Final
from weakref import WeakValueDictionary

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, LoadFailed, MarwayError, Unavailable
from marway.refs import new_ulid
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import (
    Description,
    NotLoaded,
    ServedModel,
    ServerInfo,
    ServerStatus,
    WorkerStatus,
)
from marway_sidecar.backends.http_server.addresses import DIRECTORY, Addresses
from marway_sidecar.backends.http_server.connection import Connection
from marway_sidecar.backends.http_server.errors import error_of_answer, reason_in
from marway_sidecar.backends.http_server.lookups import TIMEOUT_S, Known, Lookups
from marway_sidecar.backends.http_server.predictions import Predictions
from marway_sidecar.backends.http_server.requests import Body
from marway_sidecar.backends.model_directory import ModelDirectory, bundle_of
from marway_sidecar.errors import about

__all__ = ["SERVES", "HttpServer"]

SERVES: Final = frozenset({"http"})

_LOOK_S: Final = 0.05
_LOOK_MAX_S: Final = 1.0
"""How often it is looked whether a version is ready: more and more seldom, up to this."""


class HttpServer:
    """One server.

    Args:
        addresses: Where it is asked for what.
        connection: To it.
        directory: Where versions' files are put; None for nowhere.
        serves: What it has, as settings say; nothing for what it is asked for.
        concurrency: Requests for one version at once.
        max_answer_bytes: Largest answer that is taken whole.
    """

    batches = False
    serves = SERVES

    def __init__(
        self,
        addresses: Addresses,
        connection: Connection,
        directory: ModelDirectory | None,
        *,
        serves: Sequence[str],
        concurrency: int,
        max_answer_bytes: int,
    ) -> None:
        self.info = ServerInfo(new_ulid(), {"http": ""})
        self._at = addresses
        self._connection = connection
        self._directory = directory
        self._concurrency = concurrency
        self._lookups = Lookups(addresses, connection, serves)
        self._predictions = Predictions(addresses, connection, self._lookups.has, max_answer_bytes=max_answer_bytes)
        self._versions: dict[str, Known] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._looked = False
        self._asked_last = ""

    async def is_same(self, *, timeout_s: float) -> bool:
        name = await self._lookups.name(timeout_s=timeout_s)
        if not self._looked:
            self.info = replace(self.info, versions={"http": name})
            await self._take_over()
            self._looked = True
            return True
        if self._at.ready is None or not self._versions:
            return True
        # One at a time: a server that was restarted lost them all.
        names = sorted(self._versions)
        self._asked_last = next((each for each in names if each > self._asked_last), names[0])
        asked = self._versions[self._asked_last]
        there = await self._lookups.has(asked, timeout_s=timeout_s)
        return there is not False or self._versions.get(asked.server_name) is not asked  # unloaded meanwhile

    async def _take_over(self) -> None:
        """Know what another sidecar had loaded here, and remove the files of what the server does not have."""
        if self._directory is None:
            return
        for placed in await asyncio.to_thread(self._directory.left):
            version = self._known(placed.server_name, placed.name, placed.version)
            if self._at.ready is not None and await self._lookups.has(version):
                self._versions[placed.server_name] = version
            else:
                await asyncio.to_thread(self._directory.remove, placed.server_name)

    async def load(self, model: ServedModel) -> Description:
        lock = self._locks.setdefault(model.server_name, asyncio.Lock())
        async with lock:
            manifest = await asyncio.to_thread(bundle_of, model, "http")
            version = self._known(model.server_name, model.name, model.version, manifest.server_model)
            self._lookups.check_served(version, list(self._versions.values()))
            has = await self._lookups.has(version)
            if has is False and self._at.load is None and self._directory is None:
                raise await self._lookups.lacks(version)
            try:
                if self._directory is not None:
                    await asyncio.to_thread(self._directory.place, model)
                if not has:
                    await self._tell_to_load(version, model)
                    await self._wait_until_ready(version, model)
            except MarwayError:
                with suppress(MarwayError):
                    await self._remove(version, sure=False)
                raise
            self._versions[model.server_name] = version
            return self._description(version)

    async def unload(self, model: ServedModel) -> None:
        version = self._versions.pop(model.server_name, None)
        if version is None:  # a load that was cut off may have left something
            await self._remove(self._known(model.server_name, model.name, model.version), sure=False)
            return
        try:
            await self._remove(version, sure=True)
        except MarwayError:
            self._versions[model.server_name] = version
            raise

    async def scale(self, model: ServedModel, workers: int) -> Description:
        version = self._versions.get(model.server_name)
        if version is None:
            raise self._not_loaded(model)
        return self._description(version)

    async def describe(self, model: ServedModel) -> Description | None:
        version = self._versions.get(model.server_name)
        if version is None or await self._lookups.has(version) is False:
            return None
        return self._description(version)

    async def status(self) -> ServerStatus:
        await self._lookups.name()
        reason = "of a server that keeps its workers itself"
        workers = [WorkerStatus(0, name, "plain", reason, private_bytes=0) for name in sorted(self._versions)]
        return ServerStatus(frozenset(self._versions), tuple(workers), 0)

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        return [await self._predictions.whole(self._loaded(model), row, deadline) for row in rows]

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        async with aclosing(self._predictions.pieces(self._loaded(model), row, deadline)) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        await self._connection.aclose()

    # -- what it has ---------------------------------------------------------------------------------------

    def _known(self, server_name: str, name: str, version: str, server_model: str | None = None) -> Known:
        values = {"model": name, "version": version, "server_name": server_name}
        if self._directory is not None:
            values[DIRECTORY] = str(self._directory.root / server_name)
        openai_model = self._at.openai_model or server_model or name
        return Known(server_name, name, version, values, openai_model, said_itself=server_model is not None)

    def _loaded(self, model: ServedModel) -> Known:
        version = self._versions.get(model.server_name)
        if version is None:
            raise self._not_loaded(model)
        return version

    def _not_loaded(self, model: ServedModel) -> NotLoaded:
        return about(model, NotLoaded(f"the model server does not have {model.name} {model.version}"))

    def _description(self, version: Known) -> Description:
        return Description(version.version, 1, 1, calls_per_worker=self._concurrency, scales=False)

    # -- loads ---------------------------------------------------------------------------------------------

    async def _tell_to_load(self, version: Known, model: ServedModel) -> None:
        if self._at.load is None:
            return
        body = Body([json.dumps(version.values).encode()], "application/json")
        url, deadline = self._at.load.url(version.values), Deadline.after(model.load_timeout_s)
        try:
            reply = await self._connection.ask(self._at.load.method, url, deadline, body=body)
        except DeadlineExceeded as exc:
            message = f"{version.title} was not loaded within {model.load_timeout_s:g} s (`load_timeout_s`)"
            raise about(model, LoadFailed(message)) from exc
        if reply.good:
            return
        why = f"{version.title} cannot be loaded: {url} answered with status {reply.status}: {reason_in(reply.body)}"
        error = error_of_answer(reply.status, reply.headers, reply.body, version.title)
        if isinstance(error, Unavailable):
            raise about(model, Unavailable(why, retry_after_s=error.retry_after_s))
        raise about(model, LoadFailed(why))

    async def _wait_until_ready(self, version: Known, model: ServedModel) -> None:
        deadline, pause_s = Deadline.after(model.load_timeout_s), _LOOK_S
        while self._at.ready is not None and not await self._lookups.has(version):
            if deadline.passed:
                url, limit_s = self._at.ready.url(version.values), model.load_timeout_s
                message = f"the model server does not say within {limit_s:g} s (`load_timeout_s`) at {url} that it has"
                raise about(model, LoadFailed(f"{message} {version.title}"))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LOOK_MAX_S)

    async def _remove(self, version: Known, *, sure: bool) -> None:
        """Have a version unloaded, and remove its files; unless that it is there is ``sure``, it need not be."""
        if self._at.unload is not None:
            url = self._at.unload.url(version.values)
            reply = await self._connection.ask(self._at.unload.method, url, Deadline.after(TIMEOUT_S))
            if sure and not reply.good and reply.status not in (404, 410):
                message = f"{version.title} cannot be unloaded: {url} answered with status {reply.status}"
                raise about(version, MarwayError(f"{message}: {reason_in(reply.body)}"))
        if self._directory is not None:
            try:
                await asyncio.to_thread(self._directory.remove, version.server_name)
            except OSError as exc:
                raise about(version, MarwayError(f"the files of {version.title} cannot be removed: {exc}")) from exc
