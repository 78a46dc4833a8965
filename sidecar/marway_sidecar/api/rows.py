"""From a request to the rows that a handler sees: one, as TorchServe's REST front end would have built it, or many.

Many come in an envelope, in which a gateway sends what one request of a tensor protocol holds.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Coroutine, Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar
from urllib.parse import unquote, unquote_to_bytes

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from marway.errors import InvalidRequest
from marway.wire.envelope import FORMS, KEY, RAW_BODY, ROWS_CONTENT_TYPE, ROWS_MAX, Part, Row, decode_rows, mime_type
from marway.wire.headers import (
    CREDENTIALS,
    EXPLAIN,
    FRONT_ENDS_OWN,
    HOP_BY_HOP,
    JSON_NONFINITE,
    OWN_PREFIX,
    REQUEST_ID,
    REQUEST_TIMEOUT_MS,
    TRACEPARENT,
    TRACESTATE,
    URL_PATH,
)
from marway.wire.request import RequestIds

__all__ = ["INLINE_BYTES", "holds_rows", "row_of", "rows_of"]

INLINE_BYTES: Final = 64 * 1024
"""A form up to this size is read where it is, within a millisecond or few; a larger one belongs in a thread."""
_MAX_FIELDS: Final = 1000
"""What a form costs, here and in the worker, goes by its fields and not by its bytes."""
_DECODED_BYTES: Final = 64 * 1024
_MULTIPART_BYTES: Final = 256 * 1024
_T = TypeVar("_T")
_NOT_PASSED: Final = HOP_BY_HOP | CREDENTIALS | FRONT_ENDS_OWN | {REQUEST_TIMEOUT_MS, TRACEPARENT, TRACESTATE}
_CONTENT_TYPE_MAX: Final = 200
_DEFAULT_FILE_TYPE: Final = "application/octet-stream"

_FIELD_NAME: Final = re.compile(rb"[\w.\-\[\]%+*:@$~/\x80-\xff]+", re.ASCII)
"""What names of fields are made of, as they are sent: anything else in one is text that `curl -d` calls a form."""


def row_of(headers: Mapping[str, str], body: bytes, ids: RequestIds) -> Row:
    """Return the row for a request: the raw body under `data`, or each field of a form under its name.

    A large form takes a while: not on the event loop.

    Args:
        headers: The request's, names in lower case.
        body: Its body.
        ids: Its ids, as `read_ids` found them in ``headers``.

    Raises:
        InvalidRequest: A form that cannot be read or has too many fields, or an input name that is kept for Marway.
    """
    content_type = headers.get("content-type")
    kind = _kind_of(content_type)
    if kind not in FORMS:
        return Row(ids.request_id, [Part(RAW_BODY, body, content_type)], _passed_headers(headers, ids))
    assert content_type is not None
    if kind == "multipart/form-data":
        fields = _multipart_fields(content_type, body)
    else:
        fields = _urlencoded_fields(body) or [Part(RAW_BODY, body, content_type)]
    for part in fields:
        _check_name(part)
    return Row(ids.request_id, fields, _passed_headers(headers, ids))


def holds_rows(content_type: str | None) -> bool:
    """Return whether a body of this content type is an envelope of rows."""
    return _kind_of(content_type) == ROWS_CONTENT_TYPE


def rows_of(headers: Mapping[str, str], body: bytes, ids: RequestIds) -> list[Row]:
    """Return the rows of an envelope, with the request's ``headers`` beside their own.

    Whoever sent it: a row gets here what a request of its own would have got, and nothing else.

    Args:
        headers: The request's, names in lower case.
        body: The envelope.
        ids: The request's ids.

    Raises:
        InvalidRequest: It is no envelope, holds no rows or too many, or one that no request could have made.
    """
    try:
        sent = decode_rows(body)
    except ValueError as exc:
        raise InvalidRequest(f"the body is no envelope of rows: {exc}") from exc
    if not 1 <= len(sent) <= ROWS_MAX:
        raise InvalidRequest(f"the envelope holds {len(sent)} rows: send 1 to {ROWS_MAX}")
    shared = _passed_headers(headers, ids)
    for of_the_envelope in ("content-type", "content-length"):
        shared.pop(of_the_envelope, None)
    shared[JSON_NONFINITE] = "allow"  # whether the protocol has such numbers, whoever sent the envelope knows
    rows = []
    for index, row in enumerate(sent):
        if row.stream:
            raise InvalidRequest(f"row {index} asks for a stream: rows that stream come alone, each as its own request")
        if not row.parts:
            raise InvalidRequest(f"row {index} has no parts")
        for part in row.parts:
            _check_name(part)
            _check_content_type(part.content_type, index)
        content_type = row.headers.get("content-type")
        _check_content_type(content_type, index)
        own = dict(shared) if content_type is None else {**shared, "content-type": content_type}
        rows.append(Row(ids.request_id if len(sent) == 1 else f"{ids.request_id}/{index}", row.parts, own))
    return rows


@lru_cache(maxsize=256)
def _kind_of(content_type: str | None) -> str:
    return mime_type(content_type).lower()


def _check_name(part: Part) -> None:
    if part.name == KEY:
        raise InvalidRequest(f"the input name {KEY!r} is kept for Marway: choose another")


def _check_content_type(text: str | None, index: int) -> None:
    if text is not None and not (text.isascii() and text.isprintable() and len(text) <= _CONTENT_TYPE_MAX):
        raise InvalidRequest(f"row {index} has a content type that no header could carry")


def _passed_headers(headers: Mapping[str, str], ids: RequestIds) -> dict[str, str]:
    """Return the request's headers that a handler may see, names in lower case."""
    passed = {
        name: value for name, value in headers.items() if name not in _NOT_PASSED and not name.startswith(OWN_PREFIX)
    }
    passed[REQUEST_ID] = ids.request_id
    if ids.traceparent is not None:
        passed[TRACEPARENT] = ids.traceparent
    if ids.tracestate is not None:
        passed[TRACESTATE] = ids.tracestate
    if headers.get(EXPLAIN) == "1":
        passed["explain"] = "True"
    if URL_PATH in headers:
        passed["url_path"] = unquote(headers[URL_PATH])
    return passed


def _urlencoded_fields(body: bytes) -> list[Part] | None:
    """Return the fields of a form, or None when the body is text that `curl -d 'some text'` calls a form.

    A form is `name=value` pairs joined by `&`, in one line, with names that fields have. What TorchServe's decoder
    makes of one is kept to: values may be empty and hold any bytes, a name without `=` is a field with an empty value,
    and is left out as the last. It takes any other body for a form too, and loses what is none: of 'some text' all.
    """
    if b"=" not in body or b"\r" in body or b"\n" in body:
        return None
    if body.count(b"&") >= _MAX_FIELDS:
        raise InvalidRequest(
            f"the form has more than {_MAX_FIELDS} fields: send fewer, or what is no form under its own content type, "
            "such as text/plain"
        )
    pairs = [pair.partition(b"=") for pair in body.split(b"&")]
    if not pairs[-1][1]:
        last, *_ = pairs.pop()
        if last and not _is_field_name(last):
            return None
    # TorchServe fails on a pair that is empty, as in `a=1&&b=2`; browsers' decoders pass over it.
    pairs = [pair for pair in pairs if any(pair)]
    # One pair after the other, in steps that are each as fast as copying: a pattern for all of a body is not.
    if not pairs or not all(_is_field_name(name) for name, _, _ in pairs):
        return None
    return [Part(_decoded(name).decode(errors="replace"), _decoded(value)) for name, _, value in pairs]


def _is_field_name(name: bytes) -> bool:
    return len(name) <= _DECODED_BYTES and _FIELD_NAME.fullmatch(name) is not None


def _decoded(data: bytes) -> bytes:
    """Return a name or a value without its escapes, in pieces: other threads get their turn between them."""
    data = data.replace(b"+", b" ")
    if b"%" not in data:
        return data
    pieces = []
    start = 0
    while start < len(data):
        end = start + _DECODED_BYTES
        escape = data.rfind(b"%", end - 2, end)
        if escape != -1:
            end = escape  # whole in the next piece
        pieces.append(unquote_to_bytes(data[start:end]))
        start = end
    return b"".join(pieces)


def _multipart_fields(content_type: str, body: bytes) -> list[Part]:
    async def pieces() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), _MULTIPART_BYTES):
            yield body[start : start + _MULTIPART_BYTES]

    # Read as Latin-1, which keeps every byte: a field may hold an image as well as text.
    headers = Headers({"content-type": f"{content_type}; charset=latin-1"})
    parser = MultiPartParser(headers, pieces(), max_files=_MAX_FIELDS, max_fields=_MAX_FIELDS, max_part_size=len(body))
    parser.spool_max_size = len(body) + 1  # in memory, where the bytes are already; a file would want an event loop
    try:
        form = _run(parser.parse())
    except (MultiPartException, KeyError) as exc:
        raise InvalidRequest(f"the multipart body cannot be read: {exc}") from exc
    parts = []
    try:
        for latin, value in form.multi_items():
            name = latin.encode("latin-1").decode(errors="replace")
            if isinstance(value, UploadFile):
                parts.append(Part(name, value.file.read(), value.content_type or _DEFAULT_FILE_TYPE))
            else:
                parts.append(Part(name, value.encode("latin-1"), None))
    finally:
        _run(form.close())
    if not parts:
        raise InvalidRequest("the multipart body has no fields: send at least one, such as curl -F data=@FILE URL")
    return parts


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return what a coroutine returns that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        returned: _T = done.value
        return returned
    coroutine.close()
    raise RuntimeError("it waits for something")
