"""Which feedback counts for which prediction, against a plain model of the rule."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marway.objects import DirectoryStore
from marway_observations import joining, schema
from marway_observations.reading import Observed
from support.every import LONG
from support.observations import write_feedback, write_merged, write_observations

NOON: Final = datetime(2026, 11, 30, 12, tzinfo=UTC)
KINDS: Final = ("truth", "correct", "score")
COLUMNS: Final = ("prediction_id", *KINDS, *(f"{kind}_at" for kind in KINDS))
_REQUIRED: Final[Mapping[str, Any]] = {
    "version": "1",
    "role": "base",
    "surface": "native",
    "outcome": "ok",
    "attempts": 1,
    "duration_s": 0.01,
    "request_bytes": 1,
    "response_bytes": 1,
    "rate": 1.0,
    "bodies": "off",
}


@dataclass(frozen=True)
class Prediction:
    prediction_id: str
    at: datetime
    request_id: str | None = None
    group_id: str | None = None


@dataclass(frozen=True)
class Feedback:
    feedback_id: str
    at: datetime
    prediction_id: str | None = None
    request_id: str | None = None
    group_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    truth: str | None = None
    correct: bool | None = None
    score: float | None = None
    late: timedelta = timedelta(0)

    @property
    def received_at(self) -> datetime:
        return self.at + self.late

    def row(self) -> dict[str, Any]:
        """Return it as it is kept."""
        return {name: getattr(self, name) for name in schema.FEEDBACK.names if hasattr(self, name)}

    def applies_to(self, prediction: Prediction) -> bool:
        """Say the rule once more, in plain Python."""
        if self.prediction_id is not None:
            return self.prediction_id == prediction.prediction_id
        if self.request_id is not None:
            since, until = self.since, self.until or self.received_at + timedelta(hours=1)
            named = self.request_id == prediction.request_id
        else:
            until = self.until or self.at
            since = self.since or until - timedelta(days=1)
            named = self.group_id == prediction.group_id
        return named and (since is None or since <= prediction.at) and prediction.at <= until


_DUCKDB: Final = duckdb.connect(config={"threads": 1})  # opening one takes longer than all that is asked of it


def asked(query: str, predictions: Iterable[Prediction], feedback: Iterable[Feedback]) -> list[tuple[Any, ...]]:
    """Return the rows of a query over both tables, their rows in the order given."""
    seen = pa.Table.from_pylist([{**_REQUIRED, **vars(each)} for each in predictions], schema=schema.OBSERVATIONS)
    said = pa.Table.from_pylist([each.row() for each in feedback], schema=schema.FEEDBACK)
    _DUCKDB.register("observations", seen)
    _DUCKDB.register("feedback", said)
    return _DUCKDB.execute(query).fetchall()


def counted(predictions: Iterable[Prediction], feedback: Iterable[Feedback]) -> dict[str, dict[str, Any]]:
    """Return what the query finds for each prediction."""
    rows = asked(f"SELECT {', '.join(COLUMNS)} FROM ({joining.JOINED})", predictions, feedback)
    return {row[0]: dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in rows}


def expected(predictions: Iterable[Prediction], feedback: Iterable[Feedback]) -> dict[str, dict[str, Any]]:
    """Return what the model finds for each prediction."""
    found = {}
    for prediction in predictions:
        applied = sorted(
            (each for each in feedback if each.applies_to(prediction)), key=lambda each: (each.at, each.feedback_id)
        )
        found[prediction.prediction_id] = row = dict.fromkeys(COLUMNS[1:])
        for each in applied:
            for kind in KINDS:
                if getattr(each, kind) is not None:
                    row[kind], row[f"{kind}_at"] = getattr(each, kind), each.at
    return found


# Few names and few moments, a day and more apart and exactly a day apart, so that everything meets everything
MOMENTS = st.sampled_from([NOON + timedelta(hours=hours) for hours in (0, 1, 24, 25, 24 * 9)]) | st.sampled_from(
    [NOON + timedelta(days=1, microseconds=micros) for micros in (-1, 1)]
)
NAMES = {
    "prediction_id": st.sampled_from(["p0", "p1", "p2", "p3", "never"]),
    "request_id": st.sampled_from(["r0", "r1", "never"]),
    "group_id": st.sampled_from(["g0", "g1", "never"]),
}
PREDICTIONS = st.lists(
    st.builds(
        Prediction,
        prediction_id=st.sampled_from(["p0", "p1", "p2", "p3"]),
        at=MOMENTS,
        request_id=st.sampled_from([None, "r0", "r1"]),
        group_id=st.sampled_from([None, "g0", "g1"]),
    ),
    max_size=4,
    unique_by=lambda each: each.prediction_id,
)


@st.composite
def feedbacks(draw: st.DrawFn) -> list[Feedback]:
    """Draw feedback, some of it twice, in any order."""
    said: list[Feedback] = []
    for number in range(draw(st.integers(0, 8))):
        named = draw(st.sampled_from(sorted(NAMES)))
        late = timedelta(hours=draw(st.sampled_from([0, 1, 24, 24 * 9])))
        one = Feedback(f"f{number}", draw(MOMENTS), **{named: draw(NAMES[named])}, late=late)
        if named != "prediction_id":
            one = replace(one, since=draw(st.none() | MOMENTS), until=draw(st.none() | MOMENTS))
        says = draw(st.sets(st.sampled_from(KINDS), min_size=1))
        said.append(
            replace(
                one,
                truth=f'"t{number}"' if "truth" in says else None,
                correct=draw(st.booleans()) if "correct" in says else None,
                score=float(number) if "score" in says else None,
            )
        )
    copies = draw(st.lists(st.sampled_from(said), max_size=3)) if said else []
    return draw(st.permutations([*said, *copies]))


@settings(max_examples=2000 if LONG else 40, deadline=None)
@given(PREDICTIONS, feedbacks())
def test_late_feedback_joins_exactly(predictions: list[Prediction], feedback: list[Feedback]) -> None:
    """Whatever comes, in whatever order, twice, late or for several predictions: the newest of each kind counts.

    What applies to no prediction that was kept is counted, copies of it once.
    """
    assert counted(predictions, feedback) == expected(predictions, feedback)
    lone = {each.feedback_id for each in feedback if not any(each.applies_to(one) for one in predictions)}
    assert asked(joining.UNMATCHED, predictions, feedback) == [(len(lone),)]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_that_are_equally_old_the_later_id_counts(order: int) -> None:
    """Which of two counts does not hang on the order in which they are read."""
    said = [Feedback("f1", NOON, "p0", truth='"a"'), Feedback("f2", NOON, "p0", truth='"b"')]
    assert counted([Prediction("p0", NOON)], said[::order])["p0"]["truth"] == '"b"'


@settings(max_examples=100 if LONG else 4, deadline=None)
@given(PREDICTIONS, feedbacks(), st.data())
def test_files_and_what_stands_for_them_change_nothing(
    predictions: list[Prediction], feedback: list[Feedback], data: st.DataObject
) -> None:
    """Read from files, some of which were merged into others that stand beside them, it is the same."""
    with tempfile.TemporaryDirectory() as directory:
        store = DirectoryStore(Path(directory))
        write_observations(store, "intent", [{**_REQUIRED, **vars(each)} for each in predictions])
        folders: dict[str, list[str]] = defaultdict(list)
        for each in feedback:
            (key,) = write_feedback(store, [each.row()])
            folders[key.rpartition("/")[0]].append(key)
        for keys in folders.values():
            merged = data.draw(st.lists(st.sampled_from(keys), unique=True))
            if merged:
                write_merged(store, merged)
        with Observed(store, model="intent") as found:
            rows = found.query(f"SELECT {', '.join(COLUMNS)} FROM ({joining.JOINED})")
    assert {row[0]: dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in rows} == expected(predictions, feedback)


def test_what_is_said_later_of_something_else_does_not_take_the_truth_away() -> None:
    """Truth, correctness and score are three things: the newest of each counts."""
    later = NOON + timedelta(days=3)
    said = [Feedback("f1", NOON, "p0", truth="null", correct=True), Feedback("f2", later, "p0", score=0.5)]
    found = counted([Prediction("p0", NOON)], said)["p0"]
    assert (found["truth"], found["correct"], found["score"], found["score_at"]) == ("null", True, 0.5, later)
