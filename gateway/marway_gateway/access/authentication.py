"""Bearer tokens (RFC 6750) in front of an HTTP app; the gRPC server asks for them in the same way.

The file that they are in is read again when it changes, so that tokens are replaced without a restart.

What says whether a process lives and how it does stays open: orchestrators and Prometheus ask without a token. So does
the API page, which could not ask for one otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

from starlette.types import Scope, Send

from marway.errors import InvalidSettings, Unauthenticated
from marway.tokens import Tokens, bearer, parse_tokens
from marway.wire.problems import problem_of
from marway_gateway.followed_file import FollowedFile, Reading
from marway_gateway.http.error_bodies import send_problem, surface_of
from marway_gateway.http.requests import request_info
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


async def check_request(file: TokenFile, scope: Scope, send: Send) -> bool:
    """Answer a request that wants a token and has none that is known; return whether that was so."""
    if scope["path"] in OPEN_PATHS:
        return False
    info = request_info(scope)
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
    try:
        owner = scope[_KEY] = check_token(file.tokens, given)
    except Unauthenticated as exc:
        info.failed(exc)
        problem, _ = problem_of(exc, request_id=info.request_id)
        await send_problem(send, problem, [("www-authenticate", challenge(given))], surface=surface_of(info.path))
        return True
    if owner is not None:
        info.client = owner
    return False


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
