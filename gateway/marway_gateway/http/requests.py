"""The gateway's HTTP apps: what all their requests share, and the short way to the routes that carry predictions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import lru_cache, partial
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marway.errors import BodyTooLarge, Draining, MarwayError, clip
from marway.wire import headers as wire
from marway.wire.paths import SegmentRoutes
from marway.wire.problems import problem_of
from marway.wire.request import ids_of
from marway_gateway.http.error_bodies import send_problem, surface_of
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_http.channel import NO_BODY, Channel, ClientGone, HeaderBlock, header_block
from marway_http.eager import in_task
from marway_http.pages.routes import HeadAsGet
from marway_http.tracebacks import forget_frames

__all__ = ["Check", "FastPathApp", "model_headers", "request_info", "send_whole"]

Check = Callable[[Scope, Send], Awaitable[bool]]
"""Looks at a request before it is answered: returns whether it answered it, or raises."""

_KEY: Final = "marway.request"
_REQUEST_ID: Final = wire.REQUEST_ID.encode()
_GROUP_ID: Final = wire.REQUEST_GROUP_ID.encode()
_PREDICTION_ID: Final = wire.PREDICTION_ID.encode()
_FOUND_MAX: Final = 1024  # paths, most of them of few models
_log = logging.getLogger(__name__)


def request_info(scope: Scope) -> RequestInfo:
    """Return what is known of the request that ``scope`` belongs to."""
    info: RequestInfo = scope[_KEY]
    return info


class FastPathApp(FastAPI):
    """FastAPI, each of whose requests has a `RequestInfo`, its ids in the answer, and one report at its end.

    Errors are answered in the form of the path's surface. One that nobody expected becomes a 500 that names the request
    id; its traceback goes to the log.

    Routes of `add_fast` are documented by FastAPI like all others, which would serve them as well. But their requests
    reach the same handlers past its router and middleware, which cost a small prediction more than all else in the
    gateway, and without a task (`marway_http.eager`).

    Args:
        telemetry: Gives where to report; first asked when a request has ended.
        checks: Each looks at every request, in turn.
        options: FastAPI's.
    """

    def __init__(self, *, telemetry: Callable[[], Telemetry], checks: Sequence[Check], **options: Any) -> None:
        routed = [Middleware(lambda app: partial(self._serve, app)), Middleware(HeadAsGet)]
        super().__init__(middleware=routed, **options)
        self._telemetry_now = telemetry
        self._checks = checks
        self._routes: SegmentRoutes[ASGIApp] = SegmentRoutes()
        self._find = lru_cache(maxsize=_FOUND_MAX)(self._routes.find)

    def add_fast(self, method: str, path: str, handler: ASGIApp) -> None:
        """Have a route served on the short way where its path allows that; the router has it in any case."""
        self._routes.add(method, path, handler)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "http" and not scope.get("root_path"):
            found = self._find(scope["method"], scope["path"])
            if found is not None:
                handler, scope["path_params"] = found
                return self._serve(handler, scope, receive, send)
        return self._route(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        await in_task()
        await super().__call__(scope, receive, send)

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have ``app`` answer a request."""
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        info = scope[_KEY] = _new_info(scope)

        async def send_with_ids(message: Message) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_ids(info)]
            else:
                info.response_bytes += len(message.get("body", b""))
            await send(message)

        try:
            for check in self._checks:
                if await check(scope, send_with_ids):
                    return
            await app(scope, receive, send_with_ids)
        except ClientGone as exc:
            info.outcome = "cancelled"
            forget_frames(exc)
        except MarwayError as exc:
            info.failed(exc)
            forget_frames(exc)
            await _refuse(exc, info, receive, send_with_ids)
        except asyncio.CancelledError:
            # Only the server cancels requests here, when its time to drain is over.
            info.outcome = "cancelled"
            if info.status is not None:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await _refuse(Draining("this gateway is stopping: send the request again"), info, receive, send_with_ids)
        except Exception:
            fields = {"request_id": info.request_id, "method": info.method, "path": clip(info.path, 300)}
            _log.exception("request %s failed unexpectedly", info.request_id, extra={"fields": fields})
            error = MarwayError(f"something went wrong in the gateway; its log has it under request {info.request_id}")
            info.failed(error)
            if info.status is not None:
                raise  # the server cuts the connection, so that the client sees an incomplete answer
            await _refuse(error, info, receive, send_with_ids)
        finally:
            self._telemetry_now().finish(info)


async def _refuse(error: MarwayError, info: RequestInfo, receive: Receive, send: Send) -> None:
    if info.status is not None:
        return  # the answer has begun: returning without its end makes the server cut the connection
    problem, extra = problem_of(error, request_id=info.request_id)
    headers, unread = [*extra.items(), *model_headers(info)], None
    if isinstance(error, BodyTooLarge):
        headers.append(("connection", "close"))
        await in_task()
        unread = receive
    await send_problem(send, problem, headers, surface=info.surface or surface_of(info.path), unread=unread)


async def send_whole(channel: Channel, info: RequestInfo, status: int, headers: HeaderBlock, body: bytes) -> None:
    """Send a whole answer to a predict request, with the headers that all such answers have beside their own.

    Raises:
        RuntimeError: A header cannot be sent.
    """
    named = _named(info.model, info.version, info.model_id)
    text = b"%b%bserver-timing: %b\r\nx-request-id: %b\r\n" % (
        headers.text,
        named.text,
        info.server_timing().encode(),
        info.request_id.encode(),
    )
    number = headers.number + named.number + 2
    if info.prediction_id is not None:
        text += b"x-prediction-id: %b\r\n" % info.prediction_id.encode()
        number += 1
    if info.group_id is not None:
        text += b"x-request-group-id: %b\r\n" % info.group_id.encode()
        number += 1
    if info.assignment is not None:
        text += b"x-marway-traffic: %b\r\n" % info.role.encode()
        number += 1
    if info.cache is not None:
        text += b"x-cache: %b\r\n" % info.cache.encode()
        number += 1
    for name, value in info.notes:
        text += b"%b: %b\r\n" % (name.encode(), value.encode())
        number += 1
    if status not in NO_BODY:
        text += b"content-length: %d\r\n" % len(body)
        number += 1
    await channel.answer(status, HeaderBlock(text, number), body)
    info.status = status
    info.response_bytes = len(body)
    if info.observe == "bodies":
        info.output, info.output_headers = body, headers.text


def model_headers(info: RequestInfo) -> list[tuple[str, str]]:
    """Return the headers that say what a predict request resolved to and where its time went."""
    if info.surface is None:
        return []
    headers = [(wire.SERVER_TIMING, info.server_timing()), *_of_version(info.model, info.version, info.model_id)]
    if info.cache is not None:
        headers.append((wire.CACHE, info.cache))
    if info.assignment is not None:
        headers.append((wire.TRAFFIC, info.role))
    return [*headers, *info.notes]


def _of_version(model: str | None, version: str | None, model_id: str | None) -> list[tuple[str, str]]:
    """Return the headers that name a version."""
    if model is None or version is None or model_id is None:
        return []
    return [(wire.MODEL_NAME, model), (wire.MODEL_VERSION, version), (wire.MODEL_ID, model_id)]


@lru_cache(maxsize=1000)
def _named(model: str | None, version: str | None, model_id: str | None) -> HeaderBlock:
    """Return `_of_version` as they go out."""
    return header_block([(name.encode(), value.encode()) for name, value in _of_version(model, version, model_id)])


def _new_info(scope: Scope) -> RequestInfo:
    """Return what is known of a request at its beginning."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    info = RequestInfo(method=scope["method"], path=scope["path"], ids=ids_of(headers))
    info.headers = headers
    client = scope.get("client")
    info.client = client[0] if client is not None else None
    return info


def _ids(info: RequestInfo) -> list[tuple[bytes, bytes]]:
    """Return the headers that every answer has."""
    ids = [(_REQUEST_ID, info.request_id.encode())]
    if info.group_id is not None:
        ids.append((_GROUP_ID, info.group_id.encode()))
    if info.prediction_id is not None:
        ids.append((_PREDICTION_ID, info.prediction_id.encode()))
    return ids
