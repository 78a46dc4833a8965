from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marway.client.pieces import Event, Pieces, reader_of
from marway.errors import MarwayError, RuntimeDown

EVENTS = "text/event-stream; charset=utf-8"
OURS = (
    b"data: one\n\n"
    b"data: two\ndata: lines\n\n"
    b": a comment\nid: 7\nevent: own\ndata:{\"a\": 1}\n\n"
    b"event: nothing\n\n"
    b"data: \xc3\xa4\r\n\r\n"
    b"event: end\ndata: \n\n"
)  # fmt: skip
TEXTS = ["one", "two\nlines", '{"a": 1}', "ä"]


def read(pieces: Pieces, content_type: str, chunks: list[bytes]) -> list[object]:
    reader = reader_of(pieces, content_type)
    return [piece for chunk in chunks for piece in reader.feed(chunk)] + reader.end()


@given(st.lists(st.integers(0, len(OURS)), max_size=12))
@settings(max_examples=150, deadline=None)
def test_events_are_the_same_however_they_come(cuts: list[int]) -> None:
    """Where the network cuts a stream of events changes none of them."""
    at = [0, *sorted(cuts), len(OURS)]
    chunks = [OURS[a:b] for a, b in pairwise(at)]
    assert read("text", EVENTS, chunks) == TEXTS
    events = [Event("one"), Event("two\nlines"), Event('{"a": 1}', "own", "7"), Event("ä", id="7")]
    assert read("events", EVENTS, chunks) == events
    assert events[2].json() == {"a": 1}


def test_an_error_in_the_middle_is_raised() -> None:
    """The gateway's error event is the error that it stands for; a model's own event of that name is an event."""
    problem = '{"title": "t", "status": 503, "detail": "the model server is gone", "code": "runtime_down"}'
    reader = reader_of("text", EVENTS)
    assert reader.feed(b"data: one\n\n") == ["one"]
    with pytest.raises(RuntimeDown, match="is gone"):
        reader.feed(f"event: error\ndata: {problem}\n\n".encode())
    assert read("events", EVENTS, [b"event: error\ndata: own words\n\n"]) == [Event("own words", "error")]


def test_a_models_own_end_event_is_given() -> None:
    """An event `end` that more events follow is the model's own."""
    assert read("events", EVENTS, [b"event: end\ndata: \n\ndata: more\n\n"]) == [Event("", "end"), Event("more")]


def test_an_answer_that_does_not_stream() -> None:
    """A whole answer is text as it comes, with characters kept whole; what is no text is said to be none."""
    assert read("text", "application/json", [b'"\xc3', b'\xa4"']) == ['"', 'ä"']
    assert read("events", "text/plain", [b"a"]) == [Event("a")]
    assert read("bytes", "image/png", [b"\x89", b"\0"]) == [b"\x89", b"\0"]
    with pytest.raises(MarwayError, match="stream_bytes"):
        read("text", "image/png", [b"\x89\0"])
    with pytest.raises(MarwayError, match="stream_bytes"):
        read("text", "text/plain", [b"\xc3"])
