"""Named inputs as one multipart body (RFC 7578), the form in which a pod takes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from marway.errors import InvalidRequest, clip

__all__ = ["encode_fields"]

_UNSAFE = re.compile(r'[\x00-\x1f"\\\x7f-\uffff]')


def encode_fields(fields: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Return the body and its content type: the same for the same fields, whatever their order.

    Raises:
        InvalidRequest: A name has other than plain ASCII characters.
    """
    boundary = _boundary(fields)
    parts: list[bytes] = []
    for name, value in sorted(fields.items()):
        if not name or _UNSAFE.search(name):
            raise InvalidRequest(f"the input name {clip(name, 80)!r} cannot be used: plain ASCII without quotes can")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts += (head.encode(), value, b"\r\n")
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def _boundary(fields: Mapping[str, bytes]) -> str:
    """Return a digest of the fields, which no field can be made to hold, and which a cache sees again."""
    digest = hashlib.sha256()
    for name, value in sorted(fields.items()):
        for part in (name.encode(errors="replace"), value):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return f"marway-{digest.hexdigest()[:48]}"
