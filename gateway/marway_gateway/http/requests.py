"""What all HTTP requests to the gateway share: ids in and out, errors as problem documents, one report each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marway.errors import BodyTooLarge, Draining, MarwayError, clip, forget_frames
from marway.wire import headers as wire
from marway.wire.problems import Problem, problem_of
from marway.wire.request import ids_of
from marway_gateway.http.error_bodies import error_body, surface_of
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_http.channel import Channel, ClientGone, HeaderBlock, header_block
from marway_http.eager import in_task

__all__ = [
    "RequestLayer",
    "model_headers",
    "request_info",
    "send_problem",
    "send_whole",
]

_KEY: Final = "marway.request"
_REQUEST_ID: Final = wire.REQUEST_ID.encode()
_GROUP_ID: Final = wire.REQUEST_GROUP_ID.encode()
_NO_BODY: Final = frozenset({204, 304})
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
    raw = [
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

    def __init__(self, app: ASGIApp, *, telemetry: Callable[[], Telemetry]) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
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
            await self._app(scope, receive, send_with_ids)
        except ClientGone as exc:
            info.outcome = "cancelled"
            forget_frames(exc)
        except MarwayError as exc:
            info.failed(exc)
            forget_frames(exc)
            await self._refuse(exc, info, receive, send_with_ids)
        except asyncio.CancelledError:
            # Only the server cancels requests here, when its time to drain is over.
            info.outcome = "cancelled"
            if info.status is not None:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
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
            await in_task()
            send = _lingering(receive, send)
        await send_problem(send, problem, headers, surface=info.surface or surface_of(info.path))


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
    if info.group_id is not None:
        text += b"x-request-group-id: %b\r\n" % info.group_id.encode()
        number += 1
    if info.cache is not None:
        text += b"x-cache: %b\r\n" % info.cache.encode()
        number += 1
    if status not in _NO_BODY:
        text += b"content-length: %d\r\n" % len(body)
        number += 1
    await channel.answer(status, HeaderBlock(text, number), body)
    info.status = status
    info.response_bytes = len(body)


def model_headers(info: RequestInfo) -> list[tuple[str, str]]:
    """Return the headers that say what a predict request resolved to and where its time went."""
    if info.surface is None:
        return []
    headers = [(wire.SERVER_TIMING, info.server_timing()), *_of_version(info.model, info.version, info.model_id)]
    if info.cache is not None:
        headers.append((wire.CACHE, info.cache))
    return headers


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
