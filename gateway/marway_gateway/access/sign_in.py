"""The console's cookie: a browser sends with it the token that somebody signed in with.

The cookie is the token itself, so that there is no session to keep: several gateways and processes serve it, and a
token that is taken out of its file ends at once what was signed in with it. Scripts cannot read it, and other sites'
pages cannot have it sent (SameSite=Strict, RFC 6265bis §5.2). Cookies do not know ports, and a page from another port
of this host is of the same site; so a write with a cookie wants a header that a browser lets no page send to another
origin without asking first, which the admin port never agrees to.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import cookie_parser
from starlette.types import Scope

from marway.errors import ForeignOrigin

__all__ = ["COOKIE", "LOGIN_PATH", "MARK", "OPEN_CONSOLE", "check_own_page", "cookie_token"]

COOKIE: Final = "marway_console"
MARK: Final = "X-Marway-Console"
"""The header of writes, with the value 1."""
LOGIN_PATH: Final = "/console/login"
OPEN_CONSOLE: Final = (LOGIN_PATH, "/console/static/")
"""What is open to all: how to sign in, and files that say nothing of models."""
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE: Final = frozenset({b"same-origin", b"none"})


def cookie_token(scope: Scope) -> str | None:
    """Return the token that a request's cookie carries, or None.

    Raises:
        ForeignOrigin: It is a write that was not sent by a page of this port.
    """
    headers = dict(scope["headers"])
    # As browsers read them: what other programs of this host set may be malformed, and must not hide ours.
    token = cookie_parser(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
    if not token:
        return None
    check_own_page(scope)
    return token


def check_own_page(scope: Scope) -> None:
    """Look at a request that a browser may have sent for somebody's page.

    Raises:
        ForeignOrigin: It is a write that was not sent by a page of this port.
    """
    if scope["method"] in _READS:
        return
    headers = dict(scope["headers"])
    site = headers.get(b"sec-fetch-site", b"same-origin")
    if headers.get(MARK.lower().encode()) != b"1" or site not in _OWN_SITE:
        raise ForeignOrigin(
            f"with the console's cookie, only its own pages may change something: they send the header `{MARK}: 1`. "
            "A program sends its token as `Authorization: Bearer TOKEN`, without the cookie"
        )
