"""Assertions about handlers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marway.answers.difference import difference
from marway.answers.golden import Tolerance
from marway_archiver.batches import plan_batches
from marway_archiver.testing.handlers import LoadedHandler
from marway_archiver.testing.rows import Row, row_of

__all__ = ["assert_batch_correct"]


def assert_batch_correct(
    handler: LoadedHandler,
    rows: Sequence[Row | Mapping[str, Any]],
    *,
    max_rows: int = 32,
    tolerance: float = 1e-4,
) -> None:
    """Assert that rows are answered in batches as they are alone: what packing asks before a version is batched.

    Args:
        handler: The handler.
        rows: At least 2 different ones whose answers differ: otherwise an answer in the wrong row would not show.
            Rows that the handler sets an error status for are welcome; one that it raises for fails its whole batch.
        max_rows: Rows of the largest batch.
        tolerance: How far numbers of equal answers may lie apart, relative and absolute.

    Raises:
        AssertionError: With the first row that is answered differently; or the rows could not show it.
    """
    given = [row_of(row) for row in rows]
    bounds = Tolerance(relative=tolerance, absolute=tolerance)
    alone = [answer.golden() for answer in handler.ask_each(given)]
    for number, single in enumerate(alone, 1):
        assert single.kind != "error", f"row {number} fails alone, so no batch with it can succeed: {single.value}"
    groups = [
        next(first for first, other in enumerate(alone) if difference(other, single, bounds) is None)
        for single in alone
    ]
    assert len(set(groups)) > 1, "give at least 2 rows whose answers differ: else a wrong row's answer would not show"
    batches = plan_batches(groups, [0] * len(given), max_rows=max_rows, max_bytes=1)
    for batch in batches:
        answers = handler.ask(*[given[index] for index in batch])
        for place, (index, answer) in enumerate(zip(batch, answers, strict=True), 1):
            found = difference(alone[index], answer.golden(), bounds)
            assert found is None, f"row {place} of a batch of {len(batch)} is not answered as alone: {found}"
    again = [answer.golden() for answer in handler.ask_each(given)]
    for number, (first, second) in enumerate(zip(alone, again, strict=True), 1):
        found = difference(first, second, bounds)
        assert found is None, f"row {number} is answered differently after other calls: {found}"
