"""The console's scripts and styles: files of this package, held in memory, for ever the same under their address."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from marway.errors import NotFound

__all__ = ["STATICS", "Static", "static_answer"]

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}


@dataclass(frozen=True, slots=True)
class Static:
    """A file.

    Attributes:
        body: Its bytes.
        digest: The beginning of their sha256, which is part of its address.
        media_type: Its content type.
    """

    body: bytes
    digest: str
    media_type: str


def _read() -> dict[str, Static]:
    found = {}
    for file in (files(__package__) / "static").iterdir():
        body = file.read_bytes()
        kind = _TYPES[file.name.rpartition(".")[2]]
        found[file.name] = Static(body, hashlib.sha256(body).hexdigest()[:16], kind)
    return found


STATICS: Final[Mapping[str, Static]] = _read()
"""All of them, by their names."""


async def static_answer(request: Request) -> Response:
    """Answer GET `/console/static/{name}`: open to all, as it says nothing of models.

    Raises:
        NotFound: There is no such file.
    """
    name = request.path_params["name"]
    static = STATICS.get(name)
    if static is None:
        raise NotFound(f"the console has no file {name!r}")
    tag = f'"{static.digest}"'
    asked = request.query_params.get("v") == static.digest
    headers = {
        # Pages ask by digest: other bytes are another address.
        "Cache-Control": "public, max-age=31536000, immutable" if asked else "no-cache",
        "ETag": tag,
        "X-Content-Type-Options": "nosniff",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(static.body, headers=headers, media_type=static.media_type)
