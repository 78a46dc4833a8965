"""The pages of what was kept of predictions: a search, and where one answer came from."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from markupsafe import Markup
from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from marway.errors import MarwayError
from marway_gateway.console.frame import HEADERS, console_router, fragment, render
from marway_gateway.gateway import CurrentGateway
from marway_observations.searching.questions import Body, Explain, Search, SearchResult

__all__ = ["requests_router"]

_OUTCOMES: Final = ("ok", "client_error", "model_error", "unavailable", "timeout", "cancelled")
_SINCE: Final = (("15m", "15 minutes"), ("1h", "hour"), ("24h", "day"), ("7d", "week"), ("30d", "30 days"))
_PICTURES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")


class _Asked(Search):
    """What the page is asked for: a search, and how it is to be shown.

    Attributes:
        part: Only what was found, for the page to put into itself.
        whole: All at once, for browsers without scripts.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    part: bool = False
    whole: bool = False


def requests_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = console_router()

    @router.get("/console/requests")
    async def search_page(request: Request, asked: Annotated[_Asked, Query()]) -> Response:
        """The form comes at once; what was found is fetched by it, as that takes about a second."""
        wanted = Search(**{name: _given(getattr(asked, name)) for name in Search.model_fields})
        found: SearchResult | None = None
        trouble: str | None = None
        if asked.part or asked.whole:
            try:
                found = await current().kept.search(wanted)
            except MarwayError as exc:
                trouble = exc.message
        values: dict[str, Any] = {"wanted": wanted, "found": found, "trouble": trouble}
        if asked.part:
            text = fragment(request, "requests_found.html", **values)
            return Response(text, headers=HEADERS, media_type="text/html")
        return render(request, "requests.html", outcomes=_OUTCOMES, times=_SINCE, query=request.url.query, **values)

    @router.get("/console/requests/{id}")
    async def one_page(request: Request, id: str, model: str | None = None, since: str = "7d") -> Response:  # noqa: A002 - the path's name
        found = await current().kept.explain(Explain(id=id, model=model, since=since))
        bodies = [(name, body, _shown(body)) for name, body in (("Input", found.input), ("Answer", found.output))]
        return render(request, "request.html", why=found.why, bodies=bodies, left_out=found.left_out)

    return router


def _given(value: Any) -> Any:
    """Return a field of a form, without which it was empty."""
    return (value.strip() or None) if isinstance(value, str) else value


def _shown(body: Body | None) -> str | Markup | None:
    """Return a body as a page shows it: JSON indented, a picture as one, other text as it is; None where it is none."""
    if body is None or (body.text is None and body.base64 is None):
        return None
    if body.text is None:
        mime = (body.content_type or "").partition(";")[0].strip().lower()
        if mime not in _PICTURES:
            return None
        return Markup('<img class="shown" alt="The picture that was sent" src="data:{};base64,{}">').format(
            mime, body.base64
        )
    try:
        return json.dumps(json.loads(body.text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body.text
