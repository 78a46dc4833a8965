"""`Prefer: respond-async` (RFC 7240) on Marway's own predict routes, and where its answers are.

Other surfaces pass the header over, as that standard lets a server do: their protocols have no place for it.
"""

from __future__ import annotations

import json
import re
import time
from typing import Annotated, Final

from fastapi import Header, Path, Response
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from marway import errors
from marway.errors import BodyTooLarge, MarwayError, NotFound, clip
from marway.refs import check_model_id
from marway.wire import headers as wire
from marway.wire.problems import CONTENT_TYPE, problem_of
from marway.wire.request import timeout_of
from marway_gateway.asynchronous.spool import Accepted, Kept
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import FastPathApp, request_info
from marway_gateway.openapi import problems
from marway_gateway.surfaces.http_call import body_of
from marway_http.channel import CHANNEL, NO_BODY, header_block
from marway_http.eager import in_task

__all__ = ["PREFER", "RespondsLater", "add_async_routes"]

_RETRY_AFTER_S: Final = 1
_ID: Final = re.compile(r"[0-9a-z]{58}")
_STAYS: Final = frozenset(
    {*wire.HOP_BY_HOP, *wire.CREDENTIALS, "content-length", "content-encoding", "expect", "prefer"}
)
PREFER: Final = Annotated[
    str | None,
    Header(description="`respond-async` has it taken in and answered later, where `Location` says.", max_length=200),
]
Id = Annotated[str, Path(description="As `Location` named it.", examples=["01jz3w5n8q3f6a0c91d24b7e58" + "0" * 32])]


class RespondsLater:
    """ASGI app for predict requests with the header `Prefer`.

    Args:
        gateway: Gives the gateway.
        now: Answers those that do not ask to be answered later.
    """

    def __init__(self, gateway: CurrentGateway, now: ASGIApp) -> None:
        self._gateway, self._now = gateway, now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, info = self._gateway(), request_info(scope)
        later = gateway.later
        if not (_asked(info.headers[b"prefer"]) and later.limits.requests):
            await self._now(scope, receive, send)
            return
        await in_task()
        params, settings = scope["path_params"], gateway.settings
        check_model_id(params["model"])
        await gateway.resolver.resolve(params["model"], params.get("selector"))  # a name that is wrong is told now
        body = body_of(
            scope, receive, info.headers, settings.max_body_bytes, settings.max_body_bytes, may_be_empty=False
        )
        try:
            await body.open()
        finally:
            info.request_bytes = body.size
        whole = body.whole
        if whole is None:
            raise BodyTooLarge(f"the body is larger than {settings.max_body_bytes} bytes")
        asked = info.headers.get(b"x-request-timeout-ms")
        timeout_s = timeout_of(
            None if asked is None else asked.decode("latin-1"),
            default_s=later.limits.timeout_s,
            max_s=settings.max_timeout_s,
        )
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in info.headers.items()]
        passed = {name: value for name, value in headers if name not in _STAYS}
        passed[wire.REQUEST_ID] = info.request_id  # made here where the caller has none: the answer has the same
        head = Accepted(
            path=scope["path"], headers=tuple(passed.items()), client=info.client, until=time.time() + timeout_s
        )
        ticket = await later.accept(head, whole)
        location = f"{scope.get('root_path', '')}/predictions/async/{ticket}"
        await _pending(ticket, location, applied=True)(scope, receive, send)


def _asked(prefer: bytes) -> bool:
    return any(each.strip().lower() == b"respond-async" for part in prefer.split(b",") for each in part.split(b";"))


def _pending(ticket: str, location: str, *, applied: bool) -> Response:
    headers = {"location": location, wire.RETRY_AFTER: str(_RETRY_AFTER_S), "cache-control": "no-store"}
    if applied:
        headers["preference-applied"] = "respond-async"
    body = json.dumps({"id": ticket, "status": "pending", "location": location})
    return Response(body, 202, headers=headers, media_type="application/json")


def add_async_routes(app: FastPathApp, gateway: CurrentGateway) -> None:
    """Add the routes under which answers are fetched."""
    responses = problems(errors.NotFound, errors.RegistryUnavailable)

    @app.get(
        "/predictions/async/{ticket}",
        tags=["predict"],
        summary="Fetch an answer that comes later",
        response_class=Response,
        responses={
            200: {"description": "The model's own answer: status, headers and body as they would have been at once."},
            202: {"description": "It is not answered yet: ask again after `Retry-After` seconds."},
            **responses,
        },
    )
    async def fetch_async(ticket: Id, request: Request) -> Response:
        """What was sent to a predict route with `Prefer: respond-async` is answered here. Any gateway can be asked."""
        try:
            found = await gateway().later.result(_known_form(ticket))
        except MarwayError as exc:
            return _refused(request, exc)
        if found is True:
            return _pending(ticket, request.url.path, applied=False)
        if found is False:
            return _refused(request, _unknown(ticket))
        assert isinstance(found, tuple)
        return _Whole(*found)

    @app.delete(
        "/predictions/async/{ticket}",
        tags=["predict"],
        summary="Cancel a prediction that is answered later, or forget its answer",
        status_code=204,
        response_class=Response,
        responses=responses,
    )
    async def cancel_async(ticket: Id, request: Request) -> Response:
        """The pod is told as when a caller leaves; where another gateway works on it, within a third of the lease."""
        try:
            if not await gateway().later.cancel(_known_form(ticket)):
                raise _unknown(ticket)
        except MarwayError as exc:
            return _refused(request, exc)
        return Response(status_code=204)


def _known_form(ticket: str) -> str:
    if not _ID.fullmatch(ticket):
        raise _unknown(ticket)
    return ticket


def _unknown(ticket: str) -> NotFound:
    return NotFound(f"no prediction {clip(ticket, 80)}: it was never taken in, was cancelled, or is kept no longer")


def _refused(request: Request, error: MarwayError) -> Response:
    """Answer with a problem document: the path is below TorchServe's, whose errors have another form."""
    info = request_info(request.scope)
    info.failed(error)
    problem, headers = problem_of(error, request_id=info.request_id)
    return Response(problem.body(), problem.status, headers=headers, media_type=CONTENT_TYPE)


class _Whole(Response):
    """An answer as it was kept: with the ids of the prediction, and not of the request that fetches it."""

    def __init__(self, head: Kept, body: bytes) -> None:
        super().__init__(body, head.status)
        self._kept = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        channel, info = scope[CHANNEL], request_info(scope)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._kept.headers]
        if self._kept.status not in NO_BODY:
            headers.append((b"content-length", b"%d" % len(self.body)))
        info.status, info.response_bytes = self._kept.status, len(self.body)
        await channel.answer(self._kept.status, header_block(headers), bytes(self.body))
