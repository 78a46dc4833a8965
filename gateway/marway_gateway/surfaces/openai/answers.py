"""A model's answer on its way back to a client of OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from starlette.types import Send

from marway.errors import MarwayError, ModelError
from marway.wire.envelope import mime_type
from marway_gateway.conversion.converters import Converters
from marway_gateway.predict.call import Answer
from marway_gateway.predict.cancel_scope import CancelScope
from marway_gateway.surfaces.answers import is_event_stream, stream_answer
from marway_gateway.surfaces.openai.asked import Asked
from marway_gateway.surfaces.openai.errors import Refused, error_document, passed_error
from marway_gateway.surfaces.openai.text_forms import TextForm, texts
from marway_gateway.surfaces.openai.usage import EventReader, renamed
from marway_http.channel import HeaderBlock, header_block

__all__ = ["Whole", "answer_of"]

_JSON: Final = b"application/json"


class Whole(NamedTuple):
    """A whole answer."""

    status: int
    headers: HeaderBlock
    body: bytes


async def answer_of(
    answer: Answer,
    asked: Asked,
    form: TextForm | None,
    *,
    hides_count: bool,
    convert: Converters,
    cancel_scope: CancelScope,
    send: Send,
    max_bytes: int,
) -> Whole | None:
    """Return what a model answered, for whoever sends it; None where it was streamed.

    A model server, or a handler, that speaks OpenAI's API itself gives events or JSON: they go on as they are, but for
    the `model`, which is what the caller asked for. The text of any other handler is put into a form.

    Args:
        answer: The model's.
        asked: What for.
        form: Of texts; None where the server speaks OpenAI's API.
        hides_count: Whether an event that does nothing but count tokens is for us alone.
        convert: Reads and writes large bodies.
        cancel_scope: The call's.
        send: Where a stream goes.
        max_bytes: The largest answer that is held in memory.

    Raises:
        Refused: The handler answers with one text, and the request wants more of it.
        ModelError: The answer is of no kind that the API has.
        DeadlineExceeded, Unavailable: It did not come whole.
    """
    status, info = answer.reply.status, answer.call.info
    kind = _kind_of(answer)
    if status < 400 and is_event_stream(answer):
        events = _renamed_events(answer, EventReader(asked.model, hides_count=hides_count))
        await stream_answer(answer, cancel_scope, send, events=events)
        return None
    if status < 400 and form is not None and kind != "application/json":
        if asked.beyond_text is not None:
            answer.close()
            raise Refused(
                f"`{asked.beyond_text}` is not taken by {info.model} {info.version}: its handler answers with one text",
                param=asked.beyond_text,
            )
        if asked.stream:
            await stream_answer(answer, cancel_scope, send, events=_text_events(answer, form))
            return None
    data = await answer.whole(max_bytes=max_bytes, too_large=f"the model's answer has more than {max_bytes} bytes")
    if status >= 400:
        body = passed_error(status, data)
    elif form is not None and kind != "application/json":
        body = await convert.run(len(data), _whole_text, form, data)
    else:
        body, info.tokens = await convert.run(len(data), renamed, data, asked.model)
        if form is not None and not _is_openai(body):
            raise ModelError(
                f"the handler of {info.model} {info.version} answered with JSON that is no completion: a text is "
                "wanted, or what OpenAI's API answers",
                model=info.model,
                version=info.version,
            )
    kept = [each for each in answer.reply.headers if each[0] != b"content-type"]
    return Whole(status, header_block([*kept, (b"content-type", _JSON)]), body)


async def _renamed_events(answer: Answer, reader: EventReader) -> AsyncIterator[bytes]:
    """Yield a server's own events with another model, and keep what they say of tokens."""
    info = answer.call.info
    try:
        if answer.reply.data is not None:
            yield reader.passed(answer.reply.data)
        else:
            async for chunk in answer.chunks():
                lines = reader.passed(chunk)
                info.tokens = reader.tokens
                if lines:
                    yield lines
        rest = reader.rest()
        info.tokens = reader.tokens
        if rest:
            yield rest
    except MarwayError as exc:
        info.failed(exc)
        yield _error_event(exc)


async def _text_events(answer: Answer, form: TextForm) -> AsyncIterator[bytes]:
    """Yield a handler's text as events."""
    try:
        first = form.first()
        if first:
            yield first
        async for text in texts(answer):
            yield form.piece(text)
        yield form.last()
    except MarwayError as exc:
        answer.call.info.failed(exc)
        yield _error_event(exc)


def _error_event(error: MarwayError) -> bytes:
    """Return the event by which OpenAI's clients learn that a stream broke off; it stands at the stream's end."""
    _, document = error_document(error)
    return b"data: %b\n\n" % document


def _whole_text(form: TextForm, data: bytes) -> bytes:
    return form.whole(data.decode(errors="replace"))


def _is_openai(body: bytes) -> bool:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and isinstance(document.get("choices"), list)


def _kind_of(answer: Answer) -> str:
    kinds = [value.decode("latin-1") for name, value in answer.reply.headers if name == b"content-type"]
    return mime_type(kinds[-1]).lower() if kinds else ""
