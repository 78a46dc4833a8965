"""What people find with a browser: what the port is, at `/`, and its API, at `/docs`."""

from __future__ import annotations

from typing import Any, Final

from marway import __version__
from marway_http.pages.about import About, Link

__all__ = ["ABOUT_ADMIN", "ABOUT_PUBLIC", "TAGS"]

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
