"""What an archive may not do, for whoever packs, publishes and loads: unpack far beyond its size, or set what Marway
does not serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

__all__ = ["NOT_SERVED", "NotServed", "expansion_problem", "setting_problem"]

_MAX_EXPANDED_BYTES: Final = 64 * 1024**3
"""Most bytes that an archive may unpack to."""
_MAX_RATIO: Final = 200
"""Weights shrink to a half at best and text to a tenth; deflate ends at 1,032."""
_BOMB_FROM_BYTES: Final = 64 * 1024**2
"""An archive that unpacks to more than this and to more than `_MAX_RATIO` times its size is a bomb."""


_CALLING: Final = ("asyncCommunication", "continuousBatching")


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


_SEQUENCE = NotServed("the gateway places every request on its own, and a sequence must stay on one worker", off=True)
_PARALLEL = NotServed(
    "torchrun would start several processes for one worker, on devices of its own choice, which Marway can neither end "
    "together nor count; serve a model that needs several GPUs with a server made for that, or split it in the handler"
)

NOT_SERVED: Final[Mapping[str, NotServed]] = MappingProxyType(
    {
        "maxNumSequence": _SEQUENCE,
        "maxSequenceJobQueueSize": _SEQUENCE,
        "parallelLevel": _PARALLEL,
        "parallelType": _PARALLEL,
        "sequenceBatching": _SEQUENCE,
        "sequenceMaxIdleMSec": _SEQUENCE,
        "sequenceTimeoutMSec": _SEQUENCE,
        "torchrun": _PARALLEL,
        "useVenv": NotServed(
            "a worker of a virtual environment of its own would not understand what it is sent; what the archive's "
            "requirements file names is installed without it",
            off=True,
        ),
    }
)
"""By name. TorchServe takes them, and then every prediction fails, or only the first piece of an answer comes."""


def setting_problem(config: Mapping[str, Any]) -> str | None:
    """Return what an archive's configuration file says that is not served, and why that is, or None."""
    for key in sorted(NOT_SERVED.keys() & config.keys()):
        if config[key] is not False or not NOT_SERVED[key].off:
            return f"its configuration file says {key}, which is not served: {NOT_SERVED[key].why}"
    for key in _CALLING:
        if not isinstance(config.get(key, False), bool):
            return f"its configuration file says {key}, which is neither true nor false"
    if all(config.get(key) for key in _CALLING):
        return f"its configuration file says {' and '.join(_CALLING)}: TorchServe would pass over the second; say one"
    return None
