"""Memory for bodies: so many bytes at once, in the order of coming, and nobody waits for ever."""

from __future__ import annotations

import asyncio

from marway_sidecar.body_budget import BodyBudget, HeldBytes


async def waits(budget: BodyBudget, *sizes: int) -> list[asyncio.Task[HeldBytes]]:
    """Have bodies of these sizes come, one after the other."""
    tasks = []
    for size in sizes:
        tasks.append(asyncio.create_task(budget.wait(size)))
        await settled()
    return tasks


async def settled() -> None:
    """Let every task run until it waits."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_bytes_are_bounded_and_given_in_order() -> None:
    """What does not fit waits, and so does a smaller one that came behind it."""
    budget = BodyBudget(100)
    first, large, small = await waits(budget, 60, 70, 10)
    assert [task.done() for task in (first, large, small)] == [True, False, False]
    assert budget.take(10) is None
    assert (budget.held_bytes, budget.waiting) == (60, 2)
    first.result().release()
    await settled()
    assert [task.done() for task in (large, small)] == [True, True]
    assert budget.held_bytes == 80
    for task in (large, small):
        task.result().release()
    assert budget.held_bytes == 0


async def test_a_body_larger_than_all_goes_alone() -> None:
    """It waits until nothing else is held, and others wait until it is gone."""
    budget = BodyBudget(100)
    (first,) = await waits(budget, 1)
    giant, behind = await waits(budget, 500, 1)
    assert not giant.done()
    first.result().release()
    await settled()
    assert giant.done()
    assert not behind.done()
    giant.result().release()
    await settled()
    assert behind.done()


async def test_who_leaves_lets_others_in() -> None:
    """One who stops waiting holds nobody up; one who leaves as its turn comes gives its bytes back."""
    budget = BodyBudget(100)
    first, large, small = await waits(budget, 60, 70, 10)
    large.cancel()
    await settled()
    assert small.done()
    (late,) = await waits(budget, 90)
    first.result().release()
    small.result().release()  # its turn has come, and it has not run yet
    late.cancel()
    await settled()
    assert late.cancelled()
    assert (budget.held_bytes, budget.waiting) == (0, 0)


async def test_bytes_are_held_until_everybody_let_go() -> None:
    """What several hold is given back by the last of them; what turned out smaller gives back the rest at once."""
    budget = BodyBudget(100)
    held = budget.take(100)
    assert held is not None
    held.shrink(40)
    assert budget.held_bytes == 40
    held.hold()
    held.release()
    assert budget.held_bytes == 40
    held.release()
    assert budget.held_bytes == 0
