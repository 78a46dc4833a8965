"""How an archive wants its handler to be called: one call at a time, many at once, or all rows again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

__all__ = ["ASYNC_CALLS_MAX", "Calling", "calling_of"]

ASYNC_CALLS_MAX: Final = 256
"""Most calls that are under way in one worker of an `asyncCommunication` archive. TorchServe has no bound; this many
sequences is what vLLM, for which TorchServe made it, runs at once by itself (`max_num_seqs`)."""

Way = Literal["one", "async", "continuous"]


class Calling(NamedTuple):
    """How a worker calls its handler.

    Attributes:
        way: `one` call after the other; `async`, a coroutine for each call; `continuous`, every call with all rows that
            are under way, until their answers are whole.
        at_once: How many calls of a sidecar, each of one row but in the way `one`, are under way in a worker at most.
    """

    way: Way = "one"
    at_once: int = 1


def calling_of(config: Mapping[str, Any]) -> Calling:
    """Return how an archive's configuration file wants its handler to be called."""
    if config.get("asyncCommunication") is True:
        return Calling("async", ASYNC_CALLS_MAX)
    if config.get("continuousBatching") is True:
        rows = config.get("batchSize")
        return Calling("continuous", rows if type(rows) is int and rows > 0 else 1)
    return Calling()
