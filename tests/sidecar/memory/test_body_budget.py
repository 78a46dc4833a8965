"""Memory for bodies: so many bytes at once, nobody waits for ever, and slow clients hold up none but themselves."""

from __future__ import annotations

import asyncio
import random

import pytest

from marway_sidecar.memory.body_budget import BodyBudget, HeldBytes

KIB = 1024
MIB = 1024 * KIB
LARGEST = 64 * MIB


async def settled() -> None:
    """Let every task run until it waits."""
    for _ in range(3):
        await asyncio.sleep(0)


def opened(budget: BodyBudget, most: int, held: int = 0) -> HeldBytes:
    """Return a body of which so many bytes have come."""
    body = budget.open(most, lambda: None)
    assert body.take(held)
    return body


async def waits(body: HeldBytes, count: int) -> asyncio.Task[None]:
    task = asyncio.create_task(body.wait(count))
    await settled()
    return task


async def test_what_came_is_held_and_not_what_was_announced() -> None:
    """A thousand bodies that announce 60 MB take what they sent; what several hold goes with the last of them."""
    budget = BodyBudget(4 * LARGEST, largest_bytes=LARGEST)
    bodies = [opened(budget, 60 * MIB, 100 * KIB) for _ in range(1000)]
    assert budget.held_bytes == 1000 * 100 * KIB
    assert opened(budget, MIB).take(MIB)
    for body in bodies:
        body.hold()
        body.release()
        assert budget.held_bytes >= 100 * KIB
    for body in bodies:
        body.release()
    assert budget.held_bytes == MIB


async def test_bytes_are_bounded_and_given_in_order() -> None:
    """What does not fit waits, and of the same kind what came first is let in first."""
    budget = BodyBudget(200, largest_bytes=100)
    whole = opened(budget, 90, 90)
    whole.came_whole()
    other = opened(budget, 90, 90)
    other.came_whole()
    older, younger = opened(budget, 80), opened(budget, 30)
    assert not older.take(50)
    late, early = await waits(younger, 30), await waits(older, 50)
    assert (budget.held_bytes, budget.waiting) == (180, 2)
    assert not budget.open(10, lambda: None).take(10)  # somebody waits
    whole.release()
    await settled()
    assert (early.done(), late.done()) == (True, True)
    assert budget.held_bytes == 90 + 50 + 30
    other.release()
    older.release()
    younger.release()
    assert (budget.held_bytes, budget.waiting) == (0, 0)


async def test_one_that_is_half_here_can_always_come_to_its_end() -> None:
    """However many bodies fill the memory for what is coming, one of them goes on, and then the next."""
    budget = BodyBudget(4 * LARGEST, largest_bytes=LARGEST)
    bodies = [budget.open(60 * MIB, lambda: None) for _ in range(20)]
    coming = [asyncio.create_task(_come(body)) for body in bodies]
    async with asyncio.timeout(30):
        for task in asyncio.as_completed(coming):
            body = await task
            assert budget.held_bytes <= 4 * LARGEST
            await settled()
            body.release()
    assert (budget.held_bytes, budget.waiting) == (0, 0)


async def _come(body: HeldBytes) -> HeldBytes:
    while body.size < body.most:
        if not body.take(MIB):
            await body.wait(MIB)
        await asyncio.sleep(0)
    body.came_whole()
    return body


async def test_small_bodies_have_room_beside_large_ones() -> None:
    """Large bodies that stop half-way, be they as many as they like, leave a quarter to small ones."""
    budget = BodyBudget(4 * LARGEST, largest_bytes=LARGEST)
    while (stuck := opened(budget, 60 * MIB)).take(10 * MIB):
        pass
    waiting = await waits(stuck, 10 * MIB)
    assert not waiting.done()
    for _ in range(30):
        assert opened(budget, MIB).take(MIB)
    waiting.cancel()
    await settled()


async def test_slow_bodies_go_when_their_memory_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody waits, a body that does not come has to go; one that comes, and the one that waits, do not."""
    monkeypatch.setattr("marway_sidecar.memory.body_budget._LOOK_S", 0.01)
    monkeypatch.setattr("marway_sidecar.memory.body_budget._SLOW_BYTES", 1)
    budget = BodyBudget(2 * LARGEST, largest_bytes=LARGEST)
    gone: list[str] = []

    def begun(name: str) -> HeldBytes:
        def give_up() -> None:
            gone.append(name)
            body.release()

        body = budget.open(LARGEST, give_up)
        return body

    slow, fast, wanting = begun("slow"), begun("fast"), begun("wanting")
    assert slow.take(30 * MIB)
    assert fast.take(20 * MIB)
    assert not wanting.take(40 * MIB)
    waiting = await waits(wanting, 40 * MIB)
    async with asyncio.timeout(10):
        while not waiting.done():
            assert fast.take(1)
            await asyncio.sleep(0.001)
    assert gone == ["slow"]
    assert budget.held_bytes == fast.size + wanting.size


async def test_waiters_that_are_cancelled_at_once() -> None:
    """Waiters cancelled in one turn of the loop, also that in which their turn comes, leave nothing behind."""
    chance = random.Random(7)
    for _ in range(200):
        budget = BodyBudget(100, largest_bytes=100)
        whole = opened(budget, 100, 100)
        whole.came_whole()
        bodies = [budget.open(chance.randint(1, 100), lambda: None) for _ in range(6)]
        tasks = [await waits(body, body.most) for body in bodies]
        acts = [*(task.cancel for task in chance.sample(tasks, 4)), whole.release]
        chance.shuffle(acts)
        for act in acts:
            act()
        await settled()
        for task, body in zip(tasks, bodies, strict=True):
            if task.cancelled():
                body.release()
        for _ in bodies:
            for task, body in zip(tasks, bodies, strict=True):
                if task.done() and not task.cancelled() and body.size and body._holds:
                    body.release()
            await settled()
        assert all(task.done() for task in tasks)
        assert [task.exception() for task in tasks if not task.cancelled()] == [None] * sum(
            not task.cancelled() for task in tasks
        )
        assert (budget.held_bytes, budget.waiting) == (0, 0)


async def test_when_no_body_came_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once, after the last of them."""
    monkeypatch.setattr("marway_sidecar.memory.body_budget._EMPTY_S", 0.01)
    told = asyncio.Event()
    budget = BodyBudget(200, largest_bytes=100, emptied=told.set)
    body = opened(budget, 10, 10)
    opened(budget, 10, 10).release()
    await settled()
    assert not told.is_set()
    body.release()
    async with asyncio.timeout(10):
        await told.wait()
