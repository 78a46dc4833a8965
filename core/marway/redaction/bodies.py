"""Takes fields out of bodies: JSON and forms. Of any other body there is no redacted form."""

from __future__ import annotations

import json
import re
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Any, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from marway.redaction.documents import Paths, names_of, redacted

__all__ = ["redacted_body"]

_FIELD_NAME: Final = re.compile(rb"[\w.\-\[\]%+*:@$~/\x80-\xff]+", re.ASCII)
_WITHIN: Final = re.compile(r"[\[\].]+")


class _Unreadable(Exception):
    """Nobody can say what a body holds."""


def redacted_body(data: bytes, content_type: str | None, paths: Paths) -> bytes | None:
    """Return a body without what paths lead to, or None where nobody can say what it holds.

    Args:
        data: The body.
        content_type: Its content type. What is JSON is read as such whatever is said here: `curl -d` calls all a form.
        paths: What is taken out.
    """
    if not data:
        return data
    try:
        if data.lstrip()[:1] not in (b"{", b"["):
            message = Message()
            message["content-type"] = content_type or ""
            kind = message.get_content_type()
            if kind == "application/x-www-form-urlencoded":
                return _form(data, paths)
            if kind == "multipart/form-data":
                return _multipart(data, message.get_param("boundary"), paths)
        return _json(data, paths)
    except (_Unreadable, RecursionError):
        return None


def _json(data: bytes, paths: Paths) -> bytes:
    try:
        document = json.loads(data)
    except ValueError as exc:
        raise _Unreadable from exc
    # Made anew even where nothing was found: of two fields of one name, which JSON allows, only the last was seen.
    return json.dumps(redacted(document, paths), ensure_ascii=False, separators=(",", ":")).encode(
        errors="surrogatepass"
    )


def _form(data: bytes, paths: Paths) -> bytes:
    kept = []
    for pair in data.split(b"&"):
        name, _, value = pair.partition(b"=")
        if not pair:
            continue
        if not _FIELD_NAME.fullmatch(name):
            raise _Unreadable  # text that `curl -d` calls a form
        text = unquote_to_bytes(name.replace(b"+", b" ")).decode(errors="replace")
        left = _field(text, unquote_to_bytes(value.replace(b"+", b" ")), paths)
        if left is not None:
            kept.append(name + b"=" + quote_from_bytes(left).encode())
    return b"&".join(kept)


def _multipart(data: bytes, boundary: Any, paths: Paths) -> bytes:
    if not isinstance(boundary, str) or not boundary:
        raise _Unreadable
    mark = b"\r\n--" + boundary.encode()
    _, *parts = (b"\r\n" + data).split(mark)
    kept = []
    for part in parts:
        if part.startswith(b"--"):
            break
        head, found, value = part.partition(b"\r\n\r\n")
        if not found:
            raise _Unreadable
        headers = BytesHeaderParser().parsebytes(head.lstrip(b"\r\n"))
        name = headers.get_param("name", header="content-disposition")
        if not isinstance(name, str) or headers.get("content-transfer-encoding", "binary").lower() == "base64":
            raise _Unreadable
        is_file = headers.get_filename() is not None or headers.get_content_maintype() not in ("text", "application")
        left = _field(unquote_to_bytes(name).decode(errors="replace"), value, paths, must_be_json=is_file)
        if left is not None:
            kept.append(mark + head + b"\r\n\r\n" + left)
    return b"".join(kept).removeprefix(b"\r\n") + (mark if kept else mark.removeprefix(b"\r\n")) + b"--\r\n"


def _field(name: str, value: bytes, paths: Paths, *, must_be_json: bool = False) -> bytes | None:
    """Return what is left of a form's field, or None where all of it is taken out.

    `user[email]` and `user.email` are taken for what `user.email` would be in JSON, by their last part.
    """
    if names_of(paths) & {name, *_WITHIN.split(name)}:
        return None
    try:
        document = json.loads(value)
    except ValueError:
        if must_be_json:
            raise _Unreadable from None
        try:
            document = value.decode()
        except UnicodeDecodeError:
            raise _Unreadable from None
        left = redacted({name: document}, paths).get(name)
        return None if left is None else value
    left = redacted({name: document}, paths)
    if name not in left:
        return None
    return json.dumps(left[name], ensure_ascii=False).encode(errors="surrogatepass")
