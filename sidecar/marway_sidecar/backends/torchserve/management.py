"""TorchServe's management API: register, unregister, scale, describe and list; and what its runtime says about workers.

REST registration blocks a thread that inference shares, so registration goes over gRPC. gRPC reads zero as unset, so
scaling goes over REST. Concurrent registrations can lose one, so the adapter makes one at a time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import httpx

from marway.errors import MarwayError, RuntimeDown, clip
from marway.wire.runtime import TemporaryRoom
from marway_sidecar.backends.base import Description, ServedModel, WorkerStatus
from marway_sidecar.backends.runtime import RuntimeClient
from marway_sidecar.backends.torchserve.connection import MANAGEMENT_TIMEOUT_S, Connection
from marway_sidecar.backends.torchserve.proto import management_pb2

__all__ = ["Management", "Refused", "RuntimeControl", "description_of", "workers_of"]

_PAGE = 100
_CONTROL_TIMEOUT_S = 10.0
_SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Refused(Exception):
    """TorchServe would not register or scale a version; the text is its own."""


class Management:
    """The management API of one TorchServe.

    It waits ``batch_delay_ms`` for a batch to fill, where it makes batches; None where it gets one envelope at a time.
    """

    def __init__(self, connection: Connection, *, batch_delay_ms: int | None) -> None:
        self._connection = connection
        self._batch_delay_ms = batch_delay_ms

    async def register(self, model: ServedModel) -> None:
        """Register a version and wait until its workers are up.

        Raises:
            Refused: It cannot be; something of it may be left.
            RuntimeDown: TorchServe does not answer.
        """
        batching = bool(self._batch_delay_ms) and not model.streaming
        request = management_pb2.RegisterModelRequest(
            url=model.archive.name,
            model_name=model.server_name,
            batch_size=model.batch_rows if batching else 1,
            max_batch_delay=self._batch_delay_ms if batching else 1,  # gRPC reads zero as its default of 100
            initial_workers=model.workers,
            synchronous=True,
            response_timeout=max(1, round(model.predict_timeout_s)),
            startup_timeout=max(1, round(model.load_timeout_s)),
        )
        try:
            await self._rpc("RegisterModel", request, timeout_s=model.load_timeout_s + MANAGEMENT_TIMEOUT_S)
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.UNAVAILABLE:
                raise _failed(exc, "load it") from exc
            # A duplicate is UNKNOWN with no text at all.
            raise Refused(exc.details() or exc.code().name) from exc

    async def unregister(self, model: ServedModel) -> None:
        """Remove a version; one that is not there is no error."""
        answer = await self._rest("DELETE", _path(model))
        if answer.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED, httpx.codes.NOT_FOUND):
            raise MarwayError(f"TorchServe would not unload {model.name} {model.version}: {clip(answer.text, 300)}")

    async def scale(self, model: ServedModel, workers: int) -> None:
        """Set the number of workers and wait until they are up.

        Raises:
            Refused: They cannot be started.
            RuntimeDown: TorchServe does not answer.
        """
        # min below max leaves live workers that TorchServe has forgotten: always the same.
        query: dict[str, str | int] = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
        answer = await self._rest(
            "PUT", _path(model), params=query, timeout=model.load_timeout_s + MANAGEMENT_TIMEOUT_S
        )
        if answer.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED):
            raise Refused(answer.text)

    async def describe(self, server_name: str, version: str = "") -> dict[str, Any] | None:
        """Return TorchServe's description of a version, the default one without a ``version``; None when not there."""
        request = management_pb2.DescribeModelRequest(model_name=server_name, model_version=version)
        try:
            answer = await self._rpc("DescribeModel", request, timeout_s=MANAGEMENT_TIMEOUT_S)
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.NOT_FOUND or "NotFound" in (exc.details() or ""):
                return None
            raise _failed(exc, f"describe {server_name}") from exc
        entry: dict[str, Any] = json.loads(answer.msg)[0]
        return entry

    async def answers(self, *, timeout_s: float) -> None:
        """Return when TorchServe answers, whatever it says.

        Raises:
            RuntimeDown: It does not, within ``timeout_s``.
        """
        try:
            await self._listed(1, 0, timeout_s)
        except MarwayError as exc:
            if isinstance(exc, RuntimeDown):
                raise

    async def names(self, *, timeout_s: float = MANAGEMENT_TIMEOUT_S, page: int = _PAGE) -> frozenset[str]:
        """Return the names of all models; a version has one of its own, so the default versions are all there are.

        They are asked for in pages, each of which may take ``timeout_s``.
        """
        names: set[str] = set()
        token = 0
        while True:
            listed = await self._listed(page, token, timeout_s)
            names.update(entry["modelName"] for entry in listed["models"])
            following = int(listed.get("nextPageToken") or 0)
            if following <= token:
                return frozenset(names)
            token = following

    async def server_version(self, *, timeout_s: float) -> str | None:
        """Return the version that the API's description names, or None when it names none."""
        answer = await self._rest("GET", "/api-description", timeout=timeout_s)
        try:
            return str(answer.json()["info"]["version"])
        except (ValueError, KeyError, TypeError):
            return None

    async def _listed(self, limit: int, token: int, timeout_s: float) -> dict[str, Any]:
        request = management_pb2.ListModelsRequest(limit=limit, next_page_token=token)  # without limit: nothing
        try:
            answer = await self._rpc("ListModels", request, timeout_s=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise _failed(exc, "list its models") from exc
        listed: dict[str, Any] = json.loads(answer.msg)
        return listed

    async def _rpc(self, method: str, request: Any, *, timeout_s: float) -> Any:
        stub = getattr(self._connection.management, method)
        return await self._connection.rpc("management", stub, request, timeout_s=timeout_s)

    async def _rest(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._connection.rest("management", method, path, **options)
        except httpx.TimeoutException as exc:
            raise RuntimeDown(f"TorchServe does not answer {method} {path}") from exc


class RuntimeControl(RuntimeClient):
    """Asks the runtime that started TorchServe."""

    def __init__(self, runtime_dir: Path) -> None:
        super().__init__(runtime_dir, timeout_s=_CONTROL_TIMEOUT_S)

    async def remove_leftovers(self) -> TemporaryRoom:
        """Have what failed loads left unpacked removed; no registration may be under way.

        Raises:
            RuntimeDown: The runtime does not answer.
        """
        return self.document(await self.request("DELETE", "/leftovers"), TemporaryRoom)


def description_of(entry: dict[str, Any]) -> Description:
    """Return what TorchServe's description says in our terms; a worker that starts or is dead is not ready."""
    workers = entry["workers"]
    ready = sum(worker["status"] == "READY" for worker in workers)
    return Description(version=entry["modelVersion"], ready_workers=ready, workers=len(workers))


def workers_of(server_name: str, entry: dict[str, Any]) -> list[WorkerStatus]:
    """Return the workers that TorchServe's description names; without its system metrics it knows no memory."""
    reason = "started by a TorchServe that Marway's runtime did not start"
    return [
        WorkerStatus(
            pid=worker["pid"],
            server_name=server_name,
            mode="plain",
            reason=reason,
            private_bytes=max(0, int(worker.get("memoryUsage", 0))),
        )
        for worker in entry["workers"]
        if worker["status"] == "READY"
    ]


def _path(model: ServedModel) -> str:
    return f"/models/{model.server_name}/{model.version}"


def _failed(error: grpc.aio.AioRpcError, what: str) -> MarwayError:
    text = clip(error.details() or error.code().name, 200)
    if error.code() in _SILENT:
        return RuntimeDown(f"TorchServe does not answer: {text}")
    return MarwayError(f"TorchServe would not {what}: {text}")
