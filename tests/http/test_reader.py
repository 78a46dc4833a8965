"""Requests are read in order, in whatever pieces they come; large bodies pass the parser by and lose no byte."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marway_http.channel import LARGE_BODY_BYTES, Headers
from marway_http.http1.reader import BodyPieces, RequestReader

LARGE = LARGE_BODY_BYTES + 1


class Read:
    """What was read: a tuple of path and body for each request that came whole."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.path = ""
        self.pieces = BodyPieces()

    def begun(self) -> None:
        self.pieces = BodyPieces()

    def head(self, scope: dict[str, Any], *, keeps: bool, expects: bool) -> None:
        self.path = scope["path"]

    def body(self, data: bytes) -> None:
        self.pieces.add(data)

    def complete(self) -> None:
        self.requests.append((self.path, b"".join(iter(self.pieces.take, b""))))

    def takes_upgrade(self, method: bytes, url: bytes, headers: Headers) -> bool:
        return False


def post(path: str, *lines: str) -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "host: x", *lines, "", "")).encode()


@pytest.mark.parametrize(
    ("came", "lines"),
    [
        (0, [f"content-length: {LARGE_BODY_BYTES}"]),
        (LARGE, [f"content-length: {LARGE}"]),  # it is whole
        (0, ["transfer-encoding: chunked"]),
        (0, []),
    ],
)
def test_small_whole_and_unknown_bodies_stay_with_the_parser(came: int, lines: list[str]) -> None:
    """Only a large body whose length was said, and which is not here yet, passes the parser by."""
    reader = RequestReader(Read())
    reader.feed(post("/", *lines) + b"x" * came)
    assert not reader.pass_large_body()


@pytest.mark.parametrize("came", [0, 1, LARGE - 1])
def test_a_large_body_ends_where_it_does(came: int) -> None:
    """All bytes are given once, in the order in which they came; what lies behind the end is the next request."""
    body = bytes(number % 251 for number in range(LARGE))
    read = Read()
    reader = RequestReader(read)
    reader.feed(post("/large", f"content-length: {LARGE}") + body[:came])
    assert reader.pass_large_body()
    assert not reader.pass_large_body()
    middle = (came + LARGE) // 2
    reader.feed(body[came:middle])
    reader.feed(body[middle:] + post("/next", "content-length: 2") + b"ok")
    assert read.requests == [("/large", body), ("/next", b"ok")]


@given(st.data())
def test_pieces_do_not_matter(data: st.DataObject) -> None:
    """Requests that follow one another are the same however they are cut, large or small, by length or in chunks."""
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 100, LARGE, LARGE + 70_000]), min_size=1, max_size=4))
    text, expected = b"", []
    for number, size in enumerate(sizes):
        body = bytes([97 + number]) * size
        if data.draw(st.booleans()):
            text += post(f"/{number}", f"content-length: {size}") + body
        else:
            chunk = b"%x\r\n%b\r\n" % (size, body) if size else b""
            text += post(f"/{number}", "transfer-encoding: chunked") + chunk + b"0\r\n\r\n"
        expected.append((f"/{number}", body))
    read = Read()
    reader = RequestReader(read)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        reader.feed(text[begin:end])
        reader.pass_large_body()
    assert read.requests == expected


def test_what_nobody_wants_is_let_go_of() -> None:
    """Dropped bytes are held no more; small pieces are given joined, and large ones as they came."""
    pieces = BodyPieces()
    for each in (b"a", b"b", b"x" * LARGE, b"", b"c"):
        pieces.add(each)
    assert pieces.held == LARGE + 3
    assert pieces.whole() == b"ab" + b"x" * LARGE + b"c"
    assert pieces.take() == b"ab" + b"x" * LARGE + b"c"
    pieces.add(b"x" * LARGE)
    pieces.add(b"d")
    assert [len(pieces.take()), pieces.take(), pieces.take(), pieces.held] == [LARGE, b"d", b"", 0]
    pieces.add(b"e")
    pieces.drop()
    assert (pieces.held, pieces.take()) == (0, b"")
