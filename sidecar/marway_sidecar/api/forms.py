"""Forms, as TorchServe's REST front end reads them: each field is an input of its name."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from marway.errors import InvalidRequest
from marway.wire.envelope import KEY, Part

__all__ = ["check_name", "fields_of"]

_MAX_FIELDS: Final = 1000
"""What a form costs, here and in the worker, goes by its fields and not by its bytes."""
_DECODED_BYTES: Final = 64 * 1024
_MULTIPART_BYTES: Final = 256 * 1024
_T = TypeVar("_T")
_DEFAULT_FILE_TYPE: Final = "application/octet-stream"

_FIELD_NAME: Final = re.compile(rb"[\w.\-\[\]%+*:@$~/\x80-\xff]+", re.ASCII)
"""What names of fields are made of, as they are sent: anything else in one is text that `curl -d` calls a form."""


def fields_of(kind: str, content_type: str, body: bytes) -> list[Part] | None:
    """Return the fields of a form, or None when the body is text that `curl -d 'some text'` calls a form.

    ``kind`` is one of `FORMS`: the content type without its parameters.

    Raises:
        InvalidRequest: It cannot be read or has too many fields, or one has a name that is kept for Marway.
    """
    multipart = kind == "multipart/form-data"
    fields = _multipart_fields(content_type, body) if multipart else _urlencoded_fields(body)
    for part in fields or ():
        check_name(part)
    return fields


def check_name(part: Part) -> None:
    """Refuse an input name that is kept for Marway."""
    if part.name == KEY:
        raise InvalidRequest(f"the input name {KEY!r} is kept for Marway: choose another")


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
