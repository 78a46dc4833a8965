"""Rows of sequences in a worker: who has the state says so, and rows whose state is elsewhere reach no handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unittest.mock import patch

from marway.wire.envelope import Answer, Part, Row
from marway.wire.headers import SEQUENCE_END, SEQUENCE_ID, SEQUENCE_START, SEQUENCE_WORKER
from marway.worker.sequences import LOST, InSequences


def row(name: str | None, worker: str | None = None) -> Row:
    headers = {SEQUENCE_ID: name, SEQUENCE_WORKER: worker}
    return Row("r", [Part("data", b"x")], {key: value for key, value in headers.items() if value is not None})


def test_rows_whose_state_is_elsewhere_are_refused() -> None:
    """In one call, those that begin and those that go on here are answered in their places; others are told."""
    seen: list[Row] = []

    def answered(rows: Sequence[Row], _: Callable[[Answer], None]) -> list[Answer]:
        seen.extend(rows)
        return [Answer(200, each.headers[SEQUENCE_ID].encode(), "text", headers={"x": "1"}) for each in rows]

    worker = InSequences(answered)
    found = worker([row("a", ""), row("b", "other"), row("c", worker.name)], lambda _: None)
    assert [answer.status for answer in found] == [200, 404, 200]
    assert [answer.headers[SEQUENCE_WORKER] for answer in found] == [worker.name, LOST, worker.name]
    assert found[2].headers[SEQUENCE_ID] == "c"
    assert found[2].headers["x"] == "1"
    assert all(SEQUENCE_WORKER not in each.headers for each in seen)
    (lost,) = worker([row("b", "other")], lambda _: None)
    assert lost.body.startswith(b"the worker that had")
    assert len(seen) == 2
    # What asks for no sequence, as golden examples, is one of its own, and answered as any.
    (answer,) = worker([row(None)], lambda _: None)
    assert answer.headers == {"x": "1"}
    assert (seen[2].headers[SEQUENCE_START], seen[2].headers[SEQUENCE_END]) == ("true", "true")


def test_a_fork_is_another_worker() -> None:
    """A worker that was forked from another has not its name."""
    worker = InSequences(lambda rows, send: [])
    before = worker.name
    assert worker.name == before
    with patch("os.getpid", return_value=-1):
        assert worker.name != before
