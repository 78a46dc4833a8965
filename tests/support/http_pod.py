"""A sidecar in this process whose model server is asked over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from marway.registry import Registry
from marway.settings import load_settings
from marway_sidecar.serve import StopRequest, serve
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.sidecar import Sidecar

__all__ = ["http_pod", "until_up"]


@asynccontextmanager
async def http_pod(registry: Registry, scratch: Path, **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a sidecar of the backend `http` for the length of a block, and give a client of it once it is ready."""
    given: dict[str, object] = {
        "backend": "http",
        "http_probe_interval_s": 0.05,
        "registry": registry.url,
        "runtime_dir": scratch / "run",
        "archive_store": scratch / "store",
        "port": 0,
        "lame_duck_s": 0.0,
        **settings,
    }
    (scratch / "run").mkdir(exist_ok=True)
    sidecar = Sidecar(load_settings(SidecarSettings, **given))
    stop = StopRequest()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(sidecar, stop=stop, on_ready=ready.set_result))
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    try:
        async with httpx.AsyncClient(base_url=ready.result(), timeout=30, trust_env=False) as client:
            await until_up(client)
            yield client
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


async def until_up(client: httpx.AsyncClient, *, up: bool = True) -> None:
    """Return once the pod is ready, or with ``up`` false once it is not."""
    async with asyncio.timeout(60):
        while ((await client.get("/readyz")).status_code == httpx.codes.OK) is not up:
            await asyncio.sleep(0.02)
