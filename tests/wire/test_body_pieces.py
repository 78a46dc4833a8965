"""The rest of a body of known length: counted, in order, and no byte of what comes behind it."""

from __future__ import annotations

import pytest

from marway_http.body import LARGE_BODY_BYTES, BodyPieces

LARGE = LARGE_BODY_BYTES + 1


def lengths(length: int, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"content-length", b"%d" % length), *more]


@pytest.mark.parametrize(
    ("came", "headers"),
    [
        (0, lengths(LARGE_BODY_BYTES)),
        (LARGE, lengths(LARGE)),  # it is whole
        (0, [(b"transfer-encoding", b"chunked")]),
        (0, lengths(LARGE, (b"transfer-encoding", b"chunked"))),
        (0, []),
    ],
)
def test_small_whole_and_unknown_bodies_stay_with_the_parser(came: int, headers: list[tuple[bytes, bytes]]) -> None:
    """Only of a large body whose length was said, and which is not here yet, is there a rest."""
    assert BodyPieces.after(b"x" * came, headers) is None


@pytest.mark.parametrize("came", [0, 1, LARGE - 1])
def test_pieces_come_in_order_and_end_where_the_body_does(came: int) -> None:
    """All bytes are given once, in the order in which they came; what lies behind the end is given back."""
    body = bytes(number % 251 for number in range(LARGE))
    pieces = BodyPieces.after(bytearray(body[:came]), lengths(LARGE))
    assert pieces is not None
    assert (pieces.held, pieces.left) == (came, LARGE - came)
    middle = (came + LARGE) // 2
    rests = [pieces.feed(body[came:middle]), pieces.feed(body[middle:] + b"POST /next")]
    assert rests == [b"", b"POST /next"]
    assert (pieces.held, pieces.left) == (LARGE, 0)
    assert b"".join(iter(pieces.take, b"")) == body
    assert (pieces.held, pieces.take()) == (0, b"")


def test_what_nobody_wants_is_let_go_of() -> None:
    """Dropped bytes are held no more, and the end of the body is still found."""
    pieces = BodyPieces.after(b"x", lengths(LARGE))
    assert pieces is not None
    for _ in range(2):
        pieces.drop()
        assert pieces.held == 0
    assert pieces.feed(b"y" * LARGE) == b"y"
    assert pieces.left == 0
