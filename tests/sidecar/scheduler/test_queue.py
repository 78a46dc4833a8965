"""The queue of a version: groups take turns, and none of them takes all places."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marway_sidecar.scheduler.queue import FairQueue, QueueFull


@dataclass(eq=False)
class Item:
    group: str
    name: int
    since: float = 0.0


def filled(groups: str, limit: int = 100) -> FairQueue[Item]:
    """Return a queue into which one came for each letter, of the group that the letter names."""
    queue: FairQueue[Item] = FairQueue(limit)
    for number, group in enumerate(groups):
        assert queue.push(Item(group, number)) is None
    return queue


def names(queue: FairQueue[Item]) -> list[int]:
    return [item.name for item in queue.clear()]


@pytest.mark.parametrize(
    ("came", "order"),
    [
        ("aaaa", [0, 1, 2, 3]),
        ("aaaab", [0, 4, 1, 2, 3]),
        ("aaabbc", [0, 3, 5, 1, 4, 2]),
    ],
)
def test_groups_take_turns(came: str, order: list[int]) -> None:
    """One of each group goes in its turn, and within a group who came first."""
    assert names(filled(came)) == order


def test_who_comes_back_waits_a_turn() -> None:
    """A group whose last one was taken joins behind all others when it comes again."""
    queue = filled("abbcc")
    assert queue.pop().name == 0
    queue.push(Item("a", 9))
    assert names(queue) == [1, 3, 9, 2, 4]


def test_what_is_put_back_goes_first() -> None:
    """What was taken and comes back goes before all, in its old order, whether there is a place or not."""
    queue = filled("aabb", limit=4)
    queue.push_first([Item("c", 7), Item("d", 8)])
    assert queue.count == 6
    assert names(queue) == [7, 8, 0, 2, 1, 3]


def test_a_full_queue_takes_from_whoever_has_most() -> None:
    """One of a group with fewer gets the place of the last of the group that has most; others find no place."""
    queue = filled("aaab", limit=4)
    with pytest.raises(QueueFull):
        queue.push(Item("a", 8))
    out = queue.push(Item("c", 9))
    assert out is not None
    assert (out.group, out.name) == ("a", 2)
    with pytest.raises(QueueFull):
        queue.push(Item("b", 10))  # it would have two, and nobody has more
    assert names(queue) == [0, 3, 9, 1]


def test_how_long_the_oldest_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the longest wait of any group, and nothing when nobody waits."""
    monkeypatch.setattr("marway_sidecar.scheduler.queue.time.monotonic", lambda: 10.0)
    queue: FairQueue[Item] = FairQueue(10)
    assert queue.oldest_wait_s() == 0
    for group, since in (("a", 5.0), ("b", 3.0), ("b", 4.0)):
        queue.push(Item(group, 0, since))
    assert queue.oldest_wait_s() == 7.0
    queue.push_first([Item("c", 0, 1.0)])
    assert queue.oldest_wait_s() == 9.0


@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "back", "remove"]), st.sampled_from("abc"))))
def test_nobody_is_lost_or_taken_twice(steps: list[tuple[str, str]]) -> None:
    """Whatever comes, goes and is put back: each is there once, and the count is right."""
    queue: FairQueue[Item] = FairQueue(5)
    there: list[Item] = []
    taken: list[Item] = []
    for number, (step, group) in enumerate(steps):
        if step == "push":
            item = Item(group, number)
            try:
                out = queue.push(item)
            except QueueFull:
                continue
            there.append(item)
            if out is not None:
                there.remove(out)
        elif step == "pop" and there:
            assert queue.peek() in there
            item = queue.pop()
            there.remove(item)
            taken.append(item)
        elif step == "back" and taken:
            there.append(taken[-1])
            queue.push_first([taken.pop()])
        elif step == "remove":
            mine = [item for item in there if item.group == group]
            if mine:
                queue.remove(mine[-1])
                there.remove(mine[-1])
            queue.remove(Item(group, -1))  # who is not there
        assert queue.count == len(there)
    assert sorted(item.name for item in queue.clear()) == sorted(item.name for item in there)
    assert queue.count == 0
