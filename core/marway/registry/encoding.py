"""Stored documents: each carries its own key and digest, so that a flipped bit or a mixed-up file is never believed.

The last field of a document is ``"integrity": {"key": K, "sha256": D}``. D is over the key, a line feed, and all bytes
before that field: whatever is between the store and its reader cannot change either without being found out. Documents
from before there was such a field are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from marway.errors import InvalidRecord, clip

__all__ = ["decode", "encode", "sealed", "unsealed"]

T = TypeVar("T", bound=BaseModel)

_FIELD: Final = b'\n "integrity": '
"""No string of a JSON document holds a line feed, and nothing but a field of the document itself has this indent."""
_SEAL: Final = re.compile(rb',\n "integrity": \{"key": ("(?:[^"\\]|\\.)*"), "sha256": "([0-9a-f]{64})"\}\n\}\s*\Z')
_END: Final = b"\n}"


def encode(value: BaseModel, *, key: str | None = None) -> bytes:
    """Return the JSON document that is stored, UTF-8, one field a line; without a ``key`` it has no `integrity`."""
    raw = value.model_dump(mode="json", by_alias=True)
    document = json.dumps(raw, indent=1, ensure_ascii=False).encode()
    return document if key is None else sealed(document, key=key)


def decode(kind: type[T], data: bytes, *, source: str) -> T:
    """Return the value of a kind in a JSON document, which was read from the key ``source``.

    Raises:
        InvalidRecord: It is not one, is damaged, or belongs under another key; the message says which.
    """
    try:
        return kind.model_validate_json(unsealed(data, key=source))
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidRecord(f"{source}: {field}: {clip(first['msg'], 200)}") from exc


def sealed(document: bytes, *, key: str) -> bytes:
    """Return a JSON document, one field a line, with the field that says which object it is and what it holds."""
    assert document.endswith(_END)
    body = document.removesuffix(_END)
    seal = json.dumps({"key": key, "sha256": _digest(key, body)}, ensure_ascii=False)
    return body + b"," + _FIELD + seal.encode() + _END


def unsealed(data: bytes, *, key: str) -> bytes:
    """Return a document without its `integrity`, which was checked; one that has none is returned as it is.

    Raises:
        InvalidRecord: Its bytes are not those that were written, or were written under another key.
    """
    start = data.rfind(_FIELD)
    if start < 0:
        return data
    seal = _SEAL.match(data, start - 1)
    if seal is None:
        raise _damaged(key, "its field 'integrity' cannot be read")
    body = data[: start - 1]
    if seal[2].decode() != _digest(key, body):
        try:
            written_as = str(json.loads(seal[1]))
        except ValueError:
            written_as = key
        if written_as != key:
            raise _damaged(key, f"it holds what was written as {clip(written_as, 200)}")
        raise _damaged(key, "its bytes are not those that were written")
    return body + _END


def _digest(key: str, body: bytes) -> str:
    return hashlib.sha256(key.encode() + b"\n" + body).hexdigest()


def _damaged(key: str, what: str) -> InvalidRecord:
    return InvalidRecord(f"{key} is damaged: {what}; `marway gc --scrub` says what else is, and how it is mended")
