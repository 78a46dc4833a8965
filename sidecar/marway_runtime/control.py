"""`runtime.sock`: what the runtime tells its sidecar, over HTTP on a Unix socket (`marway.wire.runtime`)."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from marway.errors import InvalidReference, LoadFailed, Unavailable
from marway.wire.environments import EnvironmentUse
from marway.wire.native import Refusal
from marway.wire.runtime import RUNTIME_SOCKET, RuntimeWorkers, TemporaryRoom, short_path
from marway_runtime.environments.environments import Environments

__all__ = ["Controlled", "create_app", "served"]


class Controlled(Protocol):
    """What the socket shows and asks for; all but the last work on many files, and run in a thread."""

    def workers(self) -> RuntimeWorkers: ...

    def metrics(self) -> bytes: ...

    def remove_leftovers(self) -> TemporaryRoom: ...

    @property
    def app(self) -> ASGIApp | None: ...

    @property
    def environments(self) -> Environments: ...

    def restart(self) -> None: ...


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `watch_for_stop` has them


def create_app(controlled: Controlled) -> Starlette:
    """Return the application behind the socket."""
    # Reading is not cheap with many workers: callers that come together wait for one another, and disturb nobody else.
    one_reader = asyncio.Lock()

    async def reading(call: Callable[[], bytes]) -> bytes:
        async with one_reader:
            return await asyncio.to_thread(call)

    async def workers(_: Request) -> Response:
        body = await reading(lambda: controlled.workers().model_dump_json().encode())
        return Response(body, media_type="application/json")

    async def metrics(_: Request) -> Response:
        return Response(await reading(controlled.metrics), media_type=CONTENT_TYPE_LATEST)

    async def leftovers(_: Request) -> Response:
        body = await reading(lambda: controlled.remove_leftovers().model_dump_json().encode())
        return Response(body, media_type="application/json")

    async def restart(_: Request) -> Response:
        controlled.restart()
        return Response(status_code=202)  # `runtime.json` goes, and comes back with another boot_id

    async def enter(request: Request) -> Response:
        try:
            use = EnvironmentUse.model_validate_json(await request.body())
            await controlled.environments.enter(request.path_params["name"], use)
        except (ValidationError, InvalidReference) as exc:
            return _refusal(str(exc), 400)
        except LoadFailed as exc:
            return _refusal(exc.message, 422)
        except Unavailable as exc:
            return _refusal(exc.message, 507)
        return Response(status_code=204)

    async def leave(request: Request) -> Response:
        controlled.environments.leave(request.path_params["name"])
        return Response(status_code=204)

    async def environments(_: Request) -> Response:
        body = await reading(lambda: controlled.environments.listed().model_dump_json().encode())
        return Response(body, media_type="application/json")

    app = Starlette(
        routes=[
            Route("/workers", workers, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
            Route("/leftovers", leftovers, methods=["DELETE"]),
            Route("/restart", restart, methods=["POST"]),
            Route("/environments", environments, methods=["GET"]),
            Route("/environments/{name}", enter, methods=["PUT"]),
            Route("/environments/{name}", leave, methods=["DELETE"]),
        ]
    )
    not_there = app.router.default

    async def of_the_engine(scope: Scope, receive: Receive, send: Send) -> None:
        await (controlled.app or not_there)(scope, receive, send)

    app.router.default = of_the_engine
    return app


def _refusal(message: str, status: int) -> Response:
    return Response(Refusal(message=message).model_dump_json(), status, media_type="application/json")


@contextlib.asynccontextmanager
async def served(directory: Path, controlled: Controlled) -> AsyncIterator[None]:
    """Serve the socket in ``directory`` while the context lasts; callers are answered from its start on."""
    config = uvicorn.Config(
        create_app(controlled),
        http="h11",  # a call every few seconds: its pure Python is fast enough
        ws="none",
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    with _listening(directory / RUNTIME_SOCKET) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="serve-control")
        try:
            yield
        finally:
            server.should_exit = True
            await serving


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """Yield a socket that listens at ``path``, for the owner alone from its first moment there."""
    unready = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            with short_path(unready) as short:
                listener.bind(short)
            unready.chmod(0o600)
            listener.listen(64)
            unready.replace(path)
            yield listener
        finally:
            for left in (unready, path):
                left.unlink(missing_ok=True)
