"""The text that a handler answers with, whole or in pieces, in the forms of chat completions and of completions."""

from __future__ import annotations

import codecs
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final

import orjson

from marway_gateway.predict.call import Answer
from marway_gateway.surfaces.answers import MAX_PIECE_BYTES

__all__ = ["DONE", "ChatForm", "CompletionForm", "TextForm", "event", "texts"]

DONE: Final = b"data: [DONE]\n\n"
"""The last event of a stream that came whole."""


def event(document: dict[str, Any]) -> bytes:
    """Return an event with a document."""
    return b"data: %b\n\n" % _json(document)


async def texts(answer: Answer) -> AsyncIterator[str]:
    """Yield the text of each piece of an answer; a character whose bytes are spread over two belongs to the second.

    Raises:
        DeadlineExceeded, Unavailable: As `Answer.pieces`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    if answer.reply.data is not None:
        yield decoder.decode(answer.reply.data)
    else:
        async for piece in answer.pieces(max_bytes=MAX_PIECE_BYTES):
            text = decoder.decode(piece)
            if text:
                yield text
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


class TextForm(ABC):
    """Writes one answer.

    No `usage` is part of it: how many tokens a text is, its handler knows alone.

    Args:
        model: Whom the request asked.
        request_id: The request's, which the answer's id is made of.
    """

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, model: str, request_id: str) -> None:
        self._shared = {"id": f"{self.prefix}-{request_id}", "created": int(time.time()), "model": model}

    def whole(self, text: str) -> bytes:
        """Return a whole answer."""
        return _json({**self._shared, "object": self.whole_object, "choices": [self._choice(text)]})

    def first(self) -> bytes:
        """Return what comes before the first piece; b"" for nothing."""
        return b""

    def piece(self, text: str) -> bytes:
        """Return the event for a piece of text."""
        return self._chunk(self._delta(text))

    def last(self) -> bytes:
        """Return what ends the answer."""
        return self._chunk(self._delta(None), "stop") + DONE

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, **delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._shared, "object": self.chunk_object, "choices": [choice]})

    @abstractmethod
    def _choice(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _delta(self, text: str | None) -> dict[str, Any]: ...


class ChatForm(TextForm):
    """`chat.completion` and `chat.completion.chunk`."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def first(self) -> bytes:
        return self._chunk({"delta": {"role": "assistant", "content": ""}})

    def _choice(self, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}

    def _delta(self, text: str | None) -> dict[str, Any]:
        return {"delta": {} if text is None else {"content": text}}


class CompletionForm(TextForm):
    """`text_completion`, whose events are called the same."""

    prefix = "cmpl"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def _choice(self, text: str) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}

    def _delta(self, text: str | None) -> dict[str, Any]:
        return {"text": text or ""}


def _json(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document)
