"""The sidecar's HTTP application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import Response

from marway.errors import MarwayError, NotFound, RuntimeDown, Unavailable
from marway.objects import open_store
from marway.refs import new_ulid
from marway.registry import Registry
from marway.resolve import RegistryReader, Resolver
from marway.wire import problems
from marway.wire.pods import ModelStatus, PodStatus
from marway_sidecar.archives import ArchiveStore, FetchOutcome
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.pool import ModelPool
from marway_sidecar.predict import Predictor, problem_response
from marway_sidecar.runtime_watch import RuntimeWatch
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads

__all__ = ["Sidecar", "create_app"]


class Sidecar:
    """The parts of one sidecar, put together; opened and closed by the application's lifespan.

    Args:
        settings: The sidecar's settings.
    """

    def __init__(self, settings: SidecarSettings) -> None:
        self.settings = settings
        self.metrics = SidecarMetrics()
        self.threads = Threads(settings.registry_threads)
        registry = Registry(open_store(settings.registry))
        self.reader = RegistryReader(registry, threads=settings.registry_threads)
        self.resolver = Resolver(
            self.reader,
            state_ttl_s=settings.state_ttl_s,
            state_max_stale_s=None,
            negative_ttl_s=settings.negative_ttl_s,
            wait_s=settings.registry_timeout_s,
        )
        archives = ArchiveStore(settings.archive_store, registry, observe=self._observe_fetch)
        self.pool = ModelPool(archives, self.threads, self.metrics, settings=settings)
        self.watch = RuntimeWatch(settings.runtime_dir, self.pool, poll_s=settings.runtime_poll_s)
        self.predictor = Predictor(settings, self.resolver, self.pool)
        self._boot_id = new_ulid()

    def drain(self) -> None:
        """Take no new requests; those in flight go on."""
        self.predictor.draining = True

    def status(self) -> PodStatus:
        """Return who this pod is and what it has."""
        info = self.watch.info
        versions = info.versions if info is not None else {}
        return PodStatus(
            name=self.settings.name,
            boot_id=f"{self._boot_id}-{info.boot_id if info is not None else 'down'}",
            backend="torchserve",
            pool=self.settings.pool,
            device=self.settings.device,
            python_version=versions.get("python"),
            torch_version=versions.get("torch"),
            server_version=versions.get("torchserve"),
            ready=info is not None and not self.predictor.draining,
            draining=self.predictor.draining,
            requests_in_flight=self.pool.in_flight,
            models=self.pool.statuses(),
        )

    def _observe_fetch(self, outcome: FetchOutcome, duration_s: float) -> None:
        self.metrics.fetches.labels(outcome).inc()
        self.metrics.fetch_duration.observe(duration_s)


def create_app(sidecar: Sidecar) -> FastAPI:
    """Return the application that serves ``sidecar``."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(sidecar.threads.close)
            stack.push_async_callback(sidecar.reader.aclose)
            stack.push_async_callback(sidecar.resolver.aclose)
            watching = asyncio.create_task(sidecar.watch.run(), name="watch-runtime")
            stack.push_async_callback(_cancelled, watching)
            stack.push_async_callback(sidecar.pool.aclose)
            yield

    app = FastAPI(title="Marway sidecar", lifespan=lifespan)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Exception, _unexpected)
    predict_answers: dict[int | str, dict[str, object]] = {
        200: {"description": "The model's answer, with the content type that its handler set."}
    }
    for path in ("/predict/{model}", "/predict/{model}/{selector}"):
        app.add_api_route(
            path,
            _predict_route(sidecar.predictor),
            methods=["POST"],
            response_class=Response,
            responses=predict_answers,
            summary="Predict with a model's PROD version" if "selector" not in path else "Predict with a version",
        )

    @app.get("/status", summary="Who this pod is, and what it has")
    async def status() -> PodStatus:
        return sidecar.status()

    @app.get("/models", summary="Every version that was wanted here, with its state")
    async def models() -> tuple[ModelStatus, ...]:
        return sidecar.pool.statuses()

    @app.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether the pod can serve")
    async def readyz() -> Response:
        error: MarwayError | None = None
        if sidecar.predictor.draining:
            error = Unavailable("this pod is stopping")
        elif sidecar.watch.info is None:
            error = RuntimeDown(f"no TorchServe is up: {sidecar.settings.runtime_dir}/runtime.json is not there")
        return (
            problem_response(error) if error is not None else Response('{"status":"ok"}', media_type="application/json")
        )

    @app.get("/metrics", summary="Metrics for Prometheus")
    async def metrics() -> Response:
        return Response(generate_latest(sidecar.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _predict_route(predictor: Predictor):  # type: ignore[no-untyped-def]  # FastAPI reads the inner signature
    async def predict(request: Request) -> Response:
        return await predictor(request)

    return predict


async def _not_routed(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    error = NotFound(f"{request.method} {request.url.path} is not served here: see /docs")
    response = problem_response(error)
    if exc.status_code != problems.status_of(error):
        problem, _ = problems.problem_of(error)
        body = problem.model_copy(update={"status": exc.status_code, "title": str(exc.detail), "code": "not_allowed"})
        response = Response(body.body(), exc.status_code, exc.headers, media_type=problems.CONTENT_TYPE)
    return response


async def _unexpected(_: Request, exc: Exception) -> Response:
    # The traceback goes to the log by the server; the caller learns no internals.
    return problem_response(MarwayError("something unexpected went wrong in the sidecar: its log has the details"))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
