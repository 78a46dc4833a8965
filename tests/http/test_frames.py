"""Frames come out as they went in, however they are cut, and what is none is refused."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marway_http.frames import (
    HEAD_BYTES_MAX,
    PART_BYTES,
    BadFrames,
    Frame,
    FrameReader,
    FrameWriter,
    Kind,
    frame_header,
)

NUMBERS = st.integers(0, 2**32 - 1)
FRAMES = st.lists(
    st.tuples(
        st.sampled_from(
            [Kind.REQUEST, Kind.ANSWER, Kind.PART, Kind.WINDOW_UPDATE, Kind.CANCEL, Kind.DECLINED],
        ),
        NUMBERS,
        st.integers(0, 2**16 - 1),
        st.binary(max_size=40),
        st.binary(max_size=40),
    ),
    max_size=6,
)
SEVERAL: list[Frame] = [
    (Kind.REQUEST, 1, 0, b"/predict/some\r\nhost: x\r\n", b"body"),
    (Kind.CANCEL, 2**32 - 1, 0, b"", b""),
    (Kind.ANSWER, 0, 599, b"x: y\r\n", b""),
    (Kind.PART, 7, 0, b"", bytes(range(256))),
    (Kind.WINDOW_UPDATE, 7, 2**16 - 1, b"", b""),
    (Kind.DECLINED, 3, 0, b"", b""),
]


def encoded(frames: list[Frame]) -> bytes:
    return b"".join(
        frame_header(kind, number, head=len(head), body=len(body), status=status) + head + body
        for kind, number, status, head, body in frames
    )


def test_every_kind_has_its_number() -> None:
    """What stands on the wire is what the two ends of different releases agree on."""
    kinds = [Kind.REQUEST, Kind.ANSWER, Kind.PART, Kind.WINDOW_UPDATE, Kind.CANCEL, Kind.DECLINED]
    assert kinds == [1, 2, 3, 4, 5, 6]
    header = frame_header(Kind.ANSWER, 0x01020304, head=5, body=6, status=200)
    assert header == bytes.fromhex("0000000b 01020304 00000005 00c8 02 00")


def test_cut_at_every_byte() -> None:
    """Frames that come in two pieces, wherever these are parted, or byte by byte, are the same frames."""
    data = encoded(SEVERAL)
    for cut in range(len(data) + 1):
        reader = FrameReader()
        assert reader.feed(data[:cut]) + reader.feed(data[cut:]) == SEVERAL
    reader = FrameReader()
    assert [frame for byte in data for frame in reader.feed(bytes((byte,)))] == SEVERAL


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 600), max_size=10))
def test_any_frames_in_any_pieces(frames: list[Frame], cuts: list[int]) -> None:
    """Whatever frames hold, they come out as soon as their last byte has come, in their order."""
    data = encoded(frames)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader = FrameReader()
    got: list[Frame] = []
    for start, end in pairwise(edges):
        got += reader.feed(data[start:end])
        whole = [at for at in range(len(frames) + 1) if len(encoded(frames[:at])) <= end]
        assert got == frames[: max(whole)]
    assert got == frames


def test_the_largest_frame() -> None:
    """A head and a body of the most bytes there may be are one frame."""
    frame = (Kind.REQUEST, 1, 0, b"h" * HEAD_BYTES_MAX, b"b" * PART_BYTES)
    assert FrameReader().feed(encoded([frame])) == [frame]


@pytest.mark.parametrize(
    "header",
    [
        frame_header(Kind.REQUEST, 1, body=PART_BYTES + 1),
        frame_header(Kind.PART, 1, body=2**31),
        frame_header(Kind.REQUEST, 1, head=HEAD_BYTES_MAX + 1),
        bytes.fromhex("00000004 00000001 00000005 0000 01 00"),  # a head beyond the frame's end
        bytes.fromhex("00000000 00000001 ffffffff 0000 01 00"),
        frame_header(0, 1),
        frame_header(7, 1),
        frame_header(255, 1),
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00",
    ],
    ids=[
        *("body", "huge-body", "head", "head-beyond-frame", "huge-head", "kind-0", "kind-7", "kind-255"),
        *("http", "tls"),
    ],
)
@pytest.mark.parametrize("before", [b"", encoded(SEVERAL)], ids=["first", "behind-others"])
def test_what_is_no_frame(header: bytes, before: bytes) -> None:
    """A frame that is too large, contradicts itself or is of no known kind is refused by its header alone."""
    reader = FrameReader()
    with pytest.raises(BadFrames):
        reader.feed(before + header)
    reader = FrameReader()
    assert reader.feed(before + header[:15]) == ([] if not before else SEVERAL)
    with pytest.raises(BadFrames):
        reader.feed(header[15:])


class Pieces(asyncio.Transport):
    """Takes what is written, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing


def writer() -> tuple[FrameWriter, Pieces]:
    pieces = Pieces()
    return FrameWriter(cast("asyncio.Transport", pieces), asyncio.get_running_loop()), pieces


async def test_frames_of_one_turn_go_out_as_one_piece_in_their_order() -> None:
    """Where many requests are under way, a turn costs one write; what comes behind waits for nobody's turn."""
    frames, pieces = writer()
    for each in (b"one", b"two", b"three"):
        frames.write(each, under_way=4)
    frames.write(b"last", under_way=0)  # behind those that wait, though it is alone by now
    assert pieces.written == []
    await asyncio.sleep(0)
    assert pieces.written == [b"onetwothreelast"]


async def test_a_lone_frame_goes_out_at_once_and_a_large_one_is_not_copied_behind_others() -> None:
    """Neither waits for the turn's end, and no frame passes another one."""
    frames, pieces = writer()
    frames.write(b"lone", under_way=1)
    assert pieces.written == [b"lone"]
    large = bytes(20_000)
    frames.write(b"small", under_way=9)
    frames.write(large, under_way=9)
    assert pieces.written == [b"lone", b"small", large]
    await asyncio.sleep(0)
    assert len(pieces.written) == 3


async def test_what_waits_is_dropped_with_its_connection() -> None:
    """Nothing is written to a transport that is closing."""
    frames, pieces = writer()
    frames.write(b"one", under_way=9)
    pieces.closing = True
    await asyncio.sleep(0)
    assert pieces.written == []
