"""Rules for archives, for whoever packs, publishes and loads: how far one may unpack, which of its settings are served,
and how it has its handler called.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

__all__ = [
    "ASYNC_CALLS_MAX",
    "NOT_SERVED",
    "Calling",
    "NotServed",
    "calling_of",
    "expansion_problem",
    "sequence_problem",
    "setting_problem",
]

_MAX_EXPANDED_BYTES: Final = 64 * 1024**3
"""Most bytes that an archive may unpack to."""
_MAX_RATIO: Final = 200
"""Weights shrink to a half at best and text to a tenth; deflate ends at 1,032."""
_BOMB_FROM_BYTES: Final = 64 * 1024**2
"""An archive that unpacks to more than this and to more than `_MAX_RATIO` times its size is a bomb."""


_CALLING: Final = ("asyncCommunication", "continuousBatching")
_SEQUENCES: Final = "sequenceBatching"
_NOT_RECORDED: Final = (
    f"its configuration file says {_SEQUENCES}, of which its record knows nothing: it was published by a Marway that "
    "kept no sequences; publish it as a new version"
)


def expansion_problem(size: int, expanded: int) -> str | None:
    """Return what is wrong with an archive of ``size`` bytes that unpacks to ``expanded`` bytes, or None."""
    if expanded > _MAX_EXPANDED_BYTES:
        return f"unpacks to more than {_MAX_EXPANDED_BYTES >> 30} GiB"
    if expanded > _BOMB_FROM_BYTES and expanded > _MAX_RATIO * size:
        return f"is a bomb: it unpacks to more than {_MAX_RATIO} times its {size} bytes"
    return None


class NotServed(NamedTuple):
    """Why a setting is refused, and whether its value `false` is what every archive has anyway."""

    why: str
    off: bool = False


_PARALLEL = NotServed(
    "torchrun would start several processes for one worker, on devices of its own choice, which Marway can neither end "
    "together nor count; serve a model that needs several GPUs with a server made for that, or split it in the handler"
)

NOT_SERVED: Final[Mapping[str, NotServed]] = MappingProxyType(
    {
        "parallelLevel": _PARALLEL,
        "parallelType": _PARALLEL,
        "torchrun": _PARALLEL,
        "useVenv": NotServed(
            "a worker of a virtual environment of its own would not understand what it is sent; what the archive's "
            "requirements file names is installed without it",
            off=True,
        ),
    }
)
"""By name. TorchServe takes them, and then every prediction fails, or only the first piece of an answer comes."""


def setting_problem(config: Mapping[str, Any], *, sequences: bool = False) -> str | None:
    """Return what an archive's configuration file says that is not served, and why that is, or None.

    ``sequences`` is whether its record says that it keeps sequences.
    """
    for key in sorted(NOT_SERVED.keys() & config.keys()):
        if config[key] is not False or not NOT_SERVED[key].off:
            return f"its configuration file says {key}, which is not served: {NOT_SERVED[key].why}"
    for key in (*_CALLING, _SEQUENCES):
        if not isinstance(config.get(key, False), bool):
            return f"its configuration file says {key}, which is neither true nor false"
    if all(config.get(key) for key in _CALLING):
        return f"its configuration file says {' and '.join(_CALLING)}: TorchServe would pass over the second; say one"
    if config.get(_SEQUENCES):
        return sequence_problem(config) or (None if sequences else _NOT_RECORDED)
    return None


def sequence_problem(config: Mapping[str, Any]) -> str | None:
    """Return why an archive whose configuration file says `sequenceBatching` cannot be served so, or None."""
    for key in _CALLING:
        if config.get(key) is True:
            return (
                f"its configuration file says {_SEQUENCES} and {key}, of which Marway serves one: with {key} requests "
                "of one sequence would be under way together"
            )
    return None


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
