"""What goes through a graph: bytes as they came, read only where an expression looks into them, and once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from marway.errors import ModelError, clip
from marway.wire.envelope import FORMS, ROWS_CONTENT_TYPE, Answer, Row, encode_rows, mime_type
from marway_gateway.transport.multipart import encode_fields
from marway_gateway.transport.reply import Reply
from marway_http.channel import HeaderBlock, header_block
from marway_http.tensors.rows import JSON
from marway_http.tensors.v2_to_message import HEADER_LENGTH

__all__ = [
    "Message",
    "Unreadable",
    "answer_of",
    "failure_of",
    "form_of",
    "message_of_answer",
    "message_of_reply",
    "null_message",
    "true_of",
]

_CONTENT_TYPE: Final = "content-type"
_UNSAID: Final = frozenset({"", "application/octet-stream", FORMS[0]})
"""Content types that say nothing of what a body is: curl calls all that it sends a form."""
_MESSAGE_MAX: Final = 1000
_MISSING: Final = object()


class Unreadable(Exception):
    """A message of which an expression can see nothing; the text says why."""


class Message:
    """What a node is given, or what it answered.

    Args:
        data: Its bytes, where it has them already.
        value: What the bytes mean, where that is known; one of both is given.
        content_type: Of the bytes; None where nobody said it.
        parts: The messages that it is made of, where it is an object of several.
        row: The row that it is, of a request of many; it travels as one, so that the model gets what it would get
            without a graph.
        header_length: Bytes of JSON in front of binary tensors (Open Inference Protocol); None without these.
        answer: The answer to a row that it is.
        block: The headers that came with it, for whoever passes it on.
        status: The status that it came with.

    Attributes:
        failed: Whether it stands for the answer of a node that failed and need not answer.
        tensors: Whether it is a request of the Open Inference Protocol, to be asked as that protocol asks.
    """

    __slots__ = (
        "_data",
        "_parts",
        "_value",
        "answer",
        "block",
        "content_type",
        "failed",
        "header_length",
        "row",
        "status",
        "tensors",
    )

    def __init__(
        self,
        data: bytes | None = None,
        *,
        value: Any = _MISSING,
        content_type: str | None = JSON,
        parts: Mapping[str, Message] | None = None,
        row: Row | None = None,
        header_length: int | None = None,
        answer: Answer | None = None,
        block: HeaderBlock | None = None,
        status: int = 200,
    ) -> None:
        self._data = data
        self._value = value
        self._parts = parts
        self.content_type = content_type
        self.row = row
        self.header_length = header_length
        self.answer = answer
        self.block = block
        self.status = status
        self.failed = False
        self.tensors = False

    @property
    def data(self) -> bytes:
        """Its bytes.

        Raises:
            Unreadable: It is an object of messages, and one of them is not JSON or text.
        """
        if self._data is None:
            if self.row is not None:
                self._data = encode_rows([self.row])
            elif self._parts is not None and self._value is _MISSING:
                self._data = b"{%b}" % b", ".join(
                    b"%b: %b" % (json.dumps(name).encode(), part.as_json()) for name, part in self._parts.items()
                )
            elif self.content_type is not None and self.content_type.startswith("text/"):
                self._data = self._value.encode(errors="surrogatepass")
            else:
                self._data = json.dumps(self._value, ensure_ascii=False, separators=(",", ":")).encode(
                    errors="surrogatepass"
                )
        return self._data

    @property
    def value(self) -> Any:
        """What it is to an expression: a JSON value; of another text, that text.

        Raises:
            Unreadable: It is neither.
        """
        if self._value is _MISSING:
            self._value = self._read()
        return self._value

    def as_json(self) -> bytes:
        """Return it as a JSON value; bytes that are called JSON are that, and not read for it.

        Raises:
            Unreadable: It is neither JSON nor text.
        """
        if self.row is None and mime_type(self.content_type).lower() == JSON:
            return self.data if self.header_length is None else self.data[: self.header_length]
        return json.dumps(self.value, ensure_ascii=False).encode(errors="surrogatepass")

    @property
    def headers(self) -> dict[str, str]:
        """Those that say what its bytes are."""
        if self.row is not None:
            return {_CONTENT_TYPE: ROWS_CONTENT_TYPE}
        content = {} if self.content_type is None else {_CONTENT_TYPE: self.content_type}
        if self.header_length is not None:
            content[HEADER_LENGTH] = str(self.header_length)
        return content

    def reply_block(self) -> HeaderBlock:
        """Return the headers of an answer that it is."""
        if self.block is not None:
            return self.block
        return header_block(
            [(name.encode(), value.encode("latin-1", "replace")) for name, value in self.headers.items()]
        )

    def _read(self) -> Any:
        if self._parts is not None:
            return {name: part.value for name, part in self._parts.items()}
        if self.row is not None:
            if self.row.is_raw:
                part = self.row.parts[0]
                return read(bytes(part.value), part.content_type or self.row.headers.get(_CONTENT_TYPE))
            return {part.name: read(bytes(part.value), part.content_type) for part in self.row.parts}
        assert self._data is not None
        if self.header_length is not None:
            return read(self._data[: self.header_length], JSON)
        return read(self._data, self.content_type)


def form_of(fields: Mapping[str, Message]) -> Message:
    """Return a form of answers, byte for byte: a handler finds each under its field's name, as bytes.

    Raises:
        Unreadable: An answer is an object of several, of which one is not JSON or text.
    """
    body, content_type = encode_fields({name: message.data for name, message in fields.items()})
    return Message(body, content_type=content_type)


def read(data: bytes, content_type: str | None) -> Any:
    """Return what bytes are to an expression.

    Raises:
        Unreadable: Neither JSON nor text.
    """
    kind = mime_type(content_type).lower()
    called_json = kind == JSON or kind.endswith("+json")
    if called_json or kind in _UNSAID:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as exc:
            if called_json:
                raise Unreadable(f"is called {kind}, and is no JSON: {clip(str(exc), 100)}") from None
    if kind in _UNSAID or kind.startswith("text/"):
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    raise Unreadable(f"is neither JSON nor text, but {kind or 'bytes without a content type'}")


def message_of_reply(reply: Reply, data: bytes) -> Message:
    """Return what a model answered."""
    content_type, header_length = None, None
    for name, value in reply.headers:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == HEADER_LENGTH.encode() and value.isdigit():
            header_length = int(value)
    return Message(
        data, content_type=content_type, header_length=header_length, block=reply.header_block, status=reply.status
    )


def message_of_answer(answer: Answer) -> Message:
    """Return what a model answered to a row."""
    content_type = answer.content_type or {"json": JSON, "text": "text/plain; charset=utf-8"}.get(answer.kind)
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.items()]
    if content_type is not None:
        headers.append((b"content-type", content_type.encode("latin-1", "replace")))
    return Message(
        bytes(answer.body),
        content_type=content_type,
        answer=answer,
        block=header_block(headers),
        status=answer.status,
    )


def answer_of(message: Message) -> Answer:
    """Return a message as the answer to a row.

    Raises:
        Unreadable: As `Message.data`.
    """
    if message.answer is not None:
        return message.answer
    kind = mime_type(message.content_type).lower()
    form = "json" if kind == JSON else "text" if kind.startswith("text/") else "bytes"
    return Answer(message.status, message.data, form, message.content_type)


def null_message() -> Message:
    """Return the answer of a node that failed and need not answer."""
    message = Message(value=None)
    message.failed = True
    return message


def true_of(value: Any) -> bool:
    """Return whether a value is true as JMESPath has it: a 0 is."""
    return not (value is None or value is False or (isinstance(value, str | list | dict) and not value))


def failure_of(message: Message, *, model: str | None, version: str | None) -> ModelError | None:
    """Return the error that an answer is, by its status; None where it is none."""
    answer = message.answer
    if message.status < 400 and (answer is None or answer.kind != "error"):
        return None
    status = message.status if 400 <= message.status <= 599 else 500
    try:
        content = message.value
    except Unreadable:
        content = message.data.decode(errors="replace")
    if isinstance(content, dict):
        content = next(
            (content[name] for name in ("error", "detail", "message") if isinstance(content.get(name), str)), content
        )
    text = content if isinstance(content, str) else json.dumps(content)
    return ModelError(
        clip(text, _MESSAGE_MAX) or f"the model answered with status {status}",
        status=status,
        model=model,
        version=version,
    )
