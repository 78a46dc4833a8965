"""The API page at `/docs`: Swagger UI over the port's own OpenAPI document, with nothing from another host.

Everything is found relative to the page, so that it works behind a proxy that puts a prefix before the port's paths.
Script and style are files, so that the page's Content-Security-Policy (W3C CSP Level 3) lets in nothing but those.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from marway import __version__

__all__ = ["PATHS", "ApiPage"]

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
_TYPES: Final = {"css": b"text/css; charset=utf-8", "js": b"text/javascript; charset=utf-8"}

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ApiPage:
    """ASGI app for GET on each of `PATHS`.

    Args:
        title: What the page is called.
    """

    def __init__(self, title: str) -> None:
        self._title = title

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-content-type-options", b"nosniff")]
        name = scope["path"].removeprefix("/docs").removeprefix("/")
        if name:
            body = _SCRIPT.encode() if name == "page.js" else await asyncio.to_thread((_files() / name).read_bytes)
            # The page asks for them by version: another version is another address.
            headers += [
                (b"content-type", _TYPES[name.rpartition(".")[2]]),
                (b"cache-control", b"public, max-age=86400, immutable"),
            ]
        else:
            body = _PAGE.format(title=html.escape(self._title), version=f"{__version__}-{version(_PACKAGE)}").encode()
            headers += [
                (b"content-type", b"text/html; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"content-security-policy", _POLICY.encode()),
                (b"referrer-policy", b"no-referrer"),
            ]
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


@cache
def _files() -> Path:
    """Return where the files of Swagger UI are."""
    spec = find_spec(_PACKAGE.replace("-", "_"))  # not imported: it would bring a web framework
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "static"
