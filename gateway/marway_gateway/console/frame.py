"""What all pages of the console share: templates, the frame around them, headers, and errors as pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from marway import __version__
from marway.errors import MarwayError
from marway.wire.problems import problem_of
from marway_gateway.access.authentication import token_owner
from marway_gateway.access.sign_in import COOKIE
from marway_gateway.console.measured import MEASURED
from marway_gateway.console.statics import STATICS
from marway_gateway.http.requests import request_info
from marway_http.pages.about import prefers_page

__all__ = ["HEADERS", "NavLink", "console_router", "fragment", "render", "root_of"]

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""W3C CSP Level 3: nothing from another host, and no script or style that is not a file of ours."""
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept, Cookie",
    "X-Content-Type-Options": "nosniff",
}


class NavLink(NamedTuple):
    """A page that the frame leads to from everywhere.

    Attributes:
        title: What it is called there.
        path: Relative to the port's root.
    """

    title: str
    path: str


def console_router() -> APIRouter:
    """Return a router for pages: they are no part of the OpenAPI document, and their errors are pages as well."""
    return APIRouter(route_class=_PageRoute, include_in_schema=False)


def root_of(scope: Scope) -> str:
    """Return the way from a request's path to the port's root, such as `../`: it holds behind a proxy's prefix too."""
    path = scope.get("raw_path") or scope["path"].encode()
    return "../" * (path.count(b"/") - 1) or "./"


def render(request: Request, template: str, /, status: int = 200, **values: Any) -> Response:
    """Return a page.

    Args:
        request: What it answers.
        template: A file of `console/templates`, which extends `base.html`.
        status: Of the answer.
        values: For the template, beside `root`, `here` (the path of the page), `nav`, `owner` (the name of the token
            that was sent), `signed_in` and `marway_version`.
    """
    return Response(fragment(request, template, **values), status, headers=HEADERS, media_type="text/html")


def fragment(request: Request, template: str, /, **values: Any) -> str:
    """Return a template's text, with what `render` gives it; of a part of a page, for its live parts."""
    nav: Iterable[NavLink] = request.app.state.console_nav
    return _TEMPLATES.get_template(template).render(
        root=root_of(request.scope),
        here=request.url.path.lstrip("/"),
        nav=nav,
        owner=token_owner(request.scope),
        signed_in=COOKIE in request.cookies,
        marway_version=__version__,
        **values,
    )


class _PageRoute(APIRoute):
    """A route whose errors are pages where a page was asked for."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except MarwayError as exc:
                if not prefers_page(request.headers.get("accept", "")):
                    raise
                info = request_info(request.scope)
                info.failed(exc)
                problem, headers = problem_of(exc, request_id=info.request_id)
                page = render(request, "error.html", problem.status, problem=problem)
                page.headers.update(headers)
                return page

        return answer


def _quoted(text: object) -> str:
    """Return text as one segment of a path."""
    return quote(str(text), safe="")


def _coded(text: object) -> Markup:
    """Return text in which what stands between backticks is code, as in settings' meanings and errors' messages."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # one of them has no other
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(each) if n % 2 else escape(each) for n, each in enumerate(parts)
    )


def _bytes(number: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


_UNITS: Final = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))


def _seconds(seconds: float) -> str:
    """Return a duration as people read it."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    for unit, size, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < until:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"


def _when(at: datetime | str) -> Markup:
    """Return a time, which may be in ISO 8601: how long ago, and which exactly; `console.js` makes it the reader's own
    zone.
    """
    at = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    exact = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(), exact, _ago(at))


def _pretty(value: object) -> str:
    """Return a value as JSON that people read."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _ago(at: datetime) -> str:
    age_s = int((datetime.now(UTC) - at).total_seconds())
    unit, size = next(((unit, size) for unit, size in _UNITS if abs(age_s) >= 2 * size), _UNITS[-1])
    whole = f"{abs(age_s) // size} {unit}"
    return f"{whole} ago" if age_s > 0 else "just now" if age_s == 0 else f"in {whole}"


@pass_context
def _asset(context: Context, name: str) -> str:
    """Return the address of one of `console/static`'s files, which changes when it does."""
    return f"{context['root']}console/static/{name}?v={STATICS[name].digest}"


_TEMPLATES: Final = Environment(
    loader=PackageLoader("marway_gateway.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "coded": _coded,
    "q": _quoted,
    "bytes": _bytes,
    "seconds": _seconds,
    "when": _when,
    "pretty": _pretty,
}
_TEMPLATES.globals |= {"asset": _asset, "measured_texts": MEASURED}
