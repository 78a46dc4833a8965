"""The client of `runtime.sock` where the engine is `native` (`marway.wire.native`)."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from marway.errors import LoadFailed, MarwayError, RuntimeDown, Unavailable
from marway.wire.native import BOOT_HEADER, LoadedModels, LoadRequest, ModelState, Refusal, ScaleRequest
from marway.wire.runtime import RUNTIME_SOCKET, RuntimeWorkers
from marway_sidecar.backends.base import ServedModel

__all__ = ["Control"]

_TIMEOUT_S = 30.0
_FULL_RETRY_S = 30.0
_Document = TypeVar("_Document", bound=BaseModel)


class Control:
    """Asks the runtime for versions and workers.

    Args:
        runtime_dir: The directory shared with it.
        boot_id: Which start of it is meant: another answers nothing.
    """

    def __init__(self, runtime_dir: Path, boot_id: str) -> None:
        # A Unix socket has no certificates; reading all that the machine trusts would hold the event loop for 20 ms.
        transport = httpx.AsyncHTTPTransport(uds=str(runtime_dir / RUNTIME_SOCKET), verify=False)
        self._client = httpx.AsyncClient(
            transport=transport,
            base_url="http://runtime",
            timeout=_TIMEOUT_S,
            trust_env=False,
            headers={BOOT_HEADER: boot_id},
        )

    async def load(self, model: ServedModel) -> ModelState:
        """Load a version; raises as `ModelServer.load` does."""
        request = LoadRequest(
            name=model.name,
            version=model.version,
            archive=model.archive.name,
            workers=model.workers,
            load_timeout_s=model.load_timeout_s,
            predict_timeout_s=model.predict_timeout_s,
            share_weights=model.golden and model.max_workers != 1,
        )
        answer = await self._request("PUT", _path(model), request, timeout_s=model.load_timeout_s + _TIMEOUT_S)
        return _read(_loaded(answer, model), ModelState)

    async def scale(self, model: ServedModel, workers: int) -> ModelState:
        """Set the number of workers; raises as `ModelServer.load` does."""
        request, path = ScaleRequest(workers=workers), f"{_path(model)}/workers"
        answer = await self._request("PUT", path, request, timeout_s=model.load_timeout_s + _TIMEOUT_S)
        return _read(_loaded(answer, model), ModelState)

    async def unload(self, model: ServedModel) -> None:
        """Remove a version; one that is not there is no error."""
        await self._request("DELETE", _path(model))

    async def describe(self, model: ServedModel) -> ModelState | None:
        """Return what the runtime has of a version, or None when it is not loaded."""
        answer = await self._request("GET", _path(model))
        return _read(answer, ModelState) if answer.status_code != httpx.codes.NOT_FOUND else None

    async def names(self, *, timeout_s: float = _TIMEOUT_S) -> frozenset[str]:
        """Return the names of all versions that are loaded."""
        return frozenset(_read(await self._request("GET", "/models", timeout_s=timeout_s), LoadedModels).server_names)

    async def workers(self) -> RuntimeWorkers:
        """Return every worker process that lives, with its memory."""
        return _read(await self._request("GET", "/workers"), RuntimeWorkers)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def _request(
        self, method: str, path: str, document: BaseModel | None = None, *, timeout_s: float = _TIMEOUT_S
    ) -> httpx.Response:
        """Return the runtime's answer.

        Raises:
            RuntimeDown: It does not answer, or is another than was meant.
        """
        content = document.model_dump_json().encode() if document is not None else None
        try:
            answer = await self._client.request(method, path, content=content, timeout=timeout_s)
        except httpx.TransportError as exc:
            raise RuntimeDown(f"the runtime does not answer on {RUNTIME_SOCKET}: {exc!r}") from exc
        except RuntimeError as exc:
            if self._client.is_closed:  # it says so in no kind of its own
                raise RuntimeDown("the runtime was let go of as it was asked") from exc
            raise
        if answer.status_code == httpx.codes.CONFLICT:
            raise RuntimeDown("the runtime was started again")
        return answer


def _loaded(answer: httpx.Response, model: ServedModel) -> httpx.Response:
    """Return the answer to what starts workers, unless none were started."""
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        raise LoadFailed(_refusal(answer), model=model.name, version=model.version)
    if answer.status_code == httpx.codes.INSUFFICIENT_STORAGE:
        message = _refusal(answer)
        raise Unavailable(message, model=model.name, version=model.version, retry_after_s=_FULL_RETRY_S)
    if answer.status_code == httpx.codes.NOT_FOUND:
        message = f"{model.name} {model.version} is not loaded any more"
        raise LoadFailed(message, model=model.name, version=model.version)
    return answer


def _refusal(answer: httpx.Response) -> str:
    return Refusal.model_validate_json(answer.content).message


def _read(answer: httpx.Response, kind: type[_Document]) -> _Document:
    what = f"the runtime's answer to {answer.request.method} {answer.request.url.path}"
    if not answer.is_success:
        raise MarwayError(f"{what} is {answer.status_code}: {answer.text[:300]}")
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as exc:
        raise MarwayError(f"{what} cannot be read: {exc.error_count()} errors") from exc


def _path(model: ServedModel) -> str:
    return f"/models/{model.server_name}"
