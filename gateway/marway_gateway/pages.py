"""What people find with a browser: what the port is, at `/`, and its API, at `/docs`."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from marway import __version__
from marway_http.pages.about import ABOUT_CONTENT, About, Link, about_answer
from marway_http.pages.api_page import PATHS, ApiPage

__all__ = ["ABOUT_ADMIN", "ABOUT_PUBLIC", "TAGS", "add_pages"]

_OF_BOTH: Final = (
    Link(href="docs", title="Every route, to read and to try; openapi.json says the same to programs"),
    Link(href="models", title="The models, their versions and labels"),
)
_HEALTH: Final = (
    Link(href="healthz", title="Does the process run?"),
    Link(href="metrics", title="Metrics for Prometheus"),
)
ABOUT_PUBLIC: Final = About(
    name="Marway gateway",
    version=__version__,
    description="Serves models: each answers at /predict/MODEL, and as TorchServe, KServe, Triton and TensorFlow "
    "Serving answer, over REST and gRPC. README.md and docs/http.md of Marway say more.",
    links=(*_OF_BOTH, Link(href="readyz", title="Can it serve?"), *_HEALTH),
    example="curl -d 'wake me at seven' http://THIS-HOST/predict/intent",
)
ABOUT_ADMIN: Final = About(
    name="Marway gateway, admin port",
    version=__version__,
    description="Moves labels, loads and unloads versions, and steers pods. The `marway` command speaks to it; "
    "docs/admin.md of Marway says more.",
    links=(*_OF_BOTH, Link(href="pods", title="The pods, and what each has"), *_HEALTH),
    example="marway pods --gateway http://THIS-HOST",
)
TAGS: Final[list[dict[str, Any]]] = [
    {"name": "models", "description": "Which models, versions and labels there are."},
    {"name": "labels", "description": "Which version a label means."},
    {"name": "versions", "description": "Load, unload and delete versions."},
    {"name": "serving", "description": "How a model is served."},
    {"name": "pods", "description": "Who serves."},
    {"name": "health", "description": "How the process does. No token is needed."},
]
"""What the document says of each group of routes that is no surface's, in their order."""


def add_pages(app: FastAPI, about: About) -> None:
    """Add the routes; the document has the first of them."""

    @app.get(
        "/",
        tags=["health"],
        summary="What this is, and where to look",
        response_class=Response,
        responses={200: {"model": About, "content": ABOUT_CONTENT}},
    )
    async def root(request: Request) -> Response:
        """JSON, or a page where `Accept` prefers that."""
        body, headers = about_answer(about, request.headers.get("accept"))
        return Response(body, headers=headers)

    page = ApiPage(app.title)
    app.router.routes += [Route(path, page, methods=["GET"]) for path in PATHS]
