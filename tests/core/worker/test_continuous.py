"""Continuous batching: which rows a handler is given with each call, and when their answers are whole."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from marway.wire.envelope import Part, Row
from marway.worker.continuous import ContinuousBatch, answered_whole
from marway.worker.requests import Request, request_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open when it is imported
    from ts.context import Context, RequestProcessor


class Words:
    """Answers a row with its words, one a call, as TorchServe's own example does: it keeps rows by their ids."""

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}
        self.seen: list[list[tuple[str, dict[str, Any]]]] = []

    def __call__(self, data: Sequence[dict[str, Any]], context: Any) -> list[Any]:
        ids = [context.get_request_id(index) for index in range(len(data))]
        self.seen.append([(each, dict(row)) for each, row in zip(ids, data, strict=True)])
        for each, row in zip(ids, data, strict=True):
            if row:
                self.given[each] = row["data"].split()
        out = [self.given[each].pop(0) for each in ids]
        context.stopping_criteria = [self.criterion(each) for each in ids]
        if "raise" in out:
            raise ValueError("on purpose")
        return out

    def criterion(self, request_id: str) -> Any:
        def ends(piece: str) -> bool | None:
            if piece == "fault":
                raise KeyError("no such criterion")
            return None if piece == "none" else not self.given[request_id]

        return ends


def request(words: str, request_id: str) -> Request:
    return request_of(Row(request_id, [Part("data", words.encode(), "text/plain")], {"x-tenant": words[0]}))


@pytest.fixture
def context() -> Any:
    made = Context("m", "/nowhere", {}, 1, None, "1.0")
    made.metrics = type("Metrics", (), {})()
    return made


def texts(steps: Sequence[Any]) -> list[tuple[str, str, bool]]:
    return [(step.key, step.answer.body.decode(), step.last) for step in steps]


def test_rows_come_and_go_between_calls(context: Any) -> None:
    """A row joins at the next call, brings its input once and its headers always, and leaves with its last piece."""
    words = Words()
    batch: ContinuousBatch[str] = ContinuousBatch(words, context, RequestProcessor)
    batch.add("a", request("one two three", "r-1"))
    assert texts(batch.step()[0]) == [("a", "one", False)]
    batch.add("b", request("x", "r-2"))
    assert texts(batch.step()[0]) == [("a", "two", False), ("b", "x", True)]
    assert context.get_request_header(0, "x-tenant") == "o"
    assert context.get_all_request_header(0).keys() >= {"x-tenant", "explain"}
    assert "data" not in context.get_all_request_header(0)
    assert texts(batch.step()[0]) == [("a", "three", True)]
    assert not len(batch)
    assert words.seen[1] == [("r-1.1", {}), ("r-2.2", {"data": "x", "body": "x"})]


def test_a_row_given_up_is_not_gone_on_with(context: Any) -> None:
    """Who leaves is out of the next call; the others go on."""
    words = Words()
    batch: ContinuousBatch[str] = ContinuousBatch(words, context, RequestProcessor)
    batch.add("a", request("one two", "r-1"))
    batch.add("b", request("x y", "r-2"))
    batch.step()
    batch.remove("a")
    batch.remove("a")
    assert texts(batch.step()[0]) == [("b", "y", True)]


def test_an_id_never_comes_again(context: Any) -> None:
    """Callers who chose one id, together or later, are rows of their own to the handler; the log has the chosen one."""
    words = Words()
    batch: ContinuousBatch[str] = ContinuousBatch(words, context, RequestProcessor)
    for key in "abc":
        batch.add(key, request(f"{key} last", "same"))
    assert list(batch.request_ids.values()) == ["same"] * 3
    batch.step()
    assert [body for _, body, _ in texts(batch.step()[0])] == ["last"] * 3
    batch.add("a", request("x", "same"))
    batch.step()
    seen = [[request_id for request_id, _ in step] for step in words.seen[1:]]
    assert seen == [["same.1", "same.2", "same.3"], ["same.4"]]


def test_a_handler_that_raises_ends_all_rows(context: Any) -> None:
    """As in TorchServe; each is told why, and the next row begins anew."""
    words = Words()
    batch: ContinuousBatch[str] = ContinuousBatch(words, context, RequestProcessor)
    batch.add("a", request("one two", "r-1"))
    batch.add("b", request("raise", "r-2"))
    steps, exception = batch.step()
    assert isinstance(exception, ValueError)
    assert [(step.answer.status, step.answer.kind, step.last) for step in steps] == [(500, "error", True)] * 2
    batch.add("c", request("x", "r-3"))
    assert texts(batch.step()[0]) == [("c", "x", True)]


def test_a_criterion_that_fails_is_that_rows_error(context: Any) -> None:
    """TorchServe's worker would die of it."""
    batch: ContinuousBatch[str] = ContinuousBatch(Words(), context, RequestProcessor)
    batch.add("a", request("fault", "r-1"))
    batch.add("b", request("x y", "r-2"))
    (first, second), _ = batch.step()
    assert (first.answer.kind, first.last) == ("error", True)
    assert b"stopping criterion failed: KeyError" in first.answer.body
    assert not second.last


def test_without_a_verdict_an_answer_is_whole(context: Any) -> None:
    """A criterion that says nothing, none at all, and the header that TorchServe's front end goes by."""
    batch: ContinuousBatch[str] = ContinuousBatch(Words(), context, RequestProcessor)
    batch.add("a", request("none more", "r-1"))
    assert texts(batch.step()[0]) == [("a", "none", True)]

    def by_header(data: Sequence[Any], context: Any) -> list[str]:
        context.stopping_criteria = None
        for index, row in enumerate(data):
            context.set_response_header(index, "ts_stream_next", "true" if row else "false")
        return ["piece"] * len(data)

    batch = ContinuousBatch(by_header, context, RequestProcessor)
    batch.add("a", request("x", "r-1"))
    (first,), _ = batch.step()
    (second,), _ = batch.step()
    assert (first.last, second.last, first.answer.headers) == (False, True, {})
    batch = ContinuousBatch(lambda data, _: ["whole"] * len(data), context, RequestProcessor)
    batch.add("a", request("x", "r-1"))
    assert batch.step()[0][0].last


def test_rows_are_answered_to_their_end(context: Any) -> None:
    """Who proves a handler calls it until no row is under way."""
    rows = [request("a b c", "r-1"), request("d", "r-2")]
    pieces, exception = answered_whole(ContinuousBatch(Words(), context, RequestProcessor), rows)
    assert [[step.answer.body for step in each] for each in pieces] == [[b"a", b"b", b"c"], [b"d"]]
    assert exception is None
