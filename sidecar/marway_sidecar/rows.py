"""From an HTTP request to the row that a handler sees, as TorchServe's REST front end would have built it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from marway.errors import BodyTooLarge, InvalidRequest
from marway.wire.envelope import KEY, Part, Row

__all__ = ["read_body", "row_of"]

_RAW_BODY_NAME = "data"
_MAX_FIELDS = 1000
_PASSED_HEADERS = frozenset({"accept", "content-type", "traceparent", "x-request-group-id", "x-request-id"})


async def read_body(request: Request, *, limit: int) -> bytes:
    """Return the whole body.

    Raises:
        BodyTooLarge: It has more than ``limit`` bytes; the rest was not read.
        InvalidRequest: It is empty.
    """
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise BodyTooLarge(f"the body has more than {limit} bytes, which is the limit: send less at once")
        pieces.append(piece)
    if size == 0:
        raise InvalidRequest("the request has no body: send the model's input, such as curl -d 'some text' URL")
    return b"".join(pieces)


async def row_of(request: Request, body: bytes, *, request_id: str) -> Row:
    """Return the row for a request: the raw body under `data`, or each field of a form under its name.

    Raises:
        InvalidRequest: A form that cannot be read, or an input name that is kept for Marway.
    """
    content_type = request.headers.get("content-type")
    # Only multipart has fields here: `curl -d 'some text'` calls any text a urlencoded form.
    if (content_type or "").partition(";")[0].strip().lower() == "multipart/form-data":
        parts = await _form_parts(request, body)
    else:
        parts = [Part(_RAW_BODY_NAME, body, content_type)]
    if any(part.name == KEY for part in parts):
        raise InvalidRequest(f"the input name {KEY!r} is kept for Marway: choose another")
    headers = {name: value for name, value in request.headers.items() if name in _PASSED_HEADERS}
    return Row(request_id, parts, headers)


async def _form_parts(request: Request, body: bytes) -> list[Part]:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers, pieces(), max_files=_MAX_FIELDS, max_fields=_MAX_FIELDS, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as exc:
        raise InvalidRequest(f"the multipart body cannot be read: {exc}") from exc
    parts = []
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                parts.append(Part(name, await value.read(), value.content_type))
            else:
                parts.append(Part(name, value.encode(), None))
    finally:
        await form.close()
    if not parts:
        raise InvalidRequest("the multipart body has no fields: send at least one, such as curl -F data=@FILE URL")
    return parts
