"""Which batches prove that rows do not touch one another, and whether they are answered as their rows are alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from marway.answers.difference import difference
from marway.answers.golden import GoldenAnswer, Tolerance

__all__ = ["equal_answers", "plan_batches", "try_batches"]

_SEED = 20_120  # any number: the same examples are tried in the same batches everywhere


def plan_batches(
    groups: Sequence[int], sizes_bytes: Sequence[int], *, max_rows: int, max_bytes: int
) -> list[list[int]]:
    """Return batches of examples by index: shuffled, with repeats, of 2, 3, 4, 8, 16, … up to ``max_rows`` rows.

    Neighbours are of different groups wherever there is a choice, and each batch holds at least two groups, so that
    an answer in a wrong place shows. Every example is in a batch if there is room for it.

    Args:
        groups: For each example, a number that it shares with those whose answer is the same; at least two differ.
        sizes_bytes: For each example, the bytes of its input.
        max_rows: Rows of the largest batch, at least 2.
        max_bytes: Bytes of the largest batch: a longer one is cut, though not below two rows.
    """
    rng = random.Random(_SEED)
    sizes = sorted({2, 3, max_rows} | {2**power for power in range(2, max_rows.bit_length())})
    plan: list[list[int]] = []
    left: list[int] = []
    for size in (each for each in sizes if each <= max_rows):
        batch: list[int] = []
        total = 0
        while len(batch) < size:
            if not left:
                left = rng.sample(range(len(groups)), len(groups))
            place = _next(left, batch, groups)
            if place is None:  # all that is left is of the neighbour's group: begin the next round early
                left += rng.sample(range(len(groups)), len(groups))
                place = _next(left, batch, groups)
            example = left.pop(place or 0)
            total += sizes_bytes[example]
            if len(batch) >= 2 and total > max_bytes:
                left.insert(0, example)
                break
            batch.append(example)
        if batch not in plan and (not plan or len(batch) > len(plan[-1])):
            plan.append(batch)
    return plan


def _next(left: Sequence[int], batch: Sequence[int], groups: Sequence[int]) -> int | None:
    """Return the place in ``left`` of the first example that is of another group than the batch's last row."""
    for place, example in enumerate(left):
        if not batch or groups[example] != groups[batch[-1]]:
            return place
    return None


def equal_answers(answers: Sequence[GoldenAnswer], tolerance: Tolerance) -> list[int]:
    """Return for each answer the place of the first that is the same."""
    firsts: list[int] = []
    groups: list[int] = []
    for index, answer in enumerate(answers):
        group = next((first for first in firsts if difference(answers[first], answer, tolerance) is None), index)
        if group == index:
            firsts.append(index)
        groups.append(group)
    return groups


def try_batches(
    batches: Iterable[Sequence[int]],
    alone: Sequence[GoldenAnswer],
    call: Callable[[Sequence[int]], Sequence[GoldenAnswer]],
    tolerance: Tolerance,
    *,
    name: Callable[[int], str] = lambda _: "",
) -> tuple[tuple[int, ...], str | None]:
    """Return the sizes of the batches that are answered as their rows are alone, and where the first other one differs.

    Args:
        batches: Examples by index.
        alone: The answer to each example alone.
        call: Returns the answers to a batch.
        tolerance: How far numbers may lie apart.
        name: Returns what is said of an example beside its row.
    """
    sizes: list[int] = []
    for batch in batches:
        for place, (index, answer) in enumerate(zip(batch, call(batch), strict=True), 1):
            found = difference(alone[index], answer, tolerance)
            if found is not None:
                where = f"row {place} of a batch of {len(batch)}{name(index)}"
                return tuple(sizes), f"{where} is not answered as alone: {found}"
        sizes.append(len(batch))
    return tuple(sizes), None
