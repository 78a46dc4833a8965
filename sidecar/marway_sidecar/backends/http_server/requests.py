"""What a row is as an HTTP request, and an HTTP answer as ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from uuid import uuid4

from marway.errors import InvalidRequest, Unimplemented
from marway.wire.envelope import FORMS, Bytes, Part, Row, mime_type
from marway.wire.headers import FRONT_ENDS_OWN, HOP_BY_HOP, OWN_PREFIX

__all__ = ["Body", "body_of", "headers_of", "kind_of", "own_headers", "with_model"]

_NOT_SENT: Final = HOP_BY_HOP | FRONT_ENDS_OWN | {"accept-encoding", "content-length", "content-type", "expect", "host"}
_SERVERS_OWN: Final = HOP_BY_HOP | {"content-length", "content-type", "date", "server"}
_INLINE_BYTES: Final = 256 * 1024
"""JSON up to here is read on the event loop, which it holds up for about a millisecond."""
_PIECE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request, in pieces, and its content type."""

    pieces: Sequence[Bytes]
    content_type: str | None

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(map(len, self.pieces))

    def sent(self) -> bytes | AsyncIterator[bytes]:
        """Return it as aiohttp takes it: a large one in pieces, so that writing it does not hold the event loop up."""
        return b"".join(self.pieces) if self.size <= _PIECE_BYTES else self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            view = memoryview(piece)
            for at in range(0, len(view), _PIECE_BYTES):
                yield bytes(view[at : at + _PIECE_BYTES])


def body_of(row: Row) -> Body:
    """Return the body of the request for a row: a raw one as it is, a form as one of its kind.

    Raises:
        Unimplemented: The row asks for an explanation or a description, which HTTP servers have no common way of.
    """
    if row.explains or row.headers.get("describe") == "True":
        what = "an explanation" if row.explains else "a description"
        raise Unimplemented(f"the model server is asked over HTTP, which has no call for {what} of a model")
    if row.is_raw:
        (part,) = row.parts
        return Body([part.value], part.content_type)
    if mime_type(row.headers.get("content-type")).lower() == FORMS[0]:
        text = urlencode([(part.name, bytes(part.value)) for part in row.parts])
        return Body([text.encode()], FORMS[0])
    return _multipart(row.parts)


def headers_of(row: Row) -> dict[str, str]:
    """Return the headers of a row that go to the server; the client of it sets those of the body."""
    return {
        name: value for name, value in row.headers.items() if name not in _NOT_SENT and not name.startswith(OWN_PREFIX)
    }


def own_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a server's answer that are passed on; of several with one name the last."""
    return {name: value for name, value in headers.items() if name.lower() not in _SERVERS_OWN}


def kind_of(content_type: str | None) -> str:
    """Return of which kind an answer of this content type is."""
    mime = mime_type(content_type).lower()
    if mime == "application/json" or mime.endswith("+json"):
        return "json"
    return "text" if mime.startswith("text/") else "bytes"


async def with_model(body: Body, model: str) -> Body:
    """Return the body of a call of OpenAI's API for another model.

    Raises:
        InvalidRequest: It is no JSON object.
    """
    data = b"".join(body.pieces)
    if len(data) <= _INLINE_BYTES:
        return Body([_renamed(data, model)], "application/json")
    return Body([await asyncio.to_thread(_renamed, data, model)], "application/json")


def _renamed(data: bytes, model: str) -> bytes:
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest("the request is no JSON, which OpenAI's API takes") from exc
    if not isinstance(document, dict):
        raise InvalidRequest("the request is no JSON object, which OpenAI's API takes")
    return json.dumps({**document, "model": model}, ensure_ascii=False, separators=(",", ":")).encode(
        errors="surrogatepass"
    )


def _multipart(parts: Sequence[Part]) -> Body:
    """Return a form (RFC 7578). File names are not known any more; a part that has a content type keeps it."""
    boundary = uuid4().hex
    pieces: list[Bytes] = []
    for part in parts:
        name = part.name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n'
        if part.content_type:
            head += f"content-type: {part.content_type}\r\n"
        pieces += (f"{head}\r\n".encode(), part.value, b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    return Body(pieces, f"multipart/form-data; boundary={boundary}")
