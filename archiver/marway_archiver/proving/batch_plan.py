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
            others = (place for place, each in enumerate(left) if not batch or groups[each] != groups[batch[-1]])
            place = next(others, None)
            if place is None:  # nothing is left but of the neighbour's group: begin the next round
                left += rng.sample(range(len(groups)), len(groups))
                continue
            example = left.pop(place)
            total += sizes_bytes[example]
            if len(batch) >= 2 and total > max_bytes:
                left.insert(0, example)
                break
            batch.append(example)
        if batch not in plan and (not plan or len(batch) > len(plan[-1])):
            plan.append(batch)
    return plan


def equal_answers(answers: Sequence[GoldenAnswer], tolerance: Tolerance) -> list[int]:
    """Return for each answer the place of the first that is the same."""
    groups: list[int] = []
    for index, answer in enumerate(answers):
        firsts = dict.fromkeys(groups)
        groups.append(next((one for one in firsts if difference(answers[one], answer, tolerance) is None), index))
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

    ``batches`` hold examples by index, ``alone`` their single answers; ``call`` answers a batch. ``name`` returns what
    is said of an example beside its row.
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
