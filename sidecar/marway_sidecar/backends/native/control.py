"""The client of `runtime.sock` where the engine is `native` (`marway.wire.native`)."""

from __future__ import annotations

from pathlib import Path

import httpx
from pydantic import BaseModel

from marway.errors import LoadFailed, RuntimeDown, Unavailable
from marway.wire.native import BOOT_HEADER, LoadedModels, LoadRequest, ModelState, Refusal, ScaleRequest
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.runtime import RuntimeClient

__all__ = ["Control"]

_TIMEOUT_S = 30.0
_FULL_RETRY_S = 30.0


class Control(RuntimeClient):
    """Asks the runtime for versions and workers.

    Args:
        runtime_dir: The directory shared with it.
        boot_id: Which start of it is meant: another answers nothing.
    """

    def __init__(self, runtime_dir: Path, boot_id: str) -> None:
        super().__init__(runtime_dir, timeout_s=_TIMEOUT_S, headers={BOOT_HEADER: boot_id})

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
            sequences=model.sequences,
        )
        answer = await self.request("PUT", _path(model), request, timeout_s=model.load_timeout_s + _TIMEOUT_S)
        return self.document(_loaded(answer, model), ModelState)

    async def scale(self, model: ServedModel, workers: int) -> ModelState:
        """Set the number of workers; raises as `ModelServer.load` does."""
        request, path = ScaleRequest(workers=workers), f"{_path(model)}/workers"
        answer = await self.request("PUT", path, request, timeout_s=model.load_timeout_s + _TIMEOUT_S)
        return self.document(_loaded(answer, model), ModelState)

    async def unload(self, model: ServedModel) -> None:
        """Remove a version; one that is not there is no error."""
        await self.request("DELETE", _path(model))

    async def describe(self, model: ServedModel) -> ModelState | None:
        """Return what the runtime has of a version, or None when it is not loaded."""
        answer = await self.request("GET", _path(model))
        return self.document(answer, ModelState) if answer.status_code != httpx.codes.NOT_FOUND else None

    async def names(self, *, timeout_s: float = _TIMEOUT_S) -> frozenset[str]:
        """Return the names of all versions that are loaded."""
        return frozenset(
            self.document(await self.request("GET", "/models", timeout_s=timeout_s), LoadedModels).server_names
        )

    async def request(
        self, method: str, path: str, document: BaseModel | None = None, *, timeout_s: float | None = None
    ) -> httpx.Response:
        """Return the runtime's answer, whatever its status.

        Raises:
            RuntimeDown: It does not answer, or is another than was meant.
        """
        answer = await super().request(method, path, document, timeout_s=timeout_s)
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


def _path(model: ServedModel) -> str:
    return f"/models/{model.server_name}"
