"""A model's answer over HTTP: whole, as it comes, or as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from starlette.types import Message, Receive, Send

from marway.errors import DeadlineExceeded, MarwayError
from marway.wire.problems import problem_of
from marway_gateway.http.client_watch import ClientWatch, Watches
from marway_gateway.http.error_bodies import error_body
from marway_gateway.http.requests import model_lines, raw_model_headers
from marway_gateway.http.server_sent_events import EVENT_STREAM, EventStream, wants_events
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.predict.call import Answer, PredictCall
from marway_gateway.predict.reply import Headers, Lines

__all__ = ["MAX_PIECE_BYTES", "answer_in_time", "send_answer", "whole_headers", "whole_lines"]

MAX_PIECE_BYTES: Final = 16 * 1024 * 1024
"""The largest piece that is held in memory to become one event or message. More than model servers let through."""

_LAST_WORD_S: Final = 1.0
"""Time beyond the deadline for the event that says that it passed."""
_BODY: Final = "http.response.body"


async def answer_in_time(
    asking: Awaitable[Answer], call: PredictCall, watches: Watches, receive: Receive, send: Send
) -> None:
    """Wait for an answer and pass it on, as long as the client is there and the answer comes within the deadline.

    Raises:
        ClientGone: The client left.
        MarwayError: There is no answer, or not in time.
    """
    accept = call.info.headers.get(b"accept")
    with ClientWatch(watches, receive, call.body, call) as client:
        answer = await asking
        client.in_time()
        try:
            text = None if accept is None else accept.decode("latin-1")
            await send_answer(answer, call.info, send, accept=text, last=client.stop)
        finally:
            answer.close()


async def send_answer(
    answer: Answer, info: RequestInfo, send: Send, *, accept: str | None, last: Callable[[], object]
) -> None:
    """Pass an answer on.

    An answer in pieces goes out piece by piece: as events where the caller accepts them and the handler made none
    itself, otherwise as the chunks of one body.

    Args:
        answer: What the model said.
        info: The request.
        send: The ASGI channel.
        accept: The caller's `Accept`.
        last: Called before the last message, from which on there is nothing left to cancel.

    Raises:
        DeadlineExceeded, Unavailable: The answer broke off; what was sent of it is no whole body.
    """
    if answer.data is not None:
        last()
        headers = whole_headers(answer, answer.data, info)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": _BODY, "body": answer.data, "more_body": False})
        return
    headers = [*answer.headers, *raw_model_headers(info)]
    start: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
    pieces = answer.chunks()
    if answer.content_length is not None:
        headers.append((b"content-length", str(answer.content_length).encode()))
    elif wants_events(accept) and not _is_event_stream(answer):
        start["headers"] = [(name, value) for name, value in headers if name != b"content-type"]
        start["headers"] += [(b"content-type", EVENT_STREAM.encode()), (b"cache-control", b"no-cache")]
        pieces = _events(answer, info)
    try:
        # A client that reads too slowly holds the model up, and must not do so beyond the deadline.
        async with asyncio.timeout(answer.time_left_s + _LAST_WORD_S):
            await send(start)
            async for piece in pieces:
                await send({"type": _BODY, "body": piece, "more_body": True})
    except TimeoutError as exc:
        raise DeadlineExceeded(
            "the deadline passed before the last piece of the answer was read", model=info.model, version=info.version
        ) from exc
    last()
    await send({"type": _BODY, "body": b"", "more_body": False})


def whole_headers(answer: Answer, body: bytes, info: RequestInfo) -> Headers:
    """Return the headers of an answer that is whole."""
    headers = [*answer.headers, *raw_model_headers(info)]
    if answer.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))
    return headers


def whole_lines(answer: Answer, body: bytes, info: RequestInfo) -> Lines:
    """Return `whole_headers` as they go out."""
    own, more = answer.lines, model_lines(info)
    if answer.status in (204, 304):
        return Lines(own.text + more.text, own.number + more.number)
    text = b"%b%bcontent-length: %d\r\n" % (own.text, more.text, len(body))
    return Lines(text, own.number + more.number + 1)


async def _events(answer: Answer, info: RequestInfo) -> AsyncIterator[bytes]:
    """Yield the answer as events; that it broke off is the last of them."""
    events = EventStream()
    try:
        async for piece in answer.pieces(max_bytes=MAX_PIECE_BYTES):
            event = events.piece(piece)
            if event:
                yield event
    except MarwayError as exc:
        info.failed(exc)
        problem, _ = problem_of(exc, request_id=info.request_id)
        document, _ = error_body(info.surface, problem)
        yield events.error(document)
    else:
        yield events.end()


def _is_event_stream(answer: Answer) -> bool:
    return any(
        name == b"content-type" and value.decode("latin-1").partition(";")[0].strip().lower() == EVENT_STREAM
        for name, value in answer.headers
    )
