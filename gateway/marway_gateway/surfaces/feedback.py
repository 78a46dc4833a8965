"""`POST /feedback`: what people and systems say of predictions later. Answered when it is kept, not before."""

from __future__ import annotations

import asyncio
from typing import Final

from pydantic import Field
from starlette.types import Receive, Scope, Send

from marway import errors
from marway.errors import InvalidRequest, MarwayError, Unavailable, UnsupportedMedia, clip
from marway.wire.envelope import mime_type
from marway_gateway.access.authentication import token_owner
from marway_gateway.feedback.entries import FeedbackBody, read_feedback
from marway_gateway.feedback.log import Held
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.http.requests import FastPathApp, request_info, send_whole
from marway_gateway.json_models import JsonModel, examples
from marway_gateway.observe.metrics import outcome_of
from marway_gateway.openapi import REQUEST_HEADERS, add_served, problems
from marway_gateway.surfaces.http_call import body_of
from marway_http.channel import CHANNEL, Channel, header_block
from marway_http.eager import in_task

__all__ = ["add_feedback_route"]

_WORTH: Final = 4
"""Bytes of other bodies whose conversion takes as long as that of a byte of feedback, which may be of many entries."""
_JSON: Final = header_block([(b"content-type", b"application/json")])
_TYPES: Final = "send JSON, with the header `Content-Type: application/json`"


class FeedbackAccepted(JsonModel):
    """What was kept."""

    model_config = examples({"accepted": 2})

    accepted: int = Field(description="Pieces of feedback that are kept now: all that were sent.")


class FeedbackRoute:
    """ASGI app for `POST /feedback`.

    Args:
        gateway: Gives the gateway; asked at each request, because it exists only while the app runs.
    """

    def __init__(self, gateway: CurrentGateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await in_task()
        gateway, info = self._gateway(), request_info(scope)
        channel: Channel = scope[CHANNEL]
        calls, outcome = gateway.telemetry.metrics.feedback_calls, "cancelled"
        try:
            with gateway.feedback.holding() as held:
                accepted = await self._keep(gateway, scope, receive, held)
            outcome = "ok"
        except MarwayError as exc:
            outcome = outcome_of(exc)
            raise
        finally:
            calls.labels(outcome).inc()
        body = FeedbackAccepted(accepted=accepted).model_dump_json().encode()
        await send_whole(channel, info, 202, _JSON, body)

    @staticmethod
    async def _keep(gateway: Gateway, scope: Scope, receive: Receive, held: Held) -> int:
        info, settings = request_info(scope), gateway.settings
        _check_type(info.headers.get(b"content-type"))
        body = body_of(scope, receive, info.headers, 0, settings.max_body_bytes, may_be_empty=True)
        pieces = []
        try:
            await body.open()  # which refuses what calls itself too large
            async for piece in body.stream():
                held.take(len(piece))
                pieces.append(piece)
        finally:
            info.request_bytes = body.size
        data = b"".join(pieces)
        pieces.clear()
        if not data:
            raise InvalidRequest("the request has no body: send one piece of feedback, or a list of them, as JSON")
        # Addresses are not kept: feedback does not say which model it is about, and so not whether they may be.
        rows = await gateway.converters.run(_WORTH * len(data), read_feedback, data, client=token_owner(scope))
        try:
            async with asyncio.timeout(settings.default_timeout_s):
                await gateway.feedback.keep(rows)
        except TimeoutError as exc:
            raise Unavailable(
                f"the store has not taken the feedback within {settings.default_timeout_s:g} s, and may yet: send it "
                "again, which does no harm",
                retry_after_s=settings.default_timeout_s,
            ) from exc
        return int(rows.num_rows)


def _check_type(content_type: bytes | None) -> None:
    """Refuse what is not called JSON: what a web page may send without being asked is never called so.

    Raises:
        UnsupportedMedia: It is not.
    """
    kind = "" if content_type is None else mime_type(content_type.decode("latin-1")).lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    sent = f"the Content-Type {clip(kind, 80)!r}" if kind else "a body without a Content-Type"
    raise UnsupportedMedia(f"{sent} is not taken here: {_TYPES}")


def add_feedback_route(app: FastPathApp, gateway: CurrentGateway) -> None:
    """Add the route to the public app."""
    add_served(
        app,
        FeedbackRoute(gateway),
        (("/feedback", "feedback", "Say what predictions should have been, or how good they were"),),
        body=FeedbackBody,
        headers={name: REQUEST_HEADERS[name] for name in ("x_request_id", "x_request_group_id")},
        predicts=False,
        status_code=202,
        tags=["feedback"],
        responses={
            202: {"model": FeedbackAccepted, "description": "All of it is kept: no crash loses it any more."},
            **problems(
                *(errors.InvalidRequest, errors.BodyTooLarge, errors.UnsupportedMedia, errors.Overloaded),
                *(errors.MarwayError, errors.Unavailable),
            ),
        },
    )
