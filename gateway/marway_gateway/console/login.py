"""Signing in to the console with a token of the admin port, and out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from marway.errors import InvalidRequest, Overloaded, Unauthenticated
from marway_gateway.access.authentication import check_token
from marway_gateway.access.sign_in import COOKIE, check_own_page
from marway_gateway.console.frame import HEADERS, console_router, render, root_of
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.http.requests import FastPathApp, request_info

__all__ = ["Guesses", "add_login"]

_GUESSES_MAX: Final = 10
_GUESSES_S: Final = 60.0
_CALLERS_MAX: Final = 1024
_AGE_S: Final = 30 * 86400
_PATH: Final = r"/[A-Za-z0-9._~/-]*"


class Guesses:
    """Bounds how often one address may give a wrong token: 10 times a minute, of each of a gateway's processes.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: dict[str, tuple[float, int]] = {}

    def check(self, caller: str) -> None:
        """Refuse a caller that guessed too often.

        Raises:
            Overloaded: It did; it says when to try again.
        """
        since, count = self._wrong.get(caller, (0.0, 0))
        left_s = since + _GUESSES_S - self._clock()
        if count >= _GUESSES_MAX and left_s > 0:
            raise Overloaded("too many wrong tokens came from your address: wait a minute", retry_after_s=left_s)

    def wrong(self, caller: str) -> None:
        """Take in that a caller gave a wrong one."""
        now = self._clock()
        since, count = self._wrong.pop(caller, (now, 0))
        self._wrong[caller] = (now, 1) if now - since >= _GUESSES_S else (since, count + 1)
        if len(self._wrong) > _CALLERS_MAX:  # the one that was wrong longest ago
            del self._wrong[next(iter(self._wrong))]


class Login(BaseModel):
    """What the form sends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str = Field(min_length=1, max_length=4096, pattern=r"[A-Za-z0-9._~+/-]+=*")
    path: str = Field(default="/", max_length=512, pattern=rf"^{_PATH}$")
    """The port's root as the browser sees it, which a proxy may have put below a prefix."""


def add_login(app: FastPathApp, current: CurrentGateway) -> None:
    """Add the page, and what its form and the button to sign out send to."""
    router = console_router()
    guesses = Guesses()

    @router.get("/console/login")
    async def page(request: Request) -> Response:
        if current().settings.admin_tokens_file is None:
            return RedirectResponse(f"{root_of(request.scope)}console/models", 303)
        return render(request, "login.html")

    @router.post("/console/login")
    async def login(request: Request, given: Login) -> Response:
        check_own_page(request.scope)
        _sign_in(current(), guesses, request, given.token)
        response = Response(status_code=204, headers=HEADERS)
        _set_cookie(response, request, given.token, path=given.path, max_age=_AGE_S)
        return response

    @router.post("/console/logout")
    async def logout(request: Request, path: str = "/") -> Response:
        if not re.fullmatch(_PATH, path):
            raise InvalidRequest("path: it is the path of the port's root as the browser sees it")
        check_own_page(request.scope)
        response = Response(status_code=204, headers={**HEADERS, "Clear-Site-Data": '"cache"'})
        _set_cookie(response, request, "", path=path, max_age=0)
        return response

    app.include_router(router)


def _sign_in(gateway: Gateway, guesses: Guesses, request: Request, token: str) -> None:
    """Look at a token.

    Raises:
        InvalidRequest: This port wants none.
        Overloaded: Too many wrong ones came before.
        Unauthenticated: It is not known.
    """
    file = gateway.settings.admin_tokens_file
    if file is None:
        raise InvalidRequest("this admin port wants no token: there is nothing to sign in to")
    caller = request.client.host if request.client else ""
    guesses.check(caller)
    try:
        owner = check_token(gateway.token_files[file].tokens, [f"Bearer {token}"])
    except Unauthenticated:
        guesses.wrong(caller)
        raise
    request_info(request.scope).client = owner or caller


def _set_cookie(response: Response, request: Request, value: str, *, path: str, max_age: int) -> None:
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", "").partition(",")[0].strip())
    response.set_cookie(COOKIE, value, max_age=max_age, path=path, secure=secure, httponly=True, samesite="strict")
