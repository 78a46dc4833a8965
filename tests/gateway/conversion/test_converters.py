"""The processes that convert large bodies: what they return and raise, and what becomes of one that ends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import partial

import pytest

from marway.errors import InvalidRequest, MarwayError
from marway_gateway.conversion.converters import INLINE_BYTES, Converters
from marway_http.tensors.tensor import json_object

LARGE = INLINE_BYTES + 1


@pytest.fixture
async def converters() -> AsyncIterator[Converters]:
    made = Converters(1)
    yield made
    await made.aclose()


async def test_only_large_bodies_leave(converters: Converters) -> None:
    """A small one is converted where it is; large ones, one after the other, by one process."""
    assert await converters.run(INLINE_BYTES, os.getpid) == os.getpid()
    other = await converters.run(LARGE, os.getpid)
    assert other != os.getpid()
    assert await converters.run(LARGE, os.getpid) == other


async def test_what_is_raised_comes_back(converters: Converters) -> None:
    """Errors of ours come as they are, others as an error that names them; the process goes on."""
    before = await converters.run(LARGE, os.getpid)
    with pytest.raises(InvalidRequest, match="no JSON"):
        await converters.run(LARGE, partial(json_object, nonfinite=True), b"{")
    with pytest.raises(MarwayError, match="ZeroDivisionError"):
        await converters.run(LARGE, divmod, 1, 0)
    assert await converters.run(LARGE, os.getpid) == before


async def test_a_process_that_ends_fails_one_body(converters: Converters) -> None:
    """Whoever's body it had is told so; the next one gets another process."""
    before = await converters.run(LARGE, os.getpid)
    with pytest.raises(MarwayError, match="ended"):
        await converters.run(LARGE, os._exit, 1)
    assert await converters.run(LARGE, os.getpid) != before


async def test_closing_ends_the_processes(converters: Converters) -> None:
    """None is left behind, and closing again does nothing."""
    process = await converters.run(LARGE, os.getpid)
    await converters.aclose()
    await converters.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
