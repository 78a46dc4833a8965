"""What may be sent as feedback, and what is kept of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marway.errors import InvalidRequest
from marway_gateway.feedback.entries import read_feedback

ID = "01KBARM2T5A1B2C3D4E5F60718"


def rows(*entries: object, client: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_feedback(json.dumps(entries).encode(), client=client).to_pylist()
    return found


def refused(body: str | bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read_feedback(body.encode() if isinstance(body, str) else body, client=None)
    return caught.value.message


def test_one_piece_or_a_list() -> None:
    """An object is one piece of feedback; a list has any number, each a row in its place."""
    one = read_feedback(
        b' {"prediction_id": "%b", "truth": {"label": "\\u00e9"}}' % ID.encode(), client="crm"
    ).to_pylist()
    assert [(row["prediction_id"], row["truth"], row["client"]) for row in one] == [(ID, '{"label":"é"}', "crm")]
    several = rows({"request_id": "r1", "correct": True}, {"group_id": "g1", "score": 1, "source": "survey"})
    assert [(row["request_id"], row["group_id"], row["correct"], row["score"], row["source"]) for row in several] == [
        ("r1", None, True, None, None),
        (None, "g1", None, 1.0, "survey"),
    ]
    assert rows() == []


def test_times() -> None:
    """What a sender says of when counts; without, it is when the feedback came. All of it is kept in UTC."""
    said, came = rows(
        {"prediction_id": ID, "truth": 1, "time": "2026-01-31T12:00:00.5+02:00"}, {"prediction_id": ID, "truth": 2}
    )
    assert said["at"] == datetime(2026, 1, 31, 10, 0, 0, 500_000, tzinfo=UTC)
    assert came["at"] == came["received_at"] == said["received_at"]
    assert timedelta(0) <= datetime.now(UTC) - came["at"] < timedelta(minutes=1)


def test_of_equals_the_later_in_a_list_counts() -> None:
    """Ids of feedback grow within a call, so that of two entries about a prediction the later one counts."""
    ids = [row["feedback_id"] for row in rows(*[{"prediction_id": ID, "truth": number} for number in range(300)])]
    assert ids == sorted(set(ids))
    assert all(len(each) == 26 for each in ids)


def test_nulls_say_nothing() -> None:
    """A field that is null is as one that is not there: clients send what they have no value for."""
    (row,) = rows({"prediction_id": ID, "request_id": None, "truth": None, "score": 0.5, "since": None})
    assert (row["truth"], row["score"]) == (None, 0.5)
    assert "says nothing" in refused(json.dumps({"prediction_id": ID, "truth": None}))


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ).filter(lambda value: value is not None)
)
def test_any_truth_is_kept_as_it_is(truth: Any) -> None:
    """A truth may be any JSON, of which nothing is lost."""
    (row,) = rows({"prediction_id": ID, "truth": truth})
    assert json.loads(row["truth"]) == truth


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"truth": 1}, "no id: give one of prediction_id, request_id and group_id"),
        ({"prediction_id": ID, "group_id": "g", "truth": 1}, "it has prediction_id and group_id"),
        ({"prediction_id": ID}, "says nothing: give truth, correct or score"),
        ({"prediction_id": ID, "label": 1}, "label: there is no such field: there are prediction_id, "),
        ({"prediction_id": "1", "truth": 1}, "prediction_id: it is no prediction id: those are 26 characters"),
        ({"request_id": "a b", "truth": 1}, "request_id: it is no request id"),
        ({"group_id": "", "truth": 1}, "group_id: it is no group id"),
        ({"prediction_id": ID, "truth": 1, "source": "a\nb"}, "source: give 1 to 128 characters"),
        ({"prediction_id": ID, "score": "1"}, "score: "),
        ({"prediction_id": ID, "score": True}, "score: "),
        ({"prediction_id": ID, "correct": 1}, "correct: "),
        ({"prediction_id": ID, "truth": 1, "time": 17}, "time: give a date and time with its zone"),
        ({"prediction_id": ID, "truth": 1, "time": "17"}, "time: give a date and time with its zone"),
        ({"prediction_id": ID, "truth": 1, "time": "2026-01-31T12:00:00"}, "time: "),
        ({"prediction_id": ID, "truth": 1, "time": "2999-01-31T12:00:00Z"}, "time lies ahead"),
        ({"group_id": "g", "truth": 1, "until": "2999-01-31T12:00:00Z"}, "until lies ahead"),
        ({"prediction_id": ID, "truth": 1, "since": "2026-01-31T12:00:00Z"}, "since and until go with request_id or"),
        ({"prediction_id": ID, "truth": 1, "time": "0001-01-01T00:00:00+14:00"}, "time lies before 1970"),
        ({"request_id": "r", "truth": 1, "since": "9999-12-31T23:59:59-14:00"}, "since lies ahead"),
        (
            {"group_id": "g", "truth": 1, "since": "2026-02-01T00:00:00Z", "time": "2026-01-31T00:00:00Z"},
            "since is after until",
        ),
        (
            {"request_id": "r", "truth": 1, "since": "2026-02-01T00:00:00Z", "until": "2026-01-31T00:00:00Z"},
            "since is after until",
        ),
        ("text", "Input should be an object"),
    ],
)
def test_what_cannot_be_one_is_refused_by_its_place(entry: object, words: str) -> None:
    """All or nothing: the first entry that cannot be one is named, with what is wrong about it."""
    good = {"prediction_id": ID, "truth": 1}
    said = refused(json.dumps([good, good, entry, {"nonsense": 1}]))
    assert said.startswith("nothing was kept: entry 2 (the first is 0)")
    assert words in said
    assert words in refused(json.dumps(entry))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b'{"prediction_id": "%b", "truth": NaN}' % ID.encode(), "truth: "),
        (b'{"prediction_id": "%b", "truth": [1e999]}' % ID.encode(), "truth: "),
        (b'{"prediction_id": "%b", "score": 1e999}' % ID.encode(), "score: "),
        (b'{"prediction_id": "%b", "truth": "\\ud800"}' % ID.encode(), "Invalid JSON"),
        (b'{"truth": ' + b"[" * 100_000, "recursion limit"),
        (b"[" + b",".join([b'{"prediction_id": "%b", "truth": 1}' % ID.encode()] * 10_001) + b"]", "more than 10000"),
    ],
)
def test_what_is_no_json_is_refused(body: bytes, words: str) -> None:
    """Nothing is kept that JSON does not have."""
    assert words in refused(body)
