"""Every kind of connection to a sidecar keeps the one contract, whatever meets in one turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.transport.contract import SIZES, FramePeers, HttpPeers, Peers, check_connection, interleave

KINDS = pytest.mark.parametrize("peers", [HttpPeers, FramePeers])
EAGER = pytest.mark.parametrize("eager", [False, True], ids=["task", "eager"])

SEVERAL = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(SIZES)),
        st.tuples(st.sampled_from(["answer", "piece", "cancel", "late", "close"]), st.integers(0, 7)),
    ),
    max_size=6,
)
MET = st.tuples(st.sampled_from(["cancel", "late", "close"]), st.integers(0, 1), st.sampled_from(SIZES)).flatmap(
    lambda met: st.permutations([(met[0], met[1]), ("answer", met[1]), ("ask", met[2])])
)
"""What must not be mixed up: one gives up, is answered, and another asks, all in one turn."""
TURN = st.one_of(MET, SEVERAL)


@KINDS
async def test_the_contract(peers: Callable[[], Peers]) -> None:
    """Answers, errors, cancels, closes, slow readers and many waiters are the same over every kind of connection."""
    await check_connection(peers)


@KINDS
@EAGER
@given(turns=st.lists(TURN, max_size=12))
@settings(max_examples=300, deadline=None)
def test_each_caller_is_told_exactly_once(
    peers: Callable[[], Peers], eager: bool, turns: list[list[tuple[str, int]]]
) -> None:
    """A caller has its own answer or a failure, once, whoever else gives up or is answered in the same turn."""

    async def main() -> None:
        await interleave(peers(), turns, eager=eager)

    asyncio.run(main())


@KINDS
@EAGER
@pytest.mark.parametrize("gives_up", ["cancel", "late"])
async def test_fault_caller_gives_up_as_its_answer_comes(
    peers: Callable[[], Peers], eager: bool, gives_up: str
) -> None:
    """A caller that gives up as its answer comes takes no other's request with it."""
    turns = [[("ask", 1)], [], [(gives_up, 0), ("answer", 0), ("ask", 1)], [], [], []]
    first, second = await interleave(peers(), turns, eager=eager)
    assert first.outcomes[0] in ("cancelled", "late", "answered")
    assert second.outcomes == ["answered"]
