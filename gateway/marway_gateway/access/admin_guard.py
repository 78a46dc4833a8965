"""In front of the admin port: strangers' web pages are refused, and writes are JSON.

A browser sends a page's request with a JSON body to another host only where that host was asked first and agreed, which
the admin port never does; what HTML forms send it does not ask for.
"""

from __future__ import annotations

from typing import Final

from starlette.types import Scope, Send

from marway.errors import UnsupportedMedia, clip
from marway_http.hosts import HostGuard

__all__ = ["WRITES", "check_admin_request"]

WRITES: Final = frozenset({"DELETE", "PATCH", "POST", "PUT"})
_UNTYPED: Final = "/v2/"
"""Clients of the Open Inference Protocol, such as tritonclient, send JSON without saying so."""
_INDEX: Final = "/v2/repository/index"
"""A read, for all that it is a POST; Triton's users call it with curl, which calls what it sends a form."""


async def check_admin_request(guard: HostGuard, scope: Scope, _: Send) -> bool:
    """Refuse what may not be asked of the admin port; it answers nothing itself.

    Raises:
        Misdirected, ForeignOrigin: It comes from where it may not.
        UnsupportedMedia: It is a write whose body is not JSON.
    """
    error = guard(scope["headers"])
    if error is not None:
        raise error
    if scope["method"] in WRITES and scope["path"] != _INDEX:
        _check_media(scope)
    return False


def _check_media(scope: Scope) -> None:
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
        wrong = mime != "application/json" and not (mime.startswith("application/") and mime.endswith("+json"))
    if wrong:
        said = "a body without a Content-Type" if kind is None else f"the Content-Type {clip(kind, 80)!r}"
        raise UnsupportedMedia(f"{said} is not taken here: send JSON, with the header `Content-Type: application/json`")
