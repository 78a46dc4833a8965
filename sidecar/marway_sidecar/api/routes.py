"""The routes of the pod contract; docs/sidecar.md explains them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from marway import __version__, errors
from marway.errors import MarwayError
from marway.wire.comparison import Comparison
from marway.wire.headers import REQUEST_TIMEOUT_MS
from marway.wire.pods import WATCH_CONTENT_TYPE, LoadReport, ModelStatus, PodEvent, PodStatus
from marway.wire.request import timeout_of
from marway_http.pages.about import About, Link
from marway_http.pages.routes import Health, add_process_routes
from marway_sidecar.api.handler_lines import add_log_route
from marway_sidecar.api.openapi import ANSWER, ANY_BODY, WATCH, problems
from marway_sidecar.sidecar import Sidecar

__all__ = ["ABOUT", "add_routes"]

Model = Annotated[
    str, Path(description="A model's name, which means its version at PROD, or a model id.", examples=["intent"])
]
VersionOrLabel = Annotated[str, Path(description="A version, or a label.", examples=["PROD", "1.0"])]
Timeout = Annotated[
    int | None, Header(description="Deadline of the whole request in milliseconds.", ge=1, examples=[2000])
]
Id = Annotated[str | None, Header(description="1 to 128 plain characters; made when absent.", max_length=128)]
GroupId = Annotated[
    str | None, Header(description="1 to 128 plain characters; given back and passed on.", max_length=128)
]
Prove = Annotated[bool, Query(description="Compare the answers to all golden examples with the published ones.")]
Base = Annotated[
    str | None,
    Query(
        description="The other one, a version or a label; without it only its own answers are looked at.",
        max_length=128,
    ),
]

_Route = TypeVar("_Route", bound=Callable[..., Any])
_REFERENCE: Final = (
    errors.InvalidReference,
    errors.ModelNotFound,
    errors.VersionNotFound,
    errors.LabelNotFound,
    errors.RegistryUnavailable,
)
_VERSION: Final = "/models/{model}/{selector}"
_LOAD: Final = (errors.LoadFailed, errors.ArchiveCorrupt, errors.RuntimeDown, errors.Draining, errors.ModelLoading)


ABOUT: Final = About(
    name="Marway sidecar",
    version=__version__,
    description="Serves the versions of one pod. Gateways speak to it; docs/sidecar.md of Marway says what it answers.",
    links=(
        Link(href="docs", title="Every route, to read and to try; openapi.json says the same to programs"),
        Link(href="status", title="Who this pod is, and what it has"),
        Link(href="models", title="Every version that was wanted here, with its state"),
        Link(href="readyz", title="Can it serve?"),
        Link(href="healthz", title="Does the process run?"),
        Link(href="metrics", title="Metrics for Prometheus"),
    ),
)


class _NdJson(StreamingResponse):
    media_type = WATCH_CONTENT_TYPE


def add_routes(app: FastAPI, sidecar: Sidecar) -> None:
    """Add every route of the pod contract."""
    _add_predict(app)
    _add_pod(app, sidecar)
    _add_models(app, sidecar)
    add_log_route(app, sidecar)

    @app.get(
        "/readyz", tags=["health"], summary="Can it serve?", responses=problems(errors.RuntimeDown, errors.Draining)
    )
    async def readyz() -> Health:
        """Ready means that a model server is up and that the pod does not drain."""
        if (trouble := sidecar.trouble()) is not None:
            raise trouble
        return Health()

    add_process_routes(app, ABOUT, lambda: sidecar.metrics.registry)


def _add_predict(app: FastAPI) -> None:
    # The functions below are documentation: the application has these requests answered before its router sees them.
    def sent(x_request_timeout_ms: Timeout = None, x_request_id: Id = None, x_request_group_id: GroupId = None) -> None:
        raise NotImplementedError

    async def predict(model: Model, headers: None = Depends(sent)) -> None:
        raise NotImplementedError

    async def predict_version(model: Model, selector: VersionOrLabel, headers: None = Depends(sent)) -> None:
        raise NotImplementedError

    refused = problems(
        *(*_REFERENCE, *_LOAD, errors.InvalidRequest, errors.BodyTooLarge, errors.UnsupportedMedia),
        *(errors.Overloaded, errors.ModelError, errors.MarwayError, errors.DeadlineExceeded),
    )
    for path, function, summary in (
        ("/predict/{model}", predict, "Predict with a model"),
        ("/predict/{model}/{selector}", predict_version, "Predict with a version or a label"),
    ):
        app.post(
            path,
            tags=["predict"],
            summary=summary,
            response_class=Response,
            responses={**ANSWER, **refused},
            openapi_extra=ANY_BODY,
        )(function)


def _add_pod(app: FastAPI, sidecar: Sidecar) -> None:
    @app.get("/status", tags=["pod"], summary="Who this pod is, and what it has")
    async def status() -> PodStatus:
        return sidecar.status()

    @app.get(
        "/watch",
        tags=["pod"],
        summary="The same, and then what changes, as it does",
        response_class=_NdJson,
        responses={200: {"model": PodEvent, **WATCH}},
    )
    async def watch() -> Response:
        return _NdJson(_lines(sidecar.events()))

    @app.post("/drain", tags=["pod"], summary="Take no more requests")
    async def drain() -> PodStatus:
        """Readiness fails and the watch says so at once; requests are refused a short while later."""
        sidecar.draining.begin()
        return sidecar.status()

    @app.delete("/drain", tags=["pod"], summary="Take requests again", responses=problems(errors.Conflict))
    async def undrain() -> PodStatus:
        sidecar.draining.take_back()
        return sidecar.status()


def _add_models(app: FastAPI, sidecar: Sidecar) -> None:
    settings, control = sidecar.settings, sidecar.control

    def timeout(request: Request, x_request_timeout_ms: Timeout = None) -> float | None:
        given = request.headers.get(REQUEST_TIMEOUT_MS)
        limits = {"default_s": settings.default_timeout_s, "max_s": settings.max_timeout_s}
        return None if given is None else timeout_of(given, **limits)

    given_s = Depends(timeout)
    load_errors = (*_REFERENCE, *_LOAD, errors.InvalidRequest, errors.Overloaded, errors.DeadlineExceeded)

    def post(verb: str, summary: str, *refused: type[MarwayError]) -> Callable[[_Route], _Route]:
        return app.post(f"{_VERSION}/{verb}", tags=["models"], summary=summary, responses=problems(*refused))

    @app.get("/models", tags=["models"], summary="Every version that was wanted here, with its state")
    async def models() -> tuple[ModelStatus, ...]:
        return sidecar.pool.statuses()

    @app.get(_VERSION, tags=["models"], summary="One version's state", responses=problems(*_REFERENCE))
    async def model_status(model: Model, selector: VersionOrLabel) -> ModelStatus:
        return await control.status(model, selector)

    @app.get(
        f"{_VERSION}/ready",
        tags=["models"],
        summary="Is it loaded here?",
        responses=problems(*_REFERENCE, errors.ModelLoading, errors.Unavailable, errors.Draining),
    )
    async def model_ready(model: Model, selector: VersionOrLabel) -> ModelStatus:
        return await control.ready(model, selector)

    @post("load", "Load a version, and prove it", *load_errors)
    async def load(
        model: Model, selector: VersionOrLabel, prove: Prove = False, timeout_s: float | None = given_s
    ) -> LoadReport:
        """Without a deadline it may take as long as the version's own `load_timeout_s` says."""
        return await control.load(model, selector, prove=prove, timeout_s=timeout_s)

    @post("compare", "Load a version, and compare its answers with another one's", *load_errors)
    async def compare(
        model: Model, selector: VersionOrLabel, base: Base = None, timeout_s: float | None = given_s
    ) -> Comparison:
        """Both answer the other one's golden inputs, in turns; its own where that has none."""
        return await control.compare(model, selector, base=base, timeout_s=timeout_s)

    unload_errors = (*_REFERENCE, errors.InvalidRequest, errors.RuntimeDown, errors.Unavailable)

    @post("unload", "Unload a version once its requests have ended", *unload_errors)
    async def unload(model: Model, selector: VersionOrLabel, timeout_s: float | None = given_s) -> ModelStatus:
        """A version that is not loaded stays so: no error."""
        if timeout_s is None:
            timeout_s = min(settings.default_timeout_s, settings.max_timeout_s)
        return await control.unload(model, selector, timeout_s=timeout_s)


async def _lines(events: AsyncIterator[PodEvent]) -> AsyncIterator[bytes]:
    async for event in events:
        # What is as it always is says nothing: a heartbeat is `{}`.
        yield event.model_dump_json(exclude_defaults=True).encode() + b"\n"
