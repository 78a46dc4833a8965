"""A model server that is asked over HTTP, in this process: its models do what the contract suite has a row's text say.

`PUT /models/{name}` loads what lies in the directory that it is told, `DELETE` unloads it, `GET` says whether it is
there; `POST /models/{name}/predict` predicts. `POST /v1/…` speaks OpenAI's API, and `POST /as-is/…` says what came.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from marway_sidecar.backends.http_server import HttpBackend
from marway_sidecar.settings import SidecarSettings

__all__ = ["HttpModelServer", "http_backend", "running"]


class HttpModelServer:
    """The server; `stop` and `start` again are its restart, after which it has nothing.

    Attributes:
        port: Where it answers.
        loaded: What was loaded.
        left: How many clients left before they had their answer.
        waiting, most_waiting: How many of them wait for a file, and the most that did.
        openai: The models that its OpenAI API lists.
    """

    def __init__(self) -> None:
        self.port = 0
        self.loaded: dict[str, str] = {}
        self.left = self.waiting = self.most_waiting = 0
        self.loads = 0
        self.well = True
        self.busy = False
        self.openai = ["tiny", "other"]
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.loaded = {}
        app = web.Application(client_max_size=2**30)
        app.router.add_get("/health", self._health)
        app.router.add_put("/models/{name}", self._load)
        app.router.add_delete("/models/{name}", self._unload)
        app.router.add_get("/models/{name}", self._ready)
        app.router.add_post("/models/{name}/predict", self._predict)
        app.router.add_get("/v1/models", self._openai_models)
        app.router.add_post("/v1/{call:.*}", self._openai)
        app.router.add_route("*", "/as-is/{rest:.*}", self._as_is)
        app.router.add_route("*", "/status/{status}", self._status)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # -- models --------------------------------------------------------------------------------------------

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.well else 500, headers={"Server": "contract/1.0"})

    async def _load(self, request: web.Request) -> web.Response:
        self.loads += 1
        told = await request.json()
        if not (Path(told["directory"]) / "model.txt").exists():
            return web.json_response({"detail": "there is no model.txt"}, status=400)
        self.loaded[request.match_info["name"]] = told["version"]
        return web.Response()

    async def _unload(self, request: web.Request) -> web.Response:
        there = self.loaded.pop(request.match_info["name"], None)
        return web.Response(status=404 if there is None else 200)

    async def _ready(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["name"] in self.loaded else 404)

    async def _predict(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["name"] not in self.loaded:
            return web.json_response({"detail": "no such model"}, status=404)
        if self.busy:
            return web.json_response({"detail": "too many"}, status=429, headers={"Retry-After": "1"})
        verb, _, rest = (await request.text()).partition(" ")
        if verb == "die":
            assert request.transport is not None
            request.transport.abort()
        if verb == "fail":
            return web.json_response({"detail": "on purpose"}, status=500)
        if verb == "pieces":
            return await self._pieces(request, Path(rest))
        if verb == "wait" and not await self._there(Path(rest), request.match_info["name"]):
            return web.json_response({"detail": "it was unloaded"}, status=503)
        return web.Response(text={"wait": "waited"}.get(verb, rest))

    async def _pieces(self, request: web.Request, gate: Path) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"one")
        await self._there(gate, request.match_info["name"])
        await response.write(b"two")
        return response

    async def _there(self, gate: Path, name: str) -> bool:
        """Wait until the file is there; False when the model is unloaded before that."""
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            while name in self.loaded:
                if gate.exists():
                    return True
                await asyncio.sleep(0.01)
            return False
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.waiting -= 1

    # -- OpenAI --------------------------------------------------------------------------------------------

    async def _openai_models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": each, "object": "model"} for each in self.openai]})

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if not asked.get("stream"):
            return web.json_response({"call": request.match_info["call"], "asked": asked})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for word in ("a", "b"):
            await response.write(f"data: {json.dumps({'model': asked['model'], 'word': word})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    # -- whatever is asked ---------------------------------------------------------------------------------

    async def _as_is(self, request: web.Request) -> web.Response:
        form = await request.post() if request.content_type.startswith(("multipart/", "application/x-www")) else {}
        fields = {
            name: (value.content_type, value.file.read().decode()) if isinstance(value, web.FileField) else value
            for name, value in form.items()
        }
        said = {
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "size": len(await request.read()),
            "fields": fields,
        }
        return web.json_response(said, status=201, headers={"X-Own": "1", "Set-Cookie": "a=b"})

    async def _status(self, request: web.Request) -> web.Response:
        headers = {"Retry-After": "7", "Location": "http://elsewhere/"}
        body = (await request.text()) or "because"
        return web.Response(status=int(request.match_info["status"]), text=body, headers=headers)


@asynccontextmanager
async def running() -> AsyncIterator[HttpModelServer]:
    """Run one for the length of a block."""
    server = HttpModelServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def http_backend(**settings: object) -> HttpBackend:
    """Return the backend with these settings."""
    return HttpBackend(SidecarSettings(flags={"backend": "http", **settings}))  # type: ignore[call-arg]  # its sources
