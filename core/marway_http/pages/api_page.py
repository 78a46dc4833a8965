"""The API page at `/docs`: Swagger UI over the port's own OpenAPI document, with nothing from another host.

Everything is found relative to the page, so that it works behind a proxy that puts a prefix before the port's paths.
Script and style are files, so that the page's Content-Security-Policy (W3C CSP Level 3) lets in nothing but those.
"""

from __future__ import annotations

import asyncio
import html
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from marway import __version__

__all__ = ["PATHS", "api_page"]

PATHS: Final = ("/docs", "/docs/page.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css")
"""The page and what it is made of."""
_PACKAGE: Final = "fastapi-offline"
"""Carries Swagger UI; nothing else of it is used."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets style attributes from its script; scripts are from files alone."""
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css?{version}">
</head>
<body>
<noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> says the same.</noscript>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js?{version}"></script>
<script src="docs/page.js?{version}"></script>
</body>
</html>
"""
_SCRIPT: Final = """"use strict";
// No validator, which would send the document's address to another host. A token is kept until the page is left.
window.ui = SwaggerUIBundle({
  url: new URL("../openapi.json", document.currentScript.src).href,
  dom_id: "#api",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  docExpansion: "list",
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
_TYPES: Final = {"css": "text/css", "js": "text/javascript"}


async def api_page(request: Request) -> Response:
    """Answer GET on each of `PATHS`."""
    headers = {"x-content-type-options": "nosniff"}
    name = request.url.path.rpartition("/docs")[2].removeprefix("/")
    if name:
        body = _SCRIPT.encode() if name == "page.js" else await asyncio.to_thread((_files() / name).read_bytes)
        # The page asks for them by version: another version is another address.
        headers["cache-control"] = "public, max-age=86400, immutable"
        return Response(body, headers=headers, media_type=_TYPES[name.rpartition(".")[2]])
    page = _PAGE.format(title=html.escape(request.app.title), version=f"{__version__}-{version(_PACKAGE)}")
    headers |= {"cache-control": "no-cache", "content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
    return Response(page, headers=headers, media_type="text/html")


@cache
def _files() -> Path:
    """Return where the files of Swagger UI are."""
    spec = find_spec(_PACKAGE.replace("-", "_"))  # not imported: it would bring a web framework
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "static"
