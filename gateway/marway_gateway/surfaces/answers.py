"""A model's answer that streams, over HTTP: as it comes, or as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import Send

from marway.errors import DeadlineExceeded, MarwayError
from marway.wire.problems import problem_of
from marway_gateway.http.error_bodies import error_body
from marway_gateway.http.requests import model_headers
from marway_gateway.http.server_sent_events import EVENT_STREAM, EventStream, wants_events
from marway_gateway.predict.call import Answer
from marway_gateway.predict.cancel_scope import CancelScope
from marway_http.eager import in_task

__all__ = ["MAX_PIECE_BYTES", "is_event_stream", "stream_answer"]

MAX_PIECE_BYTES: Final = 16 * 1024 * 1024
"""The largest piece that is held in memory to become one event or message. More than model servers let through."""

_LAST_WORD_S: Final = 1.0
"""Time beyond the deadline for the event that says that it passed."""
_BODY: Final = "http.response.body"
_OF_EVENTS: Final = {b"content-type": EVENT_STREAM.encode(), b"cache-control": b"no-cache"}


async def stream_answer(
    answer: Answer, cancel_scope: CancelScope, send: Send, *, events: AsyncIterator[bytes] | None = None
) -> None:
    """Pass an answer on piece by piece, and let go of its pod.

    The pieces go out as events where the caller accepts them and the handler made none itself, otherwise as the
    chunks of one body; a protocol with events of its own gives ``events``, which read the answer. The scope ends this
    when the client leaves; it is closed before the last message, from which on there is nothing left to cancel.

    Raises:
        DeadlineExceeded, Unavailable: The answer broke off; what was sent of it is no whole body.
    """
    cancel_scope.end_deadline()
    reply, info = answer.reply, answer.call.info
    info.bodies = "streamed" if answer.in_pieces or events is not None else "too_large"
    try:
        headers = [*reply.headers, *((name.encode(), value.encode()) for name, value in model_headers(info))]
        accept = info.headers.get(b"accept", b"").decode("latin-1")
        await in_task()
        pieces = answer.chunks()
        if events is None and reply.content_length is None and wants_events(accept) and not is_event_stream(answer):
            events = _events(answer)
        if events is not None:
            headers = [(name, value) for name, value in headers if name not in _OF_EVENTS]
            headers += _OF_EVENTS.items()
            pieces = events
        elif reply.content_length is not None:
            headers.append((b"content-length", b"%d" % reply.content_length))
        # A client that reads too slowly holds the model up, and must not do so beyond the deadline.
        async with asyncio.timeout(answer.call.deadline.left_s() + _LAST_WORD_S):
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            async for piece in pieces:
                await send({"type": _BODY, "body": piece, "more_body": True})
    except TimeoutError as exc:
        raise DeadlineExceeded(
            "the deadline passed before the last piece of the answer was read", model=info.model, version=info.version
        ) from exc
    finally:
        answer.close()
    cancel_scope.close()
    await send({"type": _BODY, "body": b"", "more_body": False})


async def _events(answer: Answer) -> AsyncIterator[bytes]:
    """Yield the answer as events; that it broke off is the last of them."""
    events, info = EventStream(), answer.call.info
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


def is_event_stream(answer: Answer) -> bool:
    """Return whether an answer is made of events already."""
    return any(
        name == b"content-type" and value.decode("latin-1").partition(";")[0].strip().lower() == EVENT_STREAM
        for name, value in answer.reply.headers
    )
