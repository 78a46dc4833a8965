"""What all HTTP requests to the gateway share: ids in and out, errors as problem documents, one report each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marway.errors import BodyTooLarge, Draining, MarwayError, clip, forget_frames
from marway.resolve.caches import LruCache
from marway.wire import headers as wire
from marway.wire.problems import Problem, problem_of
from marway.wire.request import correlation_id, new_request_id
from marway_gateway.http.body import ClientGone
from marway_gateway.http.error_bodies import error_body, surface_of
from marway_gateway.http.sync_request import Exchange, FastApp
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_gateway.predict.reply import Headers, Lines, lines_of

__all__ = [
    "RequestLayer",
    "model_headers",
    "model_lines",
    "raw_model_headers",
    "request_info",
    "send_problem",
    "send_whole",
]

_KEY: Final = "marway.request"
_REQUEST_ID: Final = wire.REQUEST_ID.encode()
_GROUP_ID: Final = wire.REQUEST_GROUP_ID.encode()
_SERVER_TIMING: Final = wire.SERVER_TIMING.encode()
_CACHE: Final = wire.CACHE.encode()
_OF_VERSION: Final = frozenset(name.encode() for name in (wire.MODEL_NAME, wire.MODEL_VERSION, wire.MODEL_ID))
_NAMED: Final[LruCache[tuple[str | None, str | None, str | None], tuple[Headers, Lines]]] = LruCache(1000)
_LINGER_S: Final = 2.0
_log = logging.getLogger(__name__)


def request_info(scope: Scope) -> RequestInfo:
    """Return what is known of the request that ``scope`` belongs to."""
    info: RequestInfo = scope[_KEY]
    return info


async def send_problem(
    send: Send, problem: Problem, headers: Iterable[tuple[str, str]] = (), *, surface: str | None = None
) -> None:
    """Answer with a problem, in the form of ``surface``."""
    body, content_type = error_body(surface, problem)
    raw: Headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in headers),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class RequestLayer:
    """The outermost ASGI layer of an app.

    Makes the request's `RequestInfo`, adds the ids to the answer, turns errors into problem documents and reports the
    request at its end. An exception that nobody expected becomes a 500 that names the request id; its traceback
    goes to the log.

    Args:
        app: What answers.
        telemetry: Gives where to report; asked at each request, because it exists only while the app runs.
    """

    def __init__(self, app: FastApp, *, telemetry: Callable[[], Telemetry]) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        _make_info(scope)
        await self.serve(self._app, scope, receive, send)

    def begin(self, exchange: Exchange) -> bool:
        """Begin a request, whose answer goes out by `send_whole` or in `serve`."""
        _make_info(exchange.scope)
        exchange.guard = self.serve
        return self._app.begin(exchange)

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Call ``app`` for a request whose info was made."""
        info = request_info(scope)

        async def send_with_ids(message: Message) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_ids(info)]
            else:
                info.response_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await app(scope, receive, send_with_ids)
        except ClientGone as exc:
            info.outcome = "cancelled"
            forget_frames(exc)
        except MarwayError as exc:
            info.failed(exc)
            forget_frames(exc)
            await self._refuse(exc, info, receive, send_with_ids)
        except asyncio.CancelledError:
            # Only the server cancels requests, when its time to drain is over.
            info.outcome = "cancelled"
            if info.status is not None:
                raise
            _uncancel()
            await self._refuse(
                Draining("this gateway is stopping: send the request again"), info, receive, send_with_ids
            )
        except Exception:
            fields = {"request_id": info.request_id, "method": info.method, "path": clip(info.path, 300)}
            _log.exception("request %s failed unexpectedly", info.request_id, extra={"fields": fields})
            error = MarwayError(f"something went wrong in the gateway; its log has it under request {info.request_id}")
            info.failed(error)
            if info.status is not None:
                raise  # the server cuts the connection, so that the client sees an incomplete answer
            await self._refuse(error, info, receive, send_with_ids)
        finally:
            self._telemetry().finish(info)

    async def _refuse(self, error: MarwayError, info: RequestInfo, receive: Receive, send: Send) -> None:
        if info.status is not None:
            return  # the answer has begun: returning without its end makes the server cut the connection
        problem, extra = problem_of(error, request_id=info.request_id)
        headers = [*extra.items(), *model_headers(info)]
        if isinstance(error, BodyTooLarge):
            headers.append(("connection", "close"))
            send = _lingering(receive, send)
        await send_problem(send, problem, headers, surface=info.surface or surface_of(info.path))


def send_whole(
    exchange: Exchange, info: RequestInfo, telemetry: Telemetry, status: int, lines: Lines, body: bytes
) -> None:
    """Send the whole answer to a request that was begun, with the ids, and report the request.

    Raises:
        RuntimeError: A header cannot be sent; nothing was reported.
    """
    info.status = status
    text, number = lines
    text += b"x-request-id: %b\r\n" % info.request_id.encode()
    if info.group_id is not None:
        text += b"x-request-group-id: %b\r\n" % info.group_id.encode()
        number += 1
    exchange.answer(status, Lines(text, number + 1), body)
    info.response_bytes = len(body)
    telemetry.finish(info)


def model_headers(info: RequestInfo) -> list[tuple[str, str]]:
    """Return the headers that say what a predict request resolved to and where its time went."""
    if info.surface is None:
        return []
    headers = [(wire.SERVER_TIMING, info.server_timing())]
    if info.model is not None and info.version is not None and info.model_id is not None:
        headers += [
            (wire.MODEL_NAME, info.model),
            (wire.MODEL_VERSION, info.version),
            (wire.MODEL_ID, info.model_id),
        ]
    if info.cache is not None:
        headers.append((wire.CACHE, info.cache))
    return headers


def raw_model_headers(info: RequestInfo) -> Headers:
    """Return `model_headers` as ASGI has them; those of a version are made once."""
    named, _ = _named(info)
    headers = [(_SERVER_TIMING, info.server_timing().encode()), *named]
    if info.cache is not None:
        headers.append((_CACHE, info.cache.encode()))
    return headers


def model_lines(info: RequestInfo) -> Lines:
    """Return `model_headers` as they go out."""
    _, (text, number) = _named(info)
    text = b"server-timing: %b\r\n%b" % (info.server_timing().encode(), text)
    if info.cache is not None:
        return Lines(b"%bx-cache: %b\r\n" % (text, info.cache.encode()), number + 2)
    return Lines(text, number + 1)


def _named(info: RequestInfo) -> tuple[Headers, Lines]:
    """Return the headers that name a version."""
    key = info.model, info.version, info.model_id
    named = _NAMED.get(key)
    if named is None:
        headers = [(name.encode(), value.encode()) for name, value in model_headers(info)]
        headers = [each for each in headers if each[0] in _OF_VERSION]
        named = headers, lines_of(headers)
        _NAMED.put(key, named)
    return named


def _make_info(scope: Scope) -> None:
    """Make what is known of a request."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    request_id, group_id = headers.get(_REQUEST_ID), headers.get(_GROUP_ID)
    info = scope[_KEY] = RequestInfo(
        method=scope["method"],
        path=scope["path"],
        request_id=(request_id and correlation_id(request_id.decode("latin-1"))) or new_request_id(),
        group_id=(group_id and correlation_id(group_id.decode("latin-1"))) or None,
    )
    info.headers = headers
    client = scope.get("client")
    info.client = client[0] if client is not None else None


def _ids(info: RequestInfo) -> Headers:
    """Return the headers that every answer has."""
    ids = [(_REQUEST_ID, info.request_id.encode())]
    if info.group_id is not None:
        ids.append((_GROUP_ID, info.group_id.encode()))
    return ids


def _lingering(receive: Receive, send: Send) -> Send:
    """Wrap ``send`` so that the connection closes only after the client had time to read the answer.

    Closing while the client still sends makes its kernel throw our answer away (RFC 9112 §9.6), so what it sends is
    read for a short while and dropped.
    """

    async def linger(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        await send({**message, "more_body": True})
        try:
            async with asyncio.timeout(_LINGER_S):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return linger


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
