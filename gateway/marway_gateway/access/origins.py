"""What web pages may do, by their origin: read the public port's answers, or nothing at all on the admin port.

Of the public port, that is CORS as the Fetch standard has it. The headers belong to a connection's answers, whatever
makes them: a model, an error, or the connection itself. Nobody is ever let in with a browser's own credentials: who
wants a token gets it in `Authorization`, from the page.

On the admin port strangers' pages are refused, and writes are JSON. A browser sends a page's request with a JSON body
to another host only where that host was asked first and agreed, which the admin port never does; what HTML forms send
it does not ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from starlette.types import Scope, Send

from marway.errors import ForeignOrigin, UnsupportedMedia, clip
from marway.wire import headers as wire
from marway_gateway.access.sign_in import MARK
from marway_http.hosts import HostGuard

__all__ = ["WRITES", "Cors", "answer_preflight", "check_admin_request"]

_Headers = tuple[tuple[bytes, bytes], ...]
WRITES: Final = frozenset({"DELETE", "PATCH", "POST", "PUT"})
_UNTYPED: Final = "/v2/"
"""Clients of the Open Inference Protocol, such as tritonclient, send JSON without saying so."""
_INDEX: Final = "/v2/repository/index"
"""A read, for all that it is a POST; Triton's users call it with curl, which calls what it sends a form."""
_MODELS: Final = "/models"
_TRY: Final = "/console/try/"
"""Where the console sends what a model takes, which may be anything."""
_CONSOLE: Final = (MARK.lower().encode(), b"1")
"""A header that no page of another origin can send unasked, and that no form can send at all."""
_ANY: Final = "*"
_EXPOSED: Final = (
    *(wire.REQUEST_ID, wire.REQUEST_GROUP_ID, wire.PREDICTION_ID),
    *(wire.MODEL_NAME, wire.MODEL_VERSION, wire.MODEL_ID, wire.CACHE, wire.TRAFFIC, wire.FALLBACK),
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


async def check_admin_request(guard: HostGuard, uploads: frozenset[str], scope: Scope, _: Send) -> bool:
    """Refuse what may not be asked of the admin port; it answers nothing itself.

    Args:
        guard: Says which hosts and origins may ask.
        uploads: Content types that `POST /models` takes as well; no page sends them without asking first.
        scope: The request's.

    Raises:
        Misdirected, ForeignOrigin: It comes from where it may not.
        UnsupportedMedia: It is a write whose body is not JSON.
    """
    error = guard(scope["headers"])
    if error is not None:
        raise error
    if scope["method"] in WRITES and scope["path"] != _INDEX:
        tried = scope["path"].startswith(_TRY) and _CONSOLE in scope["headers"]
        if not tried:
            _check_media(scope, uploads if scope["path"].rstrip("/") == _MODELS else frozenset())
    return False


def _check_media(scope: Scope, uploads: frozenset[str]) -> None:
    kind: str | None = None
    has_body = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value.decode("latin-1")
        elif name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            has_body = True
    if kind is None:
        wrong = has_body and not scope["path"].startswith(_UNTYPED)
    else:
        mime = kind.partition(";")[0].strip().lower()
        wrong = (
            mime not in uploads
            and mime != "application/json"
            and not (mime.startswith("application/") and mime.endswith("+json"))
        )
    if wrong:
        sent = "a body without a Content-Type" if kind is None else f"the Content-Type {clip(kind, 80)!r}"
        raise UnsupportedMedia(f"{sent} is not taken here: send JSON, with the header `Content-Type: application/json`")
