"""Bearer tokens (RFC 6750) in front of an HTTP app; the gRPC server asks for them in the same way.

The file that they are in is read again when it changes, so that tokens are replaced without a restart.

What says whether a process lives and how it does stays open: orchestrators and Prometheus ask without a token. So does
the API page, which could not ask for one otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast
from urllib.parse import quote

from starlette.types import Scope, Send

from marway.errors import InvalidSettings, Unauthenticated
from marway.tokens import Tokens, bearer, parse_tokens
from marway.wire.problems import problem_of
from marway_gateway.access.sign_in import LOGIN_PATH, OPEN_CONSOLE, cookie_token
from marway_gateway.followed_file import FollowedFile, Reading
from marway_gateway.http.error_bodies import send_problem, surface_of
from marway_gateway.http.requests import request_info
from marway_http.pages.about import prefers_page
from marway_http.pages.routes import API_PAGE_PATHS

__all__ = ["OPEN_PATHS", "TokenFile", "challenge", "check_request", "check_token", "token_owner"]

OPEN_PATHS: Final = frozenset(
    {"/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/api-description", *API_PAGE_PATHS}
)
"""What says whether the process lives, and what Marway's routes are, the same everywhere: nothing of models."""
_KEY: Final = "marway.token_owner"


class TokenFile(FollowedFile[Tokens]):
    """The tokens in a file, as they are now.

    Args:
        path: The file; see `marway.tokens` for what stands in it.

    Raises:
        InvalidSettings: It cannot be read, holds no token or something else.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, self._parsed, what="the tokens")
        if not self.tokens:
            raise InvalidSettings(f"the token file {path} holds no token: write one on a line of its own")

    @property
    def tokens(self) -> Tokens:
        """Those that are accepted. While the file cannot be read the last ones stay."""
        return self.value

    def _parsed(self, reading: Reading) -> Tokens:
        text = reading.text(self.path, "the token file")
        reading.secret(self.path, "the token file")
        return parse_tokens(text, source=f"the token file {self.path}")


def token_owner(scope: Scope) -> str | None:
    """Return the name of the token that a request came with, if it came with one that has a name."""
    return cast("str | None", scope.get(_KEY))


async def check_request(file: TokenFile, scope: Scope, send: Send, *, pages: bool = False) -> bool:
    """Answer a request that wants a token and has none that is known; return whether that was so.

    Args:
        file: The tokens.
        scope: The request's.
        send: Takes the answer.
        pages: Whether there are pages that people sign in to: a cookie may bring the token, and who asks for a page
            without one is led to where to sign in.

    Raises:
        ForeignOrigin: It is a write with a cookie that was not sent by a page of this port.
    """
    page = pages and _wants_page(scope)
    if (scope["path"] in OPEN_PATHS and not (page and scope["path"] == "/")) or (
        pages and scope["path"].startswith(OPEN_CONSOLE)
    ):
        return False
    info = request_info(scope)
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
    if pages and not given and (token := cookie_token(scope)) is not None:
        given = [f"Bearer {token}"]
    try:
        owner = scope[_KEY] = check_token(file.tokens, given)
    except Unauthenticated as exc:
        info.failed(exc)
        if page:
            await _lead_to_sign_in(scope, send)
            return True
        problem, _ = problem_of(exc, request_id=info.request_id)
        await send_problem(send, problem, [("www-authenticate", challenge(given))], surface=surface_of(info.path))
        return True
    if owner is not None:
        info.client = owner
    return False


def _wants_page(scope: Scope) -> bool:
    if scope["method"] not in ("GET", "HEAD") or not (scope["path"] == "/" or scope["path"].startswith("/console")):
        return False
    return prefers_page(dict(scope["headers"]).get(b"accept", b"").decode("latin-1"))


async def _lead_to_sign_in(scope: Scope, send: Send) -> None:
    """Answer with where to sign in, and where to go on from there: relative, as a proxy may prefix paths."""
    path = scope.get("raw_path") or scope["path"].encode()
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    goal = quote((path.lstrip(b"/") + query).decode("latin-1"), safe="")
    target = "../" * (path.count(b"/") - 1) + LOGIN_PATH.lstrip("/") + (f"?next={goal}" if goal else "")
    headers = [(b"location", target.encode()), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def check_token(tokens: Tokens, given: list[str]) -> str | None:
    """Return the name of the token that was given.

    Raises:
        Unauthenticated: There is none, or it is not known.
    """
    token = bearer(given[0]) if len(given) == 1 else None
    if token is None:
        raise Unauthenticated("this needs a token: send the header `Authorization: Bearer TOKEN`")
    known, name = tokens.owner(token)
    if not known:
        raise Unauthenticated("the token that was sent is not known here: it may have been replaced")
    return name


def challenge(given: list[str]) -> str:
    """Return the `WWW-Authenticate` of a refusal."""
    return 'Bearer realm="marway"' + (', error="invalid_token"' if given else "")
