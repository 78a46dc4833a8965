"""The engine `native` behind the `ModelServer` interface."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, Overloaded, RuntimeDown
from marway.wire.envelope import Answer, Row
from marway.wire.native import ModelState, worker_socket
from marway.wire.runtime import RuntimeInfo, short_path
from marway_sidecar.backends.base import (
    Description,
    NotLoaded,
    ServedModel,
    ServerInfo,
    ServerStatus,
    WorkerDied,
)
from marway_sidecar.backends.calls import whole_answer
from marway_sidecar.backends.native.connection import WorkerConnection
from marway_sidecar.backends.native.control import Control

__all__ = ["SERVES", "NativeServer"]

SERVES: Final = frozenset({"native", "torchserve"})
"""Archives for TorchServe are served by both."""

_GREETING_S: Final = 0.2
_LOOK_S: Final = 0.02
_LOOK_MAX_S: Final = 0.25
"""How often it is looked whether a worker is back: more and more seldom, up to this."""


@dataclass(slots=True)
class _Version:
    """A version as calls find it.

    Attributes:
        model: As it was loaded.
        state: What the runtime said last.
        connections: By the number of the worker.
        mending: Connects to those that were lost.
    """

    model: ServedModel
    state: ModelState
    connections: dict[int, WorkerConnection] = field(default_factory=dict)
    mending: asyncio.Task[None] | None = None

    @property
    def lost(self) -> bool:
        """Whether there is a worker without a connection."""
        return sum(each.open for each in self.connections.values()) < self.state.workers


class NativeServer:
    """The workers of one runtime, each of which is called over a connection of its own.

    Args:
        info: What the runtime says of itself.
        runtime_dir: The directory shared with it.
    """

    batches = True

    def __init__(self, info: RuntimeInfo, runtime_dir: Path) -> None:
        self.serves = SERVES
        self.info = ServerInfo(info.boot_id, info.versions, info.memory_limit_bytes, info.cpus, info.environments_for)
        self._runtime_dir = runtime_dir
        self._control = Control(runtime_dir, info.boot_id)
        self._versions: dict[str, _Version] = {}

    async def load(self, model: ServedModel) -> Description:
        await self._control.enter_environment(model)
        return await self._connected(model, await self._control.load(model))

    async def unload(self, model: ServedModel) -> None:
        self._let_go(model.server_name, _ended(model))
        await self._control.unload(model)

    async def scale(self, model: ServedModel, workers: int) -> Description:
        version = self._versions.get(model.server_name)
        if version is not None:
            going = [version.connections.pop(number) for number in list(version.connections) if number >= workers]
            for connection in going:
                await connection.answered()  # no call is made there any more
                connection.close(_ended(model))
        return await self._connected(model, await self._control.scale(model, workers))

    async def describe(self, model: ServedModel) -> Description | None:
        state = await self._control.describe(model)
        return _description(state) if state is not None else None

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        if model.streaming:
            return [await whole_answer(self.predict_stream(model, row, deadline)) for row in rows]
        connection = self._free(model) or await self._wait_for_worker(model, deadline)
        return await connection.call(rows, deadline)

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        connection = self._free(model) or await self._wait_for_worker(model, deadline)
        async with aclosing(connection.stream(replace(row, stream=True), deadline)) as pieces:
            async for piece in pieces:
                yield piece

    async def status(self) -> ServerStatus:
        return await self._control.status(await self._control.names())

    async def is_same(self, *, timeout_s: float) -> bool:
        await self._control.names(timeout_s=timeout_s)
        return True  # another start of the runtime says so itself

    async def aclose(self) -> None:
        for server_name in list(self._versions):
            self._let_go(server_name, RuntimeDown("the runtime was let go of during the call"))
        await self._control.aclose()

    def _free(self, model: ServedModel) -> WorkerConnection | None:
        """Return the connection to the worker that has the fewest calls, if one is connected."""
        version = self._versions.get(model.server_name)
        if version is None:
            return None
        found = None
        for connection in version.connections.values():
            if connection.ready and (found is None or connection.calls < found.calls):
                found = connection
        return found

    async def _wait_for_worker(self, model: ServedModel, deadline: Deadline) -> WorkerConnection:
        """Return a connection to a worker once there is one; it may just be starting again."""
        pause_s = _LOOK_S
        while deadline.left_s() > 0:
            state = await self._control.describe(model)
            if state is None:
                self._let_go(model.server_name, _ended(model))
                message = f"the runtime does not have {model.name} {model.version}"
                raise NotLoaded(message, model=model.name, version=model.version)
            if state.workers == 0:
                message = f"{model.name} {model.version} has no worker"
                raise Overloaded(message, model=model.name, version=model.version)
            await self._connected(model, state)
            connection = self._free(model)
            if connection is not None:
                return connection
            await asyncio.sleep(min(pause_s, max(0.0, deadline.left_s())))
            pause_s = min(_LOOK_MAX_S, pause_s * 2)
        message = "the deadline passed before the model was asked"
        raise DeadlineExceeded(message, model=model.name, version=model.version)

    async def _connected(self, model: ServedModel, state: ModelState) -> Description:
        """Connect to the workers of a version that are there, and return what the runtime said of it."""
        version = self._versions.get(model.server_name)
        if version is None:
            version = self._versions[model.server_name] = _Version(model, state)
        version.model, version.state = model, state
        await self._connect(version)
        self._mend_if_lost(version)
        return _description(state)

    async def _connect(self, version: _Version) -> None:
        """Connect to each worker to which there is no connection, as far as they are there."""
        loop = asyncio.get_running_loop()
        for number in range(version.state.workers):
            before = version.connections.get(number)
            if before is not None and before.open:
                continue
            version.connections.pop(number, None)
            path = worker_socket(self._runtime_dir, version.model.server_name, number)
            try:
                with short_path(path) as short:
                    _, made = await loop.create_unix_connection(
                        lambda: WorkerConnection(
                            version.model, version.state, lost=lambda: self._mend_if_lost(version)
                        ),
                        short,
                    )
            except OSError:
                continue  # it is not there yet
            if self._versions.get(version.model.server_name) is not version or number in version.connections:
                made.close(_ended(version.model))  # unloaded meanwhile, or somebody else was sooner
            else:
                version.connections[number] = made
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(made.greeted.wait(), _GREETING_S)  # one that is in a call greets later

    def _mend_if_lost(self, version: _Version) -> None:
        """Have workers connected to again to which there is no connection, unless that is being done."""
        server_name = version.model.server_name
        if version.mending is None and version.lost and self._versions.get(server_name) is version:
            version.mending = asyncio.create_task(self._mend(version), name=f"reconnect {server_name}")

    async def _mend(self, version: _Version) -> None:
        """Connect to workers that were lost, once they are there again."""
        pause_s = _LOOK_S
        try:
            while version.lost:
                await asyncio.sleep(pause_s)
                await self._connect(version)
                pause_s = min(_LOOK_MAX_S, pause_s * 2)
        finally:
            version.mending = None

    def _let_go(self, server_name: str, error: MarwayError) -> None:
        version = self._versions.pop(server_name, None)
        if version is None:
            return
        if version.mending is not None:
            version.mending.cancel()
        for connection in version.connections.values():
            connection.close(error)


def _ended(model: ServedModel) -> WorkerDied:
    message = f"the worker of {model.name} {model.version} was ended during the call"
    return WorkerDied(message, model=model.name, version=model.version)


def _description(state: ModelState) -> Description:
    return Description(state.version, state.ready_workers, state.workers, state.calls_per_worker, state.in_pieces)
