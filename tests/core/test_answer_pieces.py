"""Answers that come one after another in one body."""

from __future__ import annotations

import pytest

from marway.wire.answer_pieces import PiecesReader, piece_of
from marway.wire.envelope import Answer


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_pieces_are_found_however_they_are_cut(cut: int) -> None:
    """Each answer is there as soon as its last byte is, and the last one says so."""
    answers = [
        Answer(200, b"a" * 100, "text"),
        Answer(202, b"", "bytes", None, {"x": "y"}),
        Answer(500, b"no", "error"),
    ]
    body = b"".join(piece_of([each], last=each is answers[-1]) for each in answers)
    reader, found = PiecesReader(), []
    for at in range(0, len(body), cut):
        assert not reader.whole
        found += reader.feed(body[at : at + cut])
    assert (found, reader.whole) == (answers, True)


def test_what_is_none_is_refused() -> None:
    """Something else than envelopes is no answer."""
    with pytest.raises(ValueError, match="envelope"):
        list(PiecesReader().feed(b'\x00\x00\x00\x00\x0b{"code": 5}'))
