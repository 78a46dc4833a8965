"""Request bodies that come compressed (`Content-Encoding`): decoded as they stream through, a bounded piece at a time.

Handlers and protocols read bodies as they are, so that no pod has to know of it. Limits count decoded bytes: a body of
some kilobytes that would become gigabytes is refused once it has become one byte too many.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Final

from marway.errors import InvalidRequest, UnsupportedMedia, clip
from marway_gateway.http.body import Read

__all__ = ["coding_of", "decoded"]

_PIECE_BYTES: Final = 256 * 1024
"""The most that is decoded at once: less than a millisecond's work."""
_GZIP_BITS: Final = 31
_ZLIB_BITS: Final = 15
_RAW_BITS: Final = -15
_CODINGS: Final = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


def coding_of(header: bytes | None) -> str | None:
    """Return how a body is coded by its `Content-Encoding`: `gzip`, `deflate`, or None where it is not.

    Raises:
        UnsupportedMedia: In another way, or in several.
    """
    if header is None:
        return None
    name = header.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return None
    coding = _CODINGS.get(name)
    if coding is None:
        raise UnsupportedMedia(
            f"the Content-Encoding {clip(name, 40)!r} is not taken: send the body as it is, or as gzip or deflate"
        )
    return coding


def decoded(read: Read, coding: str) -> Read:
    """Return what gives the decoded body of a coded one piece by piece.

    Args:
        read: Gives the coded one's.
        coding: As `coding_of` has it. What calls itself deflate may have zlib's wrapper, as RFC 9110 wants it, or none.
    """
    pieces = _decoded(read, coding)

    async def read_decoded() -> bytes:
        return await anext(pieces, b"")

    return read_decoded


async def _decoded(read: Read, coding: str) -> AsyncIterator[bytes]:
    data, bits = await read(), _GZIP_BITS
    if coding != "gzip":
        while len(data) < 2 and (more := await read()):
            data += more
        wrapped = len(data) >= 2 and data[0] & 15 == 8 and (data[0] * 256 + data[1]) % 31 == 0
        bits = _ZLIB_BITS if wrapped else _RAW_BITS
    if not data:
        return  # a body without a byte is none, whatever it is called
    decoder = zlib.decompressobj(bits)
    while data or not decoder.eof:
        if decoder.eof:
            if coding != "gzip":
                raise InvalidRequest(f"there is something behind the body's {coding} data")
            decoder = zlib.decompressobj(bits)  # gzip data may have several members (RFC 1952 §2.2)
        try:
            piece = decoder.decompress(data, _PIECE_BYTES)
        except zlib.error as exc:
            raise InvalidRequest(f"the body is not {coding} data, which its Content-Encoding says it is") from exc
        if not (data or piece or decoder.eof):
            raise InvalidRequest(f"the body ends before its {coding} data does")
        if piece:
            yield piece
        data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        if data:
            await asyncio.sleep(0)  # much may come of little: others have their turn
        else:
            data = await read()
