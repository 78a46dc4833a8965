"""Assertions about handlers."""

from __future__ import annotations

from collections.abc import Sequence

from marway.answers.difference import difference
from marway.answers.golden import Tolerance
from marway_archiver.proving.batch_plan import equal_answers, plan_batches, try_batches
from marway_archiver.testing.handlers import LoadedHandler
from marway_archiver.testing.rows import AnyRow

__all__ = ["assert_batch_correct"]


def assert_batch_correct(
    handler: LoadedHandler,
    rows: Sequence[AnyRow],
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
    bounds = Tolerance(relative=tolerance, absolute=tolerance)
    alone = [answer.golden() for answer in handler.ask_each(rows)]
    for number, single in enumerate(alone, 1):
        assert single.kind != "error", f"row {number} fails alone, so no batch with it can succeed: {single.value}"
    groups = equal_answers(alone, bounds)
    assert len(set(groups)) > 1, "give at least 2 rows whose answers differ: else a wrong row's answer would not show"
    batches = plan_batches(groups, [0] * len(rows), max_rows=max_rows, max_bytes=1)
    _, found = try_batches(
        batches,
        alone,
        lambda batch: [answer.golden() for answer in handler.ask(*[rows[index] for index in batch])],
        bounds,
    )
    assert found is None, found
    again = [answer.golden() for answer in handler.ask_each(rows)]
    for number, (first, second) in enumerate(zip(alone, again, strict=True), 1):
        found = difference(first, second, bounds)
        assert found is None, f"row {number} is answered differently after other calls: {found}"
