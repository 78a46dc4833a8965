"""A backend whose models are a word in a file: the least that a backend is (docs/backends.md)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, LoadFailed, ModelError, RuntimeDown
from marway.refs import new_ulid
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import (
    Backend,
    Description,
    NotLoaded,
    ServedModel,
    ServerInfo,
    ServerStatus,
    WorkerDied,
    WorkerStatus,
)
from marway_sidecar.settings import SidecarSettings


class ToyServer:
    """A model server in this process, whose models do what a row's text says, as the contract suite has it."""

    batches = True
    serves = frozenset({"toy"})

    def __init__(self) -> None:
        self.info = ServerInfo(new_ulid(), {"toy": "1.0"})
        self.down = False
        self._workers: dict[str, int] = {}

    async def is_same(self, *, timeout_s: float) -> bool:
        self._check_up()
        return True

    async def load(self, model: ServedModel) -> Description:
        self._check_up()
        if model.archive.read_text() != "toy":
            raise LoadFailed(f"{model.archive} is no toy", model=model.name, version=model.version)
        workers = self._workers.setdefault(model.server_name, model.workers)
        return Description(model.version, workers, workers)

    async def unload(self, model: ServedModel) -> None:
        self._check_up()
        self._workers.pop(model.server_name, None)

    async def scale(self, model: ServedModel, workers: int) -> Description:
        self._check_up()
        self._workers[model.server_name] = workers
        return Description(model.version, workers, workers)

    async def describe(self, model: ServedModel) -> Description | None:
        self._check_up()
        workers = self._workers.get(model.server_name)
        return Description(model.version, workers, workers) if workers is not None else None

    async def status(self) -> ServerStatus:
        self._check_up()
        names = [name for name, workers in self._workers.items() for _ in range(workers)]
        workers = tuple(WorkerStatus(pid, name, "plain", "a toy", 1024) for pid, name in enumerate(names))
        return ServerStatus(frozenset(self._workers), workers, 0)

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        self._check_up()
        if model.server_name not in self._workers:
            raise NotLoaded("it is not here")
        try:
            async with asyncio.timeout(deadline.left_s()):
                return [Answer(200, "".join([piece async for piece in _pieces(row)]).encode(), "text") for row in rows]
        except TimeoutError as exc:
            raise DeadlineExceeded("too slow") from exc

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        if model.server_name not in self._workers:
            raise NotLoaded("it is not here")
        async for piece in _pieces(row):
            yield Answer(200, piece.encode(), "text")

    async def aclose(self) -> None:
        return

    def _check_up(self) -> None:
        if self.down:
            raise RuntimeDown("the toy is broken")


class ToyBackend(Backend):
    """Makes its server when it is asked for."""

    serves = ToyServer.serves

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        self.server = ToyServer()

    def stamp(self) -> str:
        return self.server.info.boot_id

    def connect(self) -> ToyServer:
        return self.server

    def trouble(self, *, found: bool) -> str:
        return "the toy is broken" if found else "there is no toy"


async def _pieces(row: Row) -> AsyncGenerator[str, None]:
    verb, _, rest = row.parts[0].value.decode().partition(" ")
    if verb == "fail":
        raise ModelError("on purpose")
    if verb == "die":
        raise WorkerDied("on purpose")
    if verb == "pieces":
        yield "one"
    if verb in ("pieces", "wait"):
        while not Path(rest).exists():
            await asyncio.sleep(0.01)
    yield {"pieces": "two", "wait": "waited"}.get(verb, rest)
