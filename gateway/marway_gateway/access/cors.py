"""Cross-origin requests (CORS, as the Fetch standard has it): which web pages may read the public port's answers.

The headers belong to a connection's answers, whatever makes them: a model, an error, or the connection itself. Nobody
is ever let in with a browser's own credentials: who wants a token gets it in `Authorization`, from the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from starlette.types import Scope, Send

from marway.errors import ForeignOrigin, clip
from marway.wire import headers as wire

__all__ = ["Cors", "answer_preflight"]

_Headers = tuple[tuple[bytes, bytes], ...]
_ANY: Final = "*"
_EXPOSED: Final = (
    *(wire.REQUEST_ID, wire.REQUEST_GROUP_ID, wire.MODEL_NAME, wire.MODEL_VERSION, wire.MODEL_ID, wire.CACHE),
    *(wire.SERVER_TIMING, wire.RETRY_AFTER, "www-authenticate"),
    _ANY,  # handlers' own; the others are for browsers that do not know it
)
_METHODS: Final = b"GET, HEAD, POST, PUT"
_MAX_AGE_S: Final = 600
"""How long browsers need not ask again: a setting that was taken back holds by then."""
_KNOWN_MAX: Final = 256
_NAMES: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, \t-]{0,4096}")


class Cors:
    """The headers that answers have, by the origin of the page that asked.

    Args:
        origins: As `marway_http.hosts.parse_origins` gives them; `*` alone lets every page read answers.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(each.encode() for each in origins)
        self._any = _ANY.encode() in self._origins
        self._vary: _Headers = () if self._any else ((b"vary", b"Origin"),)
        self._exposed = (b"access-control-expose-headers", ", ".join(_EXPOSED).encode())
        self._of_origin = lru_cache(maxsize=_KNOWN_MAX)(self._made_for)

    def allows(self, origin: bytes) -> bool:
        """Return whether pages of an origin may read answers."""
        return self._any or origin in self._origins

    def answer_headers(self, headers: Iterable[tuple[bytes, bytes]] | None) -> _Headers:
        """Return what the answer to a request with these headers has beside its own."""
        origin = next((value for name, value in headers or () if name == b"origin"), None)
        return self._vary if origin is None else self._of_origin(origin)

    def _made_for(self, origin: bytes) -> _Headers:
        if not self.allows(origin):
            return self._vary
        allowed = _ANY.encode() if self._any else origin
        return (b"access-control-allow-origin", allowed), self._exposed, *self._vary


async def answer_preflight(cors: Cors, scope: Scope, send: Send) -> bool:
    """Answer a browser's question whether a page may send a request; return whether this was one.

    A question carries no token, and so is answered before tokens are looked at.

    Raises:
        ForeignOrigin: It may not.
    """
    if scope["method"] != "OPTIONS":
        return False
    asked = dict(scope["headers"])
    origin = asked.get(b"origin")
    if origin is None or b"access-control-request-method" not in asked:
        return False
    if not cors.allows(origin):
        raise ForeignOrigin(
            f"pages of {clip(origin.decode('latin-1'), 200)!r} may not read answers of this port: if they should, "
            "add the origin to cors_origins (MARWAY_GATEWAY_CORS_ORIGINS)"
        )
    # The caller's own headers reach the handler, so that any may be asked for; `*` would leave Authorization out.
    names = asked.get(b"access-control-request-headers", b"")
    headers: list[Any] = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", b"%d" % _MAX_AGE_S),
        (b"vary", b"Access-Control-Request-Headers"),
    ]
    if names and _NAMES.fullmatch(names):
        headers.append((b"access-control-allow-headers", names))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return True
