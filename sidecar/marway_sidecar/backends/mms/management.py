"""Multi Model Server's management API: register, unregister, scale, describe and list."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import httpx
from pydantic import BaseModel, Field, ValidationError

from marway.errors import MarwayError, RuntimeDown, clip
from marway_sidecar.backends.base import ServedModel, WorkerStatus
from marway_sidecar.backends.mms.classify import server_error
from marway_sidecar.backends.mms.connection import MANAGEMENT_TIMEOUT_S, Connection

__all__ = ["Management", "Refused", "Registered", "answers_within_s"]

_PAGE: Final = 100
_WHY_PLAIN: Final = "started by a Multi Model Server, whose workers each load the model by themselves"


T = TypeVar("T", bound=BaseModel)


class Refused(Exception):
    """The server would not register or scale a version; the text is its own.

    Attributes:
        status: HTTP's; 0 when it did not say anything in time.
    """

    def __init__(self, text: str, *, status: int) -> None:
        super().__init__(text)
        self.status = status


class _Worker(BaseModel):
    status: str = ""
    memory: int = Field(0, alias="memoryUsage")


class _Described(BaseModel):
    workers: Sequence[_Worker] = ()


class _Item(BaseModel):
    name: str = Field(alias="modelName")


class _Listed(BaseModel):
    models: Sequence[_Item] = ()
    following: int = Field(0, alias="nextPageToken")


class Registered(NamedTuple):
    """What the server says of a version: how many workers it has, how many are up, and what each takes."""

    workers: int
    ready: int
    memory_bytes: Sequence[int]

    def statuses(self, server_name: str) -> list[WorkerStatus]:
        """Return its workers that are up; the server does not say what their process ids are."""
        return [WorkerStatus(0, server_name, "plain", _WHY_PLAIN, each) for each in self.memory_bytes]


def answers_within_s(model: ServedModel) -> float:
    """Return how long the server waits for a worker of a version before it ends it: it counts in minutes."""
    return math.ceil(model.predict_timeout_s / 60) * 60


class Management:
    """The management API of one server, which waits ``batch_delay_ms`` for a batch to fill; 0 makes none."""

    def __init__(self, connection: Connection, *, batch_delay_ms: int) -> None:
        self._connection = connection
        self._batch_delay_ms = batch_delay_ms

    async def register(self, model: ServedModel, workers: int) -> None:
        """Register a version and wait until its workers are up.

        Raises:
            Refused: It cannot be; something of it may be left when it said nothing in time.
            RuntimeDown: The server does not answer.
        """
        batching = self._batch_delay_ms > 0
        query: dict[str, str | int] = {
            "url": model.archive.name,
            "model_name": model.server_name,
            "batch_size": model.batch_rows if batching else 1,
            "max_batch_delay": self._batch_delay_ms if batching else 1,  # it reads zero as its default of 100
            "initial_workers": workers,
            "synchronous": "true",
            # What its documentation calls seconds are minutes (docs/mms.md).
            "response_timeout": round(answers_within_s(model) / 60),
        }
        await self._change("POST", "/models", query, model.load_timeout_s)

    async def unregister(self, server_name: str) -> None:
        """Remove a version; one that is not there is no error."""
        answer = await self._ask("DELETE", f"/models/{server_name}")
        if answer.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED, httpx.codes.NOT_FOUND):
            raise MarwayError(f"Multi Model Server would not unload {server_name}: {clip(_text(answer), 300)}")

    async def scale(self, model: ServedModel, workers: int) -> None:
        """Set the number of workers, 1 at least, and wait until they are up.

        Raises:
            Refused: They cannot be started.
            RuntimeDown: The server does not answer.
        """
        query: dict[str, str | int] = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
        await self._change("PUT", f"/models/{model.server_name}", query, model.load_timeout_s)

    async def describe(self, server_name: str) -> Registered | None:
        """Return what the server says of a version; None when it does not have it."""
        answer = await self._ask("GET", f"/models/{server_name}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        found = _read(_Described, answer, f"describe {server_name}").workers
        ready = [worker.memory for worker in found if worker.status == "READY"]
        return Registered(len(found), len(ready), ready)

    async def names(self, *, timeout_s: float = MANAGEMENT_TIMEOUT_S, page: int = _PAGE) -> frozenset[str]:
        """Return the names of all models. They are asked for in pages, each of which may take ``timeout_s``."""
        names: set[str] = set()
        token = 0
        while True:
            query = {"limit": page, "next_page_token": token}
            listed = _read(
                _Listed, await self._ask("GET", "/models", params=query, timeout=timeout_s), "list its models"
            )
            names.update(item.name for item in listed.models)
            if listed.following <= token:
                return frozenset(names)
            token = listed.following

    async def _change(self, method: str, path: str, query: Mapping[str, str | int], timeout_s: float) -> None:
        try:
            answer = await self._connection.ask("management", method, path, params=query, timeout=timeout_s)
        except httpx.ConnectTimeout as exc:
            raise RuntimeDown(f"Multi Model Server does not answer {method} {path}") from exc
        except httpx.TimeoutException as exc:
            raise Refused(f"no worker of it was up within {timeout_s:g} s", status=0) from exc
        if answer.status_code != httpx.codes.OK:
            raise Refused(_text(answer), status=answer.status_code)

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._connection.ask("management", method, path, **options)
        except httpx.TimeoutException as exc:
            raise RuntimeDown(f"Multi Model Server does not answer {method} {path}") from exc


def _read(kind: type[T], answer: httpx.Response, what: str) -> T:
    if answer.status_code != httpx.codes.OK:
        raise MarwayError(f"Multi Model Server would not {what}: {clip(_text(answer), 200)}")
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as exc:
        raise MarwayError(f"Multi Model Server would not {what}: its answer is {clip(answer.text, 200)}") from exc


def _text(answer: httpx.Response) -> str:
    error = server_error(answer.status_code, answer.content)
    return error.message if error is not None else answer.text
