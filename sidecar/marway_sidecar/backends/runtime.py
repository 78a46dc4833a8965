"""Marway's runtime, whatever its engine: what it announces, and the client of its `runtime.sock`
(`marway.wire.runtime`).
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from marway.errors import LoadFailed, MarwayError, RuntimeDown, Unavailable
from marway.wire.environments import EnvironmentUse
from marway.wire.native import Refusal
from marway.wire.runtime import RUNTIME_FILE, RUNTIME_SOCKET, RuntimeInfo, RuntimeWorkers, read_runtime_info, short_path
from marway_sidecar.backends.base import ServedModel, ServerStatus, WorkerStatus
from marway_sidecar.errors import about

__all__ = ["ENVIRONMENT_TIMEOUT_S", "Announcement", "RuntimeClient"]

logger = logging.getLogger(__name__)

ENVIRONMENT_TIMEOUT_S: Final = 1800.0
"""How long the runtime is waited for while it builds environments: above what its settings allow for one."""
_TEXT_MAX = 300
_FULL_RETRY_S = 30.0
_Document = TypeVar("_Document", bound=BaseModel)


class Announcement:
    """`runtime.json`, which is there while a runtime's engine answers.

    Args:
        runtime_dir: The directory shared with the runtime.

    Attributes:
        file: Its path.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._directory = runtime_dir
        self.file = runtime_dir / RUNTIME_FILE

    def stamp(self) -> Hashable:
        """Return what changes when another start is announced; None while none is."""
        try:
            status = self.file.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def read(self, engine: str) -> RuntimeInfo | None:
        """Return what is announced of this engine; None while nothing is, or something else is, which is logged."""
        try:
            info = read_runtime_info(self._directory)
        except (ValueError, OSError) as exc:
            logger.error("%s cannot be read: %s", self.file, exc)
            return None
        if info is not None and info.engine != engine:
            logger.error("%s announces the engine %s, not %s", self.file, info.engine, engine)
            return None
        return info


class RuntimeClient:
    """Asks a runtime over its `runtime.sock`.

    Args:
        runtime_dir: The directory shared with it.
        timeout_s: How long an answer may take, in seconds.
        headers: What goes with each request.
    """

    def __init__(self, runtime_dir: Path, *, timeout_s: float, headers: Mapping[str, str] | None = None) -> None:
        self._timeout_s = timeout_s
        self._opened = ExitStack()
        path = str(runtime_dir / RUNTIME_SOCKET)
        with suppress(OSError):  # the directory is gone: so says who asks
            path = self._opened.enter_context(short_path(runtime_dir / RUNTIME_SOCKET))
        # A Unix socket has no certificates; reading all that the machine trusts would hold the event loop for 20 ms.
        transport = httpx.AsyncHTTPTransport(uds=path, verify=False)
        self._client = httpx.AsyncClient(
            transport=transport, base_url="http://runtime", trust_env=False, headers=headers
        )

    async def workers(self) -> RuntimeWorkers:
        """Return every worker process that lives, with its memory.

        Raises:
            RuntimeDown: The runtime does not answer.
        """
        return self.document(await self.request("GET", "/workers"), RuntimeWorkers)

    async def status(self, server_names: frozenset[str]) -> ServerStatus:
        """Return what the runtime says of its engine, which has these versions; raises as `workers` does."""
        live = await self.workers()
        return ServerStatus(
            server_names,
            tuple(WorkerStatus(**dict(worker)) for worker in live.workers),
            live.base_bytes,
            live.deaths,
            {each.server_name: each.size_bytes for each in live.weights},
            live.devices,
        )

    async def enter_environment(self, model: ServedModel) -> None:
        """Have the environment built that a version is to run in, if it has one; before the version is loaded.

        Raises:
            LoadFailed: It cannot be built.
            Unavailable: There is no room for it.
            RuntimeDown: The runtime does not answer.
        """
        if model.environment is None:
            return
        use = EnvironmentUse(name=model.name, version=model.version, lock=model.environment)
        answer = await self.request("PUT", _environment(model), use, timeout_s=ENVIRONMENT_TIMEOUT_S)
        if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise about(model, LoadFailed(Refusal.model_validate_json(answer.content).message))
        if answer.status_code == httpx.codes.INSUFFICIENT_STORAGE:
            message = Refusal.model_validate_json(answer.content).message
            raise about(model, Unavailable(message, retry_after_s=_FULL_RETRY_S))
        self.checked(answer)

    async def leave_environment(self, model: ServedModel) -> None:
        """Say that a version is unloaded: the runtime knows whether it was in an environment, also before our time."""
        await self.request("DELETE", _environment(model))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()
        self._opened.close()

    async def request(
        self, method: str, path: str, document: BaseModel | None = None, *, timeout_s: float | None = None
    ) -> httpx.Response:
        """Return the runtime's answer, whatever its status.

        Raises:
            RuntimeDown: It does not answer.
        """
        content = document.model_dump_json().encode() if document is not None else None
        timeout_s = timeout_s if timeout_s is not None else self._timeout_s
        try:
            return await self._client.request(method, path, content=content, timeout=timeout_s)
        except httpx.TransportError as exc:
            why = str(exc) or type(exc).__name__
            raise RuntimeDown(f"the runtime does not answer on {RUNTIME_SOCKET}: {why}") from exc
        except RuntimeError as exc:
            if self._client.is_closed:  # it says so in no kind of its own
                raise RuntimeDown("the runtime was let go of as it was asked") from exc
            raise

    def document(self, answer: httpx.Response, kind: type[_Document]) -> _Document:
        """Return the document that an answer is.

        Raises:
            MarwayError: It is none, or says that something failed.
        """
        try:
            return kind.model_validate_json(self.checked(answer).content)
        except ValidationError as exc:
            message = f"the runtime's answer to {_asked(answer)} cannot be read: {exc.error_count()} errors"
            raise MarwayError(message) from exc

    def checked(self, answer: httpx.Response) -> httpx.Response:
        """Return an answer, unless it says that something failed.

        Raises:
            MarwayError: It does.
        """
        if not answer.is_success:
            text = f": {answer.text[:_TEXT_MAX]}" if answer.text else ""
            raise MarwayError(f"the runtime answered {answer.status_code} to {_asked(answer)}{text}")
        return answer


def _asked(answer: httpx.Response) -> str:
    return f"{answer.request.method} {answer.request.url.path}"


def _environment(model: ServedModel) -> str:
    return f"/environments/{model.server_name}"
