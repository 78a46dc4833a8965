"""What `runtime.sock` answers for the engine `native` (`marway.wire.native`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from marway.errors import InvalidInput, LoadFailed, Unavailable
from marway.wire.native import BOOT_HEADER, LoadedModels, LoadRequest, ModelState, Refusal, ScaleRequest

__all__ = ["Loads", "create_router"]


class Loads(Protocol):
    """What loads versions: `engine.NativeEngine`."""

    boot_id: str

    def server_names(self) -> tuple[str, ...]: ...

    def describe(self, server_name: str) -> ModelState | None: ...

    async def load(self, server_name: str, request: LoadRequest) -> ModelState: ...

    async def scale(self, server_name: str, workers: int) -> ModelState | None: ...

    async def unload(self, server_name: str) -> None: ...


def create_router(engine: Loads) -> Router:
    """Return the routes that work on an engine."""

    async def names(_: Request) -> Response:
        return _document(LoadedModels(server_names=engine.server_names()))

    async def describe(request: Request) -> Response:
        return _described(engine.describe(request.path_params["name"]))

    async def load(request: Request) -> Response:
        wanted = LoadRequest.model_validate_json(await request.body())
        return _document(await engine.load(request.path_params["name"], wanted))

    async def scale(request: Request) -> Response:
        wanted = ScaleRequest.model_validate_json(await request.body())
        return _described(await engine.scale(request.path_params["name"], wanted.workers))

    async def unload(request: Request) -> Response:
        await engine.unload(request.path_params["name"])
        return Response(status_code=204)

    def checked(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if request.headers.get(BOOT_HEADER, engine.boot_id) != engine.boot_id:
                return _document(Refusal(message="the runtime was started again"), 409)
            try:
                return await endpoint(request)
            except (InvalidInput, ValidationError) as exc:
                return _document(Refusal(message=str(exc)), 400)
            except LoadFailed as exc:
                return _document(Refusal(message=exc.message), 422)
            except Unavailable as exc:
                return _document(Refusal(message=exc.message), 507)

        return answer

    found = [
        Route("/models", checked(names), methods=["GET"]),
        Route("/models/{name}", checked(describe), methods=["GET"]),
        Route("/models/{name}", checked(load), methods=["PUT"]),
        Route("/models/{name}", checked(unload), methods=["DELETE"]),
        Route("/models/{name}/workers", checked(scale), methods=["PUT"]),
    ]
    return Router(found)


def _described(state: ModelState | None) -> Response:
    return _document(state) if state is not None else _document(Refusal(message="it is not loaded"), 404)


def _document(document: BaseModel, status: int = 200) -> Response:
    return Response(document.model_dump_json(), status, media_type="application/json")
