"""Sequences of requests, whose handler keeps a state from one to the next: what an archive's configuration file says of
them, in TorchServe's words (`sequenceBatching`).

A sequence has an id that its caller chose, or was given. Its requests are answered one after the other, in the order of
their coming, by the one worker that has its state; requests of several sequences go in one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from marway.stored import Frozen

__all__ = ["SEQUENCE_KEYS", "SequenceSettings", "sequences_of"]

_IDLE_S: Final = 60.0
_LIVE: Final = 100
_MOST_MS: Final = 7 * 24 * 3600 * 1000
_MOST: Final = 100_000
SEQUENCE_KEYS: Final = {
    "maxNumSequence": (1, _MOST),
    "maxSequenceJobQueueSize": (1, _MOST),
    "sequenceMaxIdleMSec": (1, _MOST_MS),
    "sequenceTimeoutMSec": (0, _MOST_MS),
}
"""What an archive may say of its sequences beside `sequenceBatching`: whole numbers, from and to."""


class SequenceSettings(Frozen):
    """How a version keeps sequences.

    Attributes:
        idle_s: A sequence ends when no request of it came for so long, in seconds.
        timeout_s: It ends so long after it began, in seconds; None for never.
        max_live: Sequences that one pod keeps at most.
        max_waiting: Requests of one sequence that wait behind the one that is being answered, at most.
    """

    idle_s: Annotated[float, Field(gt=0)] = _IDLE_S
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    max_live: Annotated[int, Field(ge=1)] = _LIVE
    max_waiting: Annotated[int, Field(ge=1)] = 1


def sequences_of(config: Mapping[str, Any]) -> SequenceSettings | None:
    """Return how an archive's checked configuration file has sequences kept; None where it keeps none.

    `maxNumSequence` left out is what TorchServe's workers would take at once (`maxWorkers` times `batchSize`), where
    that is said, else 100; what is said is never less than that, as there. Without `sequenceMaxIdleMSec` TorchServe
    would keep none at all: here it is a minute.
    """
    if config.get("sequenceBatching") is not True:
        return None
    at_once = config.get("maxWorkers", 1) * config.get("batchSize", 1)
    live = config.get("maxNumSequence", at_once if at_once > 1 else _LIVE)
    timeout = config.get("sequenceTimeoutMSec")
    return SequenceSettings(
        idle_s=config.get("sequenceMaxIdleMSec", _IDLE_S * 1000) / 1000,
        timeout_s=timeout / 1000 if timeout else None,
        max_live=max(live, at_once),
        max_waiting=config.get("maxSequenceJobQueueSize", 1),
    )
