"""Frames: many predictions at once over one connection from a gateway to a sidecar.

HTTP/1.1 has one request on a connection at a time, so that each prediction costs both ends a read and a write of its
own and the parsing of its head. Over frames, all that is sent in one turn of an event loop travels in one write, and
answers come back as they are ready, in any order. A connection changes to frames by HTTP's upgrade (RFC 9110 §7.8):
`GET /frames` with `Upgrade: marway-frames/1`. Whoever does not know them, a proxy or an older sidecar, answers in
another way than with 101, and predictions go over HTTP, as those do that frames are not made for: large or streamed.

A frame is a header of 16 bytes, big-endian, with a head and a body behind it:

| bytes | what |
|---|---|
| 4 | bytes of head and body together |
| 4 | the request's id, chosen by the gateway |
| 4 | bytes of the head |
| 2 | an answer's HTTP status; 0 in other frames |
| 1 | what kind of frame it is, one of `Kind` |
| 1 | 0 |

An answer whose body is larger than `PART_BYTES` goes on in parts, of which a sidecar sends no more than `WINDOW_PARTS`
before the gateway asks for more (`Kind.WINDOW_UPDATE`): a slow client neither holds the others up nor costs memory.
"""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import Final

__all__ = [
    "HEADER",
    "HEAD_BYTES_MAX",
    "PART_BYTES",
    "PATH",
    "REQUEST_BYTES_MAX",
    "UPGRADE",
    "WINDOW_PARTS",
    "BadFrames",
    "Frame",
    "FrameReader",
    "FrameWriter",
    "Kind",
    "frame_header",
]

UPGRADE: Final = "marway-frames/1"
"""The protocol's name in `Upgrade`."""
PATH: Final = "/frames"
REQUEST_BYTES_MAX: Final = 64 * 1024
"""The largest body of a request; larger ones would hold the others up, and go over HTTP."""
HEAD_BYTES_MAX: Final = 64 * 1024
PART_BYTES: Final = 64 * 1024
"""The most of a body that is in one frame."""
WINDOW_PARTS: Final = 4
"""So many parts of an answer are sent unasked, the first with its head."""

HEADER: Final = Struct("!IIIHBx")
_HEADER_BYTES: Final = HEADER.size


class Kind:
    """What frames there are."""

    REQUEST: Final = 1
    """To a sidecar. Head: the path, and headers as in HTTP/1.1, a line each with CR LF at its end."""
    ANSWER: Final = 2
    """To a gateway. Head: headers as in a request, those that many answers have alike in front of an empty line, where
    there are such; `content-length` says whether parts follow."""
    PART: Final = 3
    """To a gateway: what follows of an answer's body."""
    WINDOW_UPDATE: Final = 4
    """To a sidecar: the field that has the status in `Kind.ANSWER` says how many parts more it may send."""
    CANCEL: Final = 5
    """To a sidecar: nobody waits for the answer."""
    DECLINED: Final = 6
    """To a gateway: nothing was begun, and the answer does not fit frames; the request has to be sent over HTTP."""


Frame = tuple[int, int, int, bytes, bytes]
"""Kind, id, status, head and body."""


class BadFrames(Exception):
    """What came is no frame, or a larger one than there may be: the connection is of no more use."""


def frame_header(kind: int, number: int, *, head: int = 0, body: int = 0, status: int = 0) -> bytes:
    """Return the header of a frame.

    Args:
        kind: One of `Kind`.
        number: The request's id.
        head: Bytes of the head.
        body: Bytes of the body.
        status: HTTP status of an answer, or how many parts more.
    """
    return HEADER.pack(head + body, number, head, status, kind)


class FrameReader:
    """Takes frames out of what comes over a connection, cut anywhere."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that end with ``data``.

        Raises:
            BadFrames: What came is none.
        """
        if self._rest:
            data = self._rest + data
        frames: list[Frame] = []
        start, come = _HEADER_BYTES, len(data)
        while start <= come:
            size, number, head_size, status, kind = HEADER.unpack_from(data, start - _HEADER_BYTES)
            if head_size > HEAD_BYTES_MAX or not 0 <= size - head_size <= PART_BYTES or not 1 <= kind <= 6:
                raise BadFrames
            end = start + size
            if end > come:
                break
            behind = start + head_size
            frames.append((kind, number, status, data[start:behind], data[behind:end]))
            start = end + _HEADER_BYTES
        self._rest = data[start - _HEADER_BYTES :]
        return frames


_MANY: Final = 4
_COPIED_BYTES: Final = 16 * 1024


class FrameWriter:
    """Writes frames to a connection, in their order.

    Where many requests are under way, the frames of one turn of the event loop go out as one piece: uvloop gathers what
    is written in a turn, too, but each piece costs it and the kernel as much as all of these together. A lone request
    does not wait for the end of the turn.

    Args:
        transport: The connection's.
        loop: The event loop.
    """

    __slots__ = ("_frames", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._frames: list[bytes] = []

    def write(self, frame: bytes, *, under_way: int) -> None:
        """Write a frame; ``under_way`` says how many requests are on the connection."""
        if len(frame) > _COPIED_BYTES or not (self._frames or under_way >= _MANY):
            self.flush()
            self._transport.write(frame)
            return
        self._frames.append(frame)
        if len(self._frames) == 1:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits, as has to be done before the connection is closed."""
        if self._frames:
            frames, self._frames = self._frames, []
            if not self._transport.is_closing():
                self._transport.write(b"".join(frames))
