"""Settings of an archive's own configuration file that Marway does not serve, for whoever packs and whoever loads."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["NOT_SERVED", "NotServed"]


class NotServed(NamedTuple):
    """Why a setting is refused, and whether its value `false` is what every archive has anyway."""

    why: str
    off: bool = False


_SEQUENCE = NotServed("the gateway places every request on its own, and a sequence must stay on one worker", off=True)
_PARALLEL = NotServed("a model's workers are single processes here, which torchrun does not start")

NOT_SERVED: Final[Mapping[str, NotServed]] = MappingProxyType(
    {
        "asyncCommunication": NotServed("a worker answers its calls one at a time, in their order", off=True),
        "continuousBatching": NotServed("a call is made once, and does not come back for its next piece", off=True),
        "maxNumSequence": _SEQUENCE,
        "maxSequenceJobQueueSize": _SEQUENCE,
        "parallelLevel": _PARALLEL,
        "parallelType": _PARALLEL,
        "sequenceBatching": _SEQUENCE,
        "sequenceMaxIdleMSec": _SEQUENCE,
        "sequenceTimeoutMSec": _SEQUENCE,
        "torchrun": _PARALLEL,
        "useVenv": NotServed(
            "a worker of a virtual environment of its own would not understand what it is sent; install_requirements "
            "of the runtime installs an archive's requirements into the model's own directory",
            off=True,
        ),
    }
)
"""By name. TorchServe takes them, and then every prediction fails, or only the first piece of an answer comes."""
